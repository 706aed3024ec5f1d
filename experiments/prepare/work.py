"""A store made by this process, its workers, or several machines."""

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import cv2

from datamodules.paths import printable
from datamodules.prepared.shard import (
    ShardWriter,
    StoredVideo,
    journal_file,
    missing_of,
    read_journal,
)
from datamodules.prepared.store import PLAN, STORE, Store, write_store
from experiments.bitstreams.processes import WorkerProcess
from experiments.cli.activity import STORE as DECODE_AND_STORE
from experiments.cli.activity import Activity, activity
from experiments.cli.command import check_folder
from experiments.cli.launcher import rank_and_world
from experiments.cli.lock import LockedError, locked
from experiments.cli.progress import Progress, say
from experiments.prepare.estimate import check_room, estimate, listed, tell
from experiments.prepare.options import PrepareOptions
from experiments.prepare.plan import (
    Plan,
    load_plan,
    make_plan,
    open_videos,
    settle_plan,
)

LOCK = ".lock"


def make_store(options: PrepareOptions) -> int:
    """Do what is missing of a store, and say what it holds in the end.

    Under ``torchrun`` or SLURM each process makes its share of the files, and the one
    that ends last writes the index.

    Returns:
        The command's exit code.

    Raises:
        ValueError: OUT holds something else, or the disk lacks room.
        OSError: It cannot be written. What is whole stays, and the same command goes
            on.
    """
    folder = options.store
    check_folder(folder)
    rank, world = rank_and_world()
    if not options.dry_run:
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, options.dry_run):
        # One process examines the videos, the others read its index.
        wanted = make_plan(open_videos(options), options.source, options.recipe)
        plan = wanted
        if not options.dry_run:
            plan = settle_plan(folder, wanted)
    if (folder / STORE).exists():
        return _finished(folder)
    if rank == 0:
        processes = min(options.workers * world, len(plan.ends))
        expected = estimate(plan, folder)
        for line in tell(plan, expected, folder, processes):
            say(line)
        if warning := check_room(plan, expected, folder):
            say(warning)
    if options.dry_run:
        for line in listed(plan.broken.items()):
            print(line)
        return 0
    try:
        failed = _make_files(plan, folder, options.workers, rank, world)
    except KeyboardInterrupt:
        say("interrupted: finished videos are kept, the same command goes on")
        return 130
    with _alone(folder):
        if (folder / STORE).exists():
            return _finished(folder)
        missing = _finish(plan, folder)
    if failed:
        raise ValueError(
            f"{failed} files of {folder} are locked by another process, which works on "
            "the same store: wait for its end, then the same command goes on"
        )
    if missing:
        print("other processes still work; the last one finishes the store")
        return 0
    return _finished(folder)


@contextmanager
def _alone(folder: Path, dry: bool = False) -> Iterator[None]:
    """Keep the other processes of a store waiting."""
    if dry:
        yield
        return
    with locked(folder / LOCK, wait=True):
        yield


def _finished(folder: Path) -> int:
    store = Store.open(folder)
    if store.skipped:
        noun = "video is" if len(store.skipped) == 1 else "videos are"
        lines = listed(store.skipped.items())
        head = f"{len(store.skipped)} {noun} left out or cut:"
        print("\n  ".join([head, *lines]))
    print(f"{folder}: {store.describe()}")
    print(f"train with --data.source prepared --data.root {folder}")
    return 0


def _finish(plan: Plan, folder: Path) -> int:
    """Write the index if every video is done; return how many are not."""
    shards: list[list[StoredVideo]] = []
    missing = 0
    for number in range(len(plan.ends)):
        done, _ = read_journal(journal_file(folder, number))
        missing += len(missing_of(done, plan.members(number)))
        shards.append(done)
    if missing:
        return missing
    names = [video.name for video in plan.videos]
    fps = [video.fps for video in plan.videos]
    broken = {printable(name): why for name, why in plan.broken.items()}
    write_store(folder, plan.recipe, plan.source, names, fps, shards, broken)
    # The store is whole: what cannot be removed does not matter.
    for path in (folder / PLAN, *folder.glob("*.journal"), *folder.glob(".*.lock")):
        with suppress(OSError):
            path.unlink()
    return 0


