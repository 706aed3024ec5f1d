"""Measure a coder on sequences: what ``evaluate`` and ``anchor`` share."""

import argparse
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from callbacks.metrics.table import (
    LPIPS_NETS,
    METRICS,
    describe_metrics,
    pooled_names,
)
from datamodules.sequences import SEQUENCES
from experiments.bitstreams.processes import WorkerProcess
from experiments.cli import check_folder
from experiments.evaluate.assessment import measure
from experiments.evaluate.coder import Coder, Settings
from experiments.evaluate.parts import Job, Parts, Rate, check_sources
from experiments.evaluate.show import print_result
from experiments.results.result import Result

PICTURES = (0, 31)


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    """Add what every measurement is told: sequences, protocol, output, processes."""
    add = parser.add_argument
    add("--sequences", metavar="SPEC", nargs="+", required=True, help=SEQUENCES)
    add("--output", metavar="JSON", type=Path, required=True, help="result file")
    add("--name", help="label of the curve (default: the output's name)")
    add("--max_frames", metavar="N", type=int, help="of each sequence (default: all)")
    add(
        "--intra_period",
        metavar="N",
        type=int,
        default=-1,
        help="start without a reference every N frames (default: only at the first)",
    )
    add(
        "--colour",
        choices=["yuv420", "rgb"],
        default="yuv420",
        help="of the frames that are given and compared (default: yuv420)",
    )
    add(
        "--lpips",
        choices=[*LPIPS_NETS, "none"],
        default="alex",
        help="backbone of LPIPS and tLP (default: alex; random: a stand-in for "
        "rehearsals)",
    )
    add(
        "--tof",
        choices=["dis", "teco"],
        nargs="+",
        default=["dis"],
        help="estimators of tOF (default: dis; teco: TecoGAN's)",
    )
    add(
        "--fid",
        choices=["frames", "patches"],
        nargs="+",
        default=[],
        help="also FID and KID of all frames of a set, whole or in squares of 256",
    )
    add("--brisque", action="store_true", help="also BRISQUE")
    add(
        "--metrics",
        action=_ListMetrics,
        nargs=0,
        help="print what every metric is and needs, and end",
    )
    add(
        "--vmaf",
        action="store_true",
        help="also VMAF, in yuv420 (needs pip install -e '.[anchors]')",
    )
    add(
        "--pictures",
        metavar="FRAME",
        type=int,
        nargs="*",
        default=list(PICTURES),
        help="frames to keep as PNG for reports (default: 0 31)",
    )
    add("--workers", metavar="N", type=int, default=1, help="processes (default: 1)")
    add(
        "--threads",
        metavar="N",
        type=int,
        help="of each process (default: the cores, divided by the workers)",
    )
    add("--overwrite", action="store_true", help="discard what OUTPUT holds first")


class _ListMetrics(argparse.Action):
    """Print every metric and exit, whatever else is missing."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        print(describe_metrics())
        parser.exit()


def settings_of(options: argparse.Namespace, rate: str = "bitstream") -> Settings:
    """Return the settings that the options describe.

    Raises:
        ValueError: A number is impossible.
    """
    for name, least in (("max_frames", 1), ("workers", 1), ("threads", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} is {value}, it must be at least {least}")
    if options.intra_period != -1 and options.intra_period < 1:
        raise ValueError(
            f"--intra_period is {options.intra_period}: it must be at least 1, or -1"
        )
    if options.output.suffix != ".json":
        raise ValueError(f"--output {options.output} must end in .json")
    check_folder(options.output.parent)
    if options.vmaf:
        if options.colour != "yuv420":
            raise ValueError("--vmaf is defined on 4:2:0 frames: use --colour yuv420")
        from datamodules.ffmpeg import find_ffmpeg

        find_ffmpeg()
    return Settings(
        colour=options.colour,
        max_frames=options.max_frames,
        intra_period=options.intra_period,
        rate=rate,
        metrics=chosen_metrics(options),
        pictures=tuple(sorted(set(options.pictures))),
        threads=threads_of(options),
    )


def chosen_metrics(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the metrics that the options ask for, and those that need no option."""
    chosen = {"", f"--lpips {options.lpips}"}
    chosen |= {f"--tof {flow}" for flow in options.tof}
    chosen |= {f"--fid {kind}" for kind in options.fid}
    chosen |= {f"--{name}" for name in ("brisque", "vmaf") if getattr(options, name)}
    return tuple(name for name, metric in METRICS.items() if metric.option in chosen)


