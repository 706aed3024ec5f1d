"""The jobs of a command, done by this process, its workers, or several machines."""

import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from queue import SimpleQueue

from callbacks.metrics.table import METRICS, pooled_names
from datamodules.ffmpeg import find_ffmpeg
from datamodules.sequences.files import frames_to_read
from datamodules.sequences.find import find_sequences
from experiments.bitstreams.processes import WorkerProcess, prepare_process
from experiments.evaluate.assessment import assess
from experiments.evaluate.coder import Coder
from experiments.evaluate.job import Job, Rate
from experiments.evaluate.launcher import first_gpu, rank_and_world
from experiments.evaluate.options import JobOptions
from experiments.evaluate.parts import Parts, check_sources
from experiments.evaluate.pools import make_pools
from experiments.evaluate.show import print_result
from experiments.results.joining import merge
from experiments.results.result import Result


def run_jobs(coder: Coder, rates: Sequence[Rate], options: JobOptions) -> int:
    """Do what is missing of every sequence at every rate, and print the result.

    Under ``torchrun`` or SLURM each process does its share of the jobs, and the one
    that finishes last writes the whole file.

    Args:
        coder: What codes.
        rates: At which rates.
        options: What, how, and where to.

    Returns:
        The command's exit code.

    Raises:
        ValueError: Jobs failed, and the others' parts are kept; or what there is
            belongs to another codec, protocol or video; or the coder refuses the job.
    """
    if options.vmaf:
        find_ffmpeg()
    rank, world = rank_and_world()
    sequences = find_sequences(options.sequences)
    for sequence in sequences:
        # That one is too short shall not come out after hours.
        frames_to_read(sequence, options.max_frames)
    needs = _needed_metrics(options)
    pools: dict[str, tuple[str, ...]] = {}
    for sequence in sorted(sequences, key=lambda s: s.name):
        pools[sequence.set] = (*pools.get(sequence.set, ()), sequence.name)
    jobs = [
        Job(sequence, rate, needs, coder.scales, pools[sequence.set], coder.latents)
        for sequence in sequences
        for rate in dict.fromkeys(rates)
    ]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    if options.overwrite:
        _discard(options, world)
    empty = Result(coder.name, coder.describe(), options.protocol())
    parts = Parts(options.output, empty)
    done = parts.load()
    check_sources(done, sequences, options.max_frames)
    coder.check(sequences, options.max_frames, done)
    missing = [job for job in jobs if not job.done_in(done)]
    if len(missing) < len(jobs):
        kept = len(jobs) - len(missing)
        print(f"{kept} of {len(jobs)} points are there already", file=sys.stderr)
    # The longest first, so that no process is left alone with one at the end. Shares
    # are of all jobs: others may have finished some of theirs already.
    share = sorted(jobs, key=_size, reverse=True)[rank::world]
    share = [job for job in share if job in missing]
    try:
        _work(share, coder, options, parts)
    except KeyboardInterrupt:
        print(
            "interrupted: finished points are kept, the same command goes on",
            file=sys.stderr,
        )
        return 130
    finally:
        parts.tidy()
    result = _finish(parts, jobs, alone=world == 1)
    if result is None:
        print("other processes still work; the last one writes the result")
        return 0
    print_result(result, options.output)
    if coder.latents:
        # Imported here: matplotlib takes a second.
        from experiments.evaluate.latents import draw_latents

        for path in draw_latents(result, options.output.with_suffix(".latents")):
            print(f"latents: {path}")
    if parts.folder.exists():
        print(
            f"note: {parts.folder} holds what other commands left: if none is running "
            "or to go on, remove it",
            file=sys.stderr,
        )
    return 0


def _needed_metrics(options: JobOptions) -> tuple[str, ...]:
    """Return the metrics that were asked for and for which nothing is missing here.

    A point that lacks one of them, because it was assessed without, is assessed again.
    """
    # Metrics of the same samples are pooled together, or not at all.
    return tuple(
        name
        for name in options.metric_names
        if METRICS[name].per_frame or name in pooled_names(METRICS[name].pooled)[:1]
        if METRICS[name].lacks() is None
    )