def _make_files(plan: Plan, folder: Path, workers: int, rank: int, world: int) -> int:
    """Make this process's share of the files.

    Returns:
        How many another process was at.
    """
    done = [read_journal(journal_file(folder, n))[0] for n in range(len(plan.ends))]
    left = {
        number: len(missing_of(done[number], plan.members(number)))
        for number in range(len(plan.ends))
    }
    # The longest first, so that no process is left alone with one at the end; shares
    # are of all files, whoever has finished some.
    order = sorted(left, key=plan.pixels, reverse=True)[rank::world]
    share = [number for number in order if left[number]]
    if kept := sum(map(len, done)):
        say(f"{kept} of {len(plan.videos)} videos are there already")
    progress = Progress(
        "files",
        {_name(number): plan.pixels(number) for number in share},
        kept=len(order) - len(share),
        workers=min(workers, len(share)),
        rank=rank,
        world=world,
    )
    failed = 0
    with progress:
        for number, outcome in _outcomes(plan, share, folder, workers, progress):
            try:
                notes = outcome.result()
            except LockedError:
                failed += 1
                continue
            faults = f", {len(notes)} cannot be used" if notes else ""
            count = len(plan.members(number))
            noun = "video" if count == 1 else "videos"
            progress.say(f"{_name(number)}: {count} {noun}{faults}")
    return failed


def _name(number: int) -> str:
    return f"file {number:05}"


def _outcomes(
    plan: Plan, share: Sequence[int], folder: Path, workers: int, progress: Progress
) -> Iterator[tuple[int, "Future[list[str]]"]]:
    """Give files as they are done; the first that cannot be written ends the rest."""
    if min(workers, len(share)) <= 1:
        cv2.setNumThreads(0)
        for number in share:
            done: Future[list[str]] = Future()
            with progress.working(_name(number), activity()):
                try:
                    done.set_result(make_file(folder, number, plan))
                except LockedError as error:
                    done.set_exception(error)
            yield number, done
        return
    doing = [Activity() for _ in range(min(workers, len(share)))]
    processes = [
        WorkerProcess(_prepare_worker, own.shared, daemon=True) for own in doing
    ]
    idle: SimpleQueue[tuple[WorkerProcess, Activity]] = SimpleQueue()
    for pair in zip(processes, doing, strict=True):
        idle.put(pair)

    def do(number: int) -> list[str]:
        process, own = idle.get()
        try:
            with progress.working(_name(number), own):
                return process.call(make_file, folder, number)
        finally:
            idle.put((process, own))

    callers = ThreadPoolExecutor(len(processes))
    try:
        waiting = {callers.submit(partial(do, number)): number for number in share}
        while waiting:
            ended, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ended:
                yield waiting.pop(future), future
    finally:
        callers.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.close()


def _prepare_worker(shared: Any) -> None:
    """Set up a worker: one thread, and its parent sees how far it is."""
    cv2.setNumThreads(0)
    activity().share(shared)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def make_file(folder: Path, number: int, plan: Plan | None = None) -> list[str]:
    """Append the videos to a file that it lacks.

    Args:
        folder: Of the store.
        number: Of the file.
        plan: What the store is made of; read if ``None``.

    Returns:
        What is wrong with videos of it.

    Raises:
        LockedError: Another process is at it.
        OSError: It cannot be written.
    """
    plan = plan or load_plan(folder)
    root = Path(plan.source["root"])
    with (
        locked(folder / f".{number:05}.lock"),
        ShardWriter(folder, number, plan.recipe) as writer,
    ):
        missing = missing_of(writer.done, plan.members(number))
        frames = sum(
            plan.recipe.decoded_frames(plan.videos[video].frames) for video in missing
        )
        activity().start(DECODE_AND_STORE, frames)
        for video in missing:
            writer.add(video, root / plan.videos[video].name, activity().step)
        activity().stop()
        return [video.note for video in writer.done if video.note]
