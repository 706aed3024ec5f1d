"""A store made by this process, its workers, or several machines."""

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    suppress,
)
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
from experiments.bitstreams.processes import WorkerProcess, end_with_parent
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
    PlannedFile,
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
    check_folder(folder, "OUT")
    rank, world = rank_and_world()
    with nullcontext() if options.dry_run else _begun(folder):
        # One process examines the videos, the others read its index.
        wanted = make_plan(open_videos(options), options.source, options.recipe)
        plan = settle_plan(folder, wanted, keep=not options.dry_run)
    if (folder / STORE).exists():
        return _finished(folder)
    if rank == 0:
        processes = min(options.workers * world, len(plan.ends))
        expected = estimate(plan, folder)
        for line in tell(plan, expected, folder, processes):
            say(line)
        try:
            warning = check_room(plan, expected, folder)
        except ValueError:
            _forget(folder, options.dry_run)
            raise
        if warning:
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
        missing = 0 if (folder / STORE).exists() else _finish(plan, folder)
    if not missing:
        return _finished(folder)
    if failed:
        raise ValueError(
            f"{failed} files of {folder} are locked by another process, which works on "
            "the same store: wait for its end, then the same command goes on"
        )
    print("other processes still work; the last one finishes the store")
    return 0


def _alone(folder: Path) -> AbstractContextManager[bool]:
    """Keep the other processes of a store waiting."""
    return locked(folder / LOCK, wait=True)


@contextmanager
def _begun(folder: Path) -> Iterator[None]:
    """Begin a store, alone; leave no trace of one that could not be begun."""
    with _alone(folder):
        try:
            yield
        except BaseException:
            if not (folder / PLAN).exists() and not (folder / STORE).exists():
                _remove(folder)
            raise


def _forget(folder: Path, dry: bool) -> None:
    """Forget a plan of which nothing is done, so that another one may follow."""
    if dry:
        return
    with _alone(folder):
        if not any(folder.glob("*.journal")):
            (folder / PLAN).unlink(missing_ok=True)
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder that holds nothing but its lock, which is held."""
    with suppress(OSError):
        (folder / LOCK).unlink()
        folder.rmdir()


def _lock_of(folder: Path, number: int) -> AbstractContextManager[bool]:
    """Be the only one at a file of the store."""
    return locked(folder / f".{number:05}.lock")


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
    with suppress(OSError):
        (folder / PLAN).unlink()
    for number in range(len(plan.ends)):
        # Whoever is at a file needs its journal: without it, it would begin anew.
        with suppress(OSError, LockedError), _lock_of(folder, number):
            journal_file(folder, number).unlink()
            (folder / f".{number:05}.lock").unlink()
    with suppress(OSError):
        (folder / LOCK).unlink()
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
                    done.set_result(make_file(folder, plan.file(number)))
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
                return process.call(make_file, folder, plan.file(number))
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
    end_with_parent()
    cv2.setNumThreads(0)
    activity().share(shared)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def make_file(folder: Path, planned: PlannedFile) -> list[str]:
    """Append the videos to a file that it lacks.

    Args:
        folder: Of the store.
        planned: The file.

    Returns:
        What is wrong with videos of it.

    Raises:
        LockedError: Another process is at it.
        OSError: It cannot be written, or a video has gone.
    """
    number, recipe, videos = planned.number, planned.recipe, planned.videos
    with _lock_of(folder, number):
        if (folder / STORE).exists():
            # Others have finished it since, and removed the journals.
            return []
        with ShardWriter(folder, number, recipe) as writer:
            missing = missing_of(writer.done, videos)
            frames = sum(recipe.decoded_frames(videos[v].frames) for v in missing)
            activity().start(DECODE_AND_STORE, frames)
            for video in missing:
                path = planned.root / videos[video].name
                writer.add(video, path, activity().step)
            activity().stop()
            return [video.note for video in writer.done if video.note]
