"""The jobs of a command, done by this process, its workers, or several machines."""

import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from threading import Lock
from typing import Any

from callbacks.metrics.table import METRICS, pooled_names
from datamodules.ffmpeg import find_ffmpeg
from datamodules.sequences.files import VideoSequence, frames_to_read
from datamodules.sequences.find import find_sequences
from experiments.bitstreams.processes import WorkerProcess, prepare_process
from experiments.cli.activity import Activity, activity
from experiments.cli.launcher import first_gpu, rank_and_world
from experiments.cli.progress import Progress, say
from experiments.evaluate.assessment import assess
from experiments.evaluate.coder import Coder
from experiments.evaluate.job import Job, Rate
from experiments.evaluate.options import JobOptions
from experiments.evaluate.parts import Parts, check_sources
from experiments.evaluate.pools import make_pools
from experiments.evaluate.show import print_result
from experiments.evaluate.sources import Sources
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
    if options.wandb is not None:
        # Imported here: Lightning takes seconds. A wrong name is refused before work.
        from experiments.evaluate.wandb_log import folder_of, log_result

        folder_of(options)
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
    parts.clear()
    done = parts.load()
    check_sources(done, sequences, options.max_frames)
    coder.check(sequences, options.max_frames, done)
    missing = [job for job in jobs if not job.done_in(done)]
    if len(missing) < len(jobs):
        kept = len(jobs) - len(missing)
        say(f"{kept} of {len(jobs)} points are there already")
    # The longest first, so that no process is left alone with one at the end. Shares
    # are of all jobs: others may have finished some of theirs already.
    size = partial(_size, max_frames=options.max_frames)
    share = sorted(jobs, key=size, reverse=True)[rank::world]
    share = [job for job in share if job in missing]
    progress = Progress(
        "points",
        {job: size(job) for job in share},
        kept=len(jobs) - len(share),
        workers=min(options.workers, len(share)),
        rank=rank,
        world=world,
        count=None if world == 1 else partial(parts.count, jobs, missing),
    )
    try:
        with progress:
            _work(share, coder, options, parts, progress)
    except KeyboardInterrupt:
        say("interrupted: finished points are kept, the same command goes on")
        return 130
    finally:
        # Without a point there is nothing to keep.
        parts.clear()
    # Between reading the points and writing the whole, nobody may add another.
    with parts.lock():
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
    if options.wandb is not None:
        log_result(result, options)
    if parts.folder.exists():
        say(
            f"note: {parts.folder} holds what other commands left: if none is running "
            "or to go on, remove it"
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


def _work(
    jobs: Sequence[Job],
    coder: Coder,
    options: JobOptions,
    parts: Parts,
    progress: Progress,
) -> None:
    """Do jobs, keep each as soon as it is done, and tell at the end which failed."""
    failures: list[str] = []
    advice = ""
    for job, outcome in _outcomes(jobs, coder, options, progress):
        try:
            result = outcome()
        except (ValueError, OSError) as error:
            failures.append(f"{job}: {error}")
            if isinstance(error, ValueError):
                advice = "; if one fails again, leave that sequence or rate out"
            progress.say(f"failed: {failures[-1]}")
        else:
            parts.add(job, result)
            progress.say(f"{job}: {_headline(result)}")
    if failures:
        raise ValueError(
            f"{len(failures)} of {len(jobs)} points could not be measured (first: "
            f"{failures[0]}); the others are kept, and the same command tries these "
            f"again{advice}"
        )


def _outcomes(
    jobs: Sequence[Job], coder: Coder, options: JobOptions, progress: Progress
) -> Iterator[tuple[Job, Callable[[], Result]]]:
    """Give jobs, and what returns the result of each or raises why there is none."""
    workers, threads = min(options.workers, len(jobs)), options.threads_each
    gpu = first_gpu(max(1, workers))
    if workers <= 1:
        prepare_process(threads, gpu)
        sources = Sources()

        def alone(job: Job) -> Result:
            with progress.working(job, activity()):
                return assess(job, coder, options, sources.of(job.sequence, options))

        for job in jobs:
            yield job, partial(alone, job)
        return
    doing = [Activity() for _ in range(workers)]
    processes = [
        WorkerProcess(
            _prepare_worker, workers, threads, gpu + n, own.shared, daemon=False
        )
        for n, own in enumerate(doing)
    ]
    waiting = Waiting(jobs)
    outcomes: SimpleQueue[tuple[Job, Callable[[], Result]]] = SimpleQueue()

    def work(process: WorkerProcess, own: Activity) -> None:
        job = waiting.take(None)
        while job:
            done: Future[Result] = Future()
            try:
                with progress.working(job, own):
                    done.set_result(process.call(_assess_there, job, coder, options))
            except BaseException as error:
                done.set_exception(error)
            outcomes.put((job, done.result))
            job = waiting.take(job)

    callers = ThreadPoolExecutor(workers)
    try:
        for pair in zip(processes, doing, strict=True):
            callers.submit(work, *pair)
        for _ in jobs:
            yield outcomes.get()
    finally:
        waiting.clear()
        callers.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.close()


class Waiting:
    """Jobs that nobody has begun, for several workers.

    Args:
        jobs: In the order in which they are to be done.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = list(jobs)
        self._begun: set[VideoSequence] = set()
        self._lock = Lock()

    def take(self, last: Job | None) -> Job | None:
        """Return the next job for a worker, ``None`` if there is none left.

        It goes on with its sequence, whose frames it knows; or else with one that
        nobody has begun, so that the others can go on with theirs.

        Args:
            last: What the worker did before.
        """
        with self._lock:
            own = [j for j in self._jobs if last and j.sequence == last.sequence]
            new = [j for j in self._jobs if j.sequence not in self._begun]
            job = next(iter([*own, *new, *self._jobs]), None)
            if job:
                self._jobs.remove(job)
                self._begun.add(job.sequence)
            return job

    def clear(self) -> None:
        """Leave what nobody has begun undone."""
        with self._lock:
            self._jobs.clear()


_sources_here = Sources()
"""Of a worker process."""


def _prepare_worker(workers: int, threads: int, gpu: int, shared: Any) -> None:
    """Set up a process that is told to end: it leaves no half-done job behind."""
    activity().share(shared)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    prepare_process(threads, gpu)
    _sources_here.share(workers)


def _assess_there(job: Job, coder: Coder, options: JobOptions) -> Result:
    """Do a job in a worker process."""
    return assess(job, coder, options, _sources_here.of(job.sequence, options))


def _finish(parts: Parts, jobs: Sequence[Job], *, alone: bool) -> Result | None:
    """Write the whole file if every job is done; return it, or None.

    A job that is not done is an error if this process is ``alone`` at them.
    """
    found = parts.read()
    result = merge(parts.empty, list(found.values()))
    undone = [job for job in jobs if not job.done_in(result)]
    if undone and alone:
        raise ValueError(
            f"{undone[0]} was measured, but what {parts.folder} holds lacks it "
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


def _size(job: Job, max_frames: int | None) -> int:
    """Return how many pixels are coded; of a file that says no length, of a frame."""
    sequence = job.sequence
    frames = frames_to_read(sequence, max_frames) or 1
    return sequence.width * sequence.height * frames


def _headline(result: Result) -> str:
    point = result.sequences[0].points[0]
    shown = "psnr_rgb" if result.protocol.colour == "rgb" else "psnr_yuv"
    seconds = [f"{k} {v:.3f} s" for k, v in point.seconds.items() if "_" not in k]
    return (
        f"{point.bpp:.5f} bpp, {METRICS[shown].label} {point.metrics[shown]:.3f} dB"
        + f"; per frame {', '.join(seconds)}" * bool(seconds)
    )
