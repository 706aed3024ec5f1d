"""Functions called in another process, which ends with this one."""

import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import lru_cache
from inspect import isgenerator
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, TypeVar

R = TypeVar("R")
T = TypeVar("T")


class WorkerProcess:
    """Another interpreter that does one call after the other.

    Unlike a worker of ``concurrent.futures`` it notices when this process is killed,
    and it reports its own end as an error instead of breaking a pool.

    Args:
        start: Called in it first.
        arguments: Of ``start``.
        daemon: Whether it is killed when this process exits; it may then start no
            processes of its own. Others must be closed.
    """

    def __init__(
        self, start: Callable[..., None], *arguments: object, daemon: bool
    ) -> None:
        # Spawned: a fork would inherit threads' locks and an initialised GPU.
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, start, arguments), daemon=daemon
        )
        # Ctrl-C reaches every process of a terminal; what it means is decided here.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()

    def call(self, function: Callable[..., R], *arguments: object) -> R:
        """Return what a function of a module gives there.

        Raises:
            OSError: The process has ended, killed for its memory for example.
            Exception: Whatever the function raises.
        """
        result: R = self._ask(function, arguments)
        return result

    def generate(
        self, function: Callable[..., Generator[T, None, R]], *arguments: object
    ) -> Generator[T, None, R]:
        """Give what a generator of a module yields there, and return what it returns.

        It works only while it is asked for its next item; the next one ends it.

        Raises:
            OSError: See :meth:`call`.
            Exception: Whatever the generator raises.
        """
        self._ask(function, arguments)
        while True:
            item, more = pickle.loads(self._ask(_advance, ()))
            if not more:
                ended: R = item
                return ended
            yield item

    def _ask(self, function: Callable[..., object], arguments: object) -> Any:
        try:
            self._pipe.send((function, arguments))
            result, error = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join()
            raise OSError(
                f"a worker process ended with exit code {self._process.exitcode} "
                "(-9: killed, often for its memory)"
            ) from error
        if error is not None:
            raise error
        return result

    @property
    def alive(self) -> bool:
        """Whether it can be called."""
        return self._process.is_alive()

    def close(self) -> None:
        """End it; a call that it is doing is lost."""
        self._pipe.close()
        self._process.terminate()
        self._process.join()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()


def end_with_parent() -> None:
    """End this process as soon as its parent has, amid a call too.

    Else one whose parent was killed goes on with its call, and holds what it has
    locked, while the user gives the command again.
    """
    parent = parent_process()
    assert parent is not None, "it is called in a WorkerProcess"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def prepare_process(threads: int, gpu: int) -> None:
    """Set up a process that codes: threads, and which of several GPUs it takes."""
    import torch

    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(gpu % torch.cuda.device_count())


def decoding_process(threads: int, device: str) -> WorkerProcess:
    """Return the process that decodes for this one, for all of its jobs.

    Args:
        threads: Of torch.
        device: ``cpu``, or ``cuda`` for the GPU that this process uses.
    """
    process = _start_decoder(threads, device)
    if not process.alive:
        _start_decoder.cache_clear()
        process = _start_decoder(threads, device)
    return process


@lru_cache(maxsize=1)
def _start_decoder(threads: int, device: str) -> WorkerProcess:
    import torch

    gpu = torch.cuda.current_device() if device == "cuda" else 0
    return WorkerProcess(prepare_process, threads, gpu, daemon=True)


def _advance(generator: Generator[Any, None, Any]) -> bytes:
    """Return a generator's next item, or what it returns, and whether it goes on.

    Pickled here: a pipe would pass tensors in shared memory, which may be scarce.
    """
    try:
        return pickle.dumps((next(generator), True))
    except StopIteration as end:
        return pickle.dumps((end.value, False))


def _serve(
    pipe: "Connection[Any, Any]", start: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    start(*arguments)
    running: Any = None
    # It ends when the other end does.
    with suppress(EOFError, ConnectionError):
        while True:
            function, values = pipe.recv()
            try:
                if function is _advance:
                    values = (running,)
                result, failure = function(*values), None
                if isgenerator(result):
                    running, result = result, None
            except Exception as error:
                error.add_note("".join(traceback.format_exception(error)))
                result, failure = None, error
            pipe.send((result, failure))