def threads_of(options: argparse.Namespace) -> int:
    """Return the threads of each process: as asked, or a fair share of the cores."""
    cores = len(os.sched_getaffinity(0))
    return options.threads or max(1, cores // options.workers)


def measure_all(
    coder: Coder,
    rates: Sequence[Rate],
    settings: Settings,
    options: argparse.Namespace,
) -> int:
    """Do what is missing of every sequence at every rate, and print the result.

    Under ``torchrun`` or SLURM each process does its share of the jobs, and the one
    that finishes last writes the whole file.

    Args:
        coder: What codes.
        rates: At which rates.
        settings: How.
        options: Of :func:`add_shared_options`.

    Returns:
        The command's exit code.

    Raises:
        ValueError: Jobs failed, and the others' parts are kept; or what there is
            belongs to another codec, protocol or video.
    """
    from datamodules.sequences.files import frames_to_read
    from datamodules.sequences.find import find_sequences

    rank, world = rank_and_world()
    sequences = find_sequences(options.sequences)
    for sequence in sequences:
        # That one is too short shall not come out after hours.
        frames_to_read(sequence, settings.max_frames)
    needs = needed_metrics(settings)
    pools: dict[str, tuple[str, ...]] = {}
    for sequence in sorted(sequences, key=lambda s: s.name):
        pools[sequence.set] = (*pools.get(sequence.set, ()), sequence.name)
    jobs = [
        Job(sequence, rate, needs, coder.scales, pools[sequence.set])
        for sequence in sequences
        for rate in dict.fromkeys(rates)
    ]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    if options.overwrite:
        _discard(options.output, world)
    empty = Result(coder.name, coder.describe(), settings.protocol())
    parts = Parts(options.output, empty)
    done = parts.load()
    check_sources(done, sequences, settings.max_frames)
    missing = [job for job in jobs if not job.done_in(done)]
    if len(missing) < len(jobs):
        kept = len(jobs) - len(missing)
        print(f"{kept} of {len(jobs)} points are there already", file=sys.stderr)
    # The longest first, so that no process is left alone with one at the end. Shares
    # are of all jobs: others may have finished some of theirs already.
    share = sorted(jobs, key=_size, reverse=True)[rank::world]
    share = [job for job in share if job in missing]
    try:
        _work(share, coder, settings, parts, options.workers)
    except KeyboardInterrupt:
        print(
            "interrupted: finished points are kept, the same command goes on",
            file=sys.stderr,
        )
        return 130
    result = parts.finish(jobs, alone=world == 1)
    if result is None:
        print("other processes still work; the last one writes the result")
        return 0
    print_result(result, options.output)
    if parts.folder.exists():
        print(
            f"note: {parts.folder} holds what other commands left: if none is running "
            "or to go on, remove it",
            file=sys.stderr,
        )
    return 0


def needed_metrics(settings: Settings) -> tuple[str, ...]:
    """Return the metrics that were asked for and for which nothing is missing here.

    A point that lacks one of them, because it was measured without, is measured again.
    """
    # Metrics of the same samples are pooled together, or not at all.
    return tuple(
        name
        for name in settings.metrics
        if METRICS[name].per_frame or name in pooled_names(METRICS[name].pooled)[:1]
        if METRICS[name].lacks() is None
    )


def _work(
    jobs: Sequence[Job], coder: Coder, settings: Settings, parts: Parts, workers: int
) -> None:
    """Do jobs and keep each as soon as it is done."""
    failures: list[str] = []
    advice = ""
    for job, outcome in _outcomes(jobs, coder, settings, parts.output, workers):
        if isinstance(outcome, Result):
            parts.add(job, outcome)
            print(f"{job.label}: {_headline(outcome)}", file=sys.stderr, flush=True)
        else:
            failures.append(f"{job.label}: {outcome}")
            if isinstance(outcome, ValueError):
                advice = "; if one fails again, leave that sequence or rate out"
            print(f"failed: {failures[-1]}", file=sys.stderr, flush=True)
    if failures:
        raise ValueError(
            f"{len(failures)} of {len(jobs)} points could not be measured (first: "
            f"{failures[0]}); the others are kept, and the same command tries these "
            f"again{advice}"
        )


def _outcomes(
    jobs: Sequence[Job],
    coder: Coder,
    settings: Settings,
    output: Path,
    workers: int,
) -> Iterator[tuple[Job, Result | ValueError | OSError]]:
    """Give each job as it ends with its result, or with what the user can mend."""
    workers = min(workers, len(jobs))
    if workers <= 1:
        prepare_process(settings.threads, _first_gpu(1))
        for job in jobs:
            try:
                yield job, measure(job, coder, settings, output)
            except (ValueError, OSError) as error:
                yield job, error
        return
    idle: SimpleQueue[WorkerProcess] = SimpleQueue()
    processes = [
        WorkerProcess(
            _prepare_worker, settings.threads, _first_gpu(workers) + n, daemon=False
        )
        for n in range(workers)
    ]

    def do(job: Job) -> Result:
        process = idle.get()
        try:
            return process.call(measure, job, coder, settings, output)
        finally:
            idle.put(process)

    for process in processes:
        idle.put(process)
    threads = ThreadPoolExecutor(workers)
    try:
        futures = {threads.submit(do, job): job for job in jobs}
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except (ValueError, OSError) as error:
                yield futures[future], error
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.close()


def prepare_process(threads: int, gpu: int) -> None:
    """Set up a process that codes: threads, and which of several GPUs it takes."""
    import torch

    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(gpu % torch.cuda.device_count())


def _prepare_worker(threads: int, gpu: int) -> None:
    """Set up a process that is told to end: it leaves no half-done job behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    prepare_process(threads, gpu)


def _first_gpu(workers: int) -> int:
    """Return the number of the first GPU of this process, by its place on the node."""
    local = "LOCAL_RANK" if "LOCAL_RANK" in os.environ else "SLURM_LOCALID"
    return (_number(local) if local in os.environ else 0) * workers


def rank_and_world() -> tuple[int, int]:
    """Return this process's number and how many there are, as its launcher says.

    Read from the variables of ``torchrun`` (RANK, WORLD_SIZE) or of SLURM's ``srun``;
    a batch script outside of ``srun`` is one process, however many tasks it may start.

    Raises:
        ValueError: A variable is no number, or the rank none of the world's.
    """
    launchers = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))
    for names in launchers:
        if all(name in os.environ for name in names):
            rank, world = map(_number, names)
            if rank >= world:
                raise ValueError(
                    f"{names[0]} is {rank}, it must be below {names[1]}, which is "
                    f"{world}"
                )
            return rank, world
    return 0, 1


def _number(variable: str) -> int:
    """Return what an environment variable says, a whole number from 0."""
    text = os.environ[variable]
    if not re.fullmatch("[0-9]+", text):
        raise ValueError(
            f"the environment variable {variable} is {text!r}, it must be a whole "
            "number: unset it, or start the processes with torchrun or srun"
        )
    return int(text)


def _discard(output: Path, world: int) -> None:
    """Remove a result with all that belongs to it."""
    if world > 1:
        raise ValueError(
            f"--overwrite with {world} processes could discard what another one has "
            f"just made: remove {output} and {output.with_suffix('.parts')} first"
        )
    for suffix in (".parts", ".frames"):
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
        f"{point.bpp:.5f} bpp, {METRICS[shown].label} {point.metrics[shown]:.3f} dB; "
        f"per frame {', '.join(seconds)}"
    )