def _work(jobs: Sequence[Job], coder: Coder, options: JobOptions, parts: Parts) -> None:
    """Do jobs, keep each as soon as it is done, and tell at the end which failed."""
    failures: list[str] = []
    advice = ""
    for job, outcome in _outcomes(jobs, coder, options):
        try:
            result = outcome()
        except (ValueError, OSError) as error:
            failures.append(f"{job.label}: {error}")
            if isinstance(error, ValueError):
                advice = "; if one fails again, leave that sequence or rate out"
            print(f"failed: {failures[-1]}", file=sys.stderr, flush=True)
        else:
            parts.add(job, result)
            print(f"{job.label}: {_headline(result)}", file=sys.stderr, flush=True)
    if failures:
        raise ValueError(
            f"{len(failures)} of {len(jobs)} points could not be measured (first: "
            f"{failures[0]}); the others are kept, and the same command tries these "
            f"again{advice}"
        )


def _outcomes(
    jobs: Sequence[Job], coder: Coder, options: JobOptions
) -> Iterator[tuple[Job, Callable[[], Result]]]:
    """Give jobs, and what returns the result of each or raises why there is none."""
    workers, threads = min(options.workers, len(jobs)), options.threads_each
    gpu = first_gpu(max(1, workers))
    if workers <= 1:
        prepare_process(threads, gpu)
        for job in jobs:
            yield job, partial(assess, job, coder, options)
        return
    processes = [
        WorkerProcess(_prepare_worker, threads, gpu + n, daemon=False)
        for n in range(workers)
    ]
    idle: SimpleQueue[WorkerProcess] = SimpleQueue()
    for process in processes:
        idle.put(process)

    def do(job: Job) -> Result:
        process = idle.get()
        try:
            return process.call(assess, job, coder, options)
        finally:
            idle.put(process)

    callers = ThreadPoolExecutor(workers)
    try:
        futures = {callers.submit(do, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result
    finally:
        callers.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.close()


def _prepare_worker(threads: int, gpu: int) -> None:
    """Set up a process that is told to end: it leaves no half-done job behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    prepare_process(threads, gpu)


def _finish(parts: Parts, jobs: Sequence[Job], *, alone: bool) -> Result | None:
    """Write the whole file if every job is done; return it, or None.

    A job that is not done is an error if this process is ``alone`` at them.
    """
    found = parts.read()
    result = merge(parts.empty, list(found.values()))
    undone = [job for job in jobs if not job.done_in(result)]
    if undone and alone:
        raise ValueError(
            f"{undone[0].label} was measured, but what {parts.folder} holds lacks it "
            f"({len(undone)} of {len(jobs)} points): another command has removed it; "
            "the same command again measures what is missing"
        )
    if undone:
        return None
    try:
        result.pools = make_pools(result, jobs, parts.folder)
    except FileNotFoundError:
        # Another process has just written the whole and removed the parts.
        return _finish(parts, jobs, alone=alone)
    parts.finish(result, found, jobs)
    return result


def _discard(options: JobOptions, world: int) -> None:
    """Remove a result with all that belongs to it."""
    output = options.output
    if world > 1:
        raise ValueError(
            f"--overwrite with {world} processes could discard what another one has "
            f"just made: remove {output} and {output.with_suffix('.parts')} first"
        )
    for suffix in (".parts", ".frames", ".latents"):
        shutil.rmtree(output.with_suffix(suffix), ignore_errors=True)
    output.unlink(missing_ok=True)


def _size(job: Job) -> int:
    sequence = job.sequence
    return sequence.width * sequence.height * (sequence.frames or 1)


def _headline(result: Result) -> str:
    point = result.sequences[0].points[0]
    shown = "psnr_rgb" if result.protocol.colour == "rgb" else "psnr_yuv"
    seconds = [f"{k} {v:.3f} s" for k, v in point.seconds.items() if "_" not in k]
    return (
        f"{point.bpp:.5f} bpp, {METRICS[shown].label} {point.metrics[shown]:.3f} dB"
        + f"; per frame {', '.join(seconds)}" * bool(seconds)
    )
