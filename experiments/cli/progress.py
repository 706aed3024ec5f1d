"""How far a command is: a live view on a terminal, lines now and then in a log file."""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self, TypeVar

from experiments.cli.activity import Activity
from experiments.cli.time_left import Pace

T = TypeVar("T")

FIRST_SIGN, LONGEST_SILENCE = 10.0, 120.0
"""Seconds until a log file first says what runs, and between two such lines later."""

REFRESHES = 4
"""A second, on a terminal."""

SHOWN = 8
"""Processes whose work a terminal shows, at most."""


def say(text: str) -> None:
    """Write a line on standard error, if there is one."""
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


def track(items: Iterable[T], verb: str, total: int | None) -> Iterable[T]:
    """Pass items through and show how many there were, on a terminal only."""
    if not is_live():
        return items
    from rich.console import Console
    from rich.progress import track as show

    console = Console(stderr=True)
    return show(items, verb, total=total, console=console, transient=True)


def is_live() -> bool:
    """Return whether lines on standard error can be replaced."""
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    from rich.console import Console

    return not Console(stderr=True).is_dumb_terminal


@dataclass
class Progress:
    """Says how many things are done, how long the rest takes, and what runs now.

    Attributes:
        what: What the things are, in the plural.
        sizes: Those that are to be done: a name for each, which is shown, and its
            pixels, which the time follows from.
        kept: How many were done before.
        workers: Processes that share them.
        rank: Number of this process where a launcher started several.
        world: How many it started. Each has things of its own, and none is live.
        count: How many are done by all of them, where there are several.
    """

    what: str
    sizes: Mapping[Any, float]
    kept: int = 0
    workers: int = 1
    rank: int = 0
    world: int = 1
    count: Callable[[], int] | None = None
    _finished: int = 0
    _running: dict[Any, Activity] = field(default_factory=dict)
    _waiting: dict[Any, float] = field(init=False)
    _pace: Pace = field(default_factory=Pace)
    _ended: threading.Event = field(default_factory=threading.Event)
    _said: threading.Event = field(default_factory=threading.Event)
    _lock: Any = field(default_factory=threading.RLock)
    _live: Any = None

    def __enter__(self) -> Self:
        """Begin to speak."""
        self._waiting = dict(self.sizes)
        if not self.sizes:
            return self
        if self.world == 1 and is_live():
            from rich.console import Console
            from rich.live import Live

            # Results go to standard output, which stays as it is.
            self._live = Live(
                get_renderable=self._view,
                console=Console(stderr=True, highlight=False),
                refresh_per_second=REFRESHES,
                transient=True,
                redirect_stdout=False,
            )
            self._live.start()
            return self
        processes = f", process {self.rank} of {self.world}" if self.world > 1 else ""
        shared = f" by {self.workers} processes" if self.workers > 1 else ""
        say(f"{len(self.sizes)} {self.what} to do{shared}{processes}")
        threading.Thread(target=self._give_signs, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Be silent, and give the terminal back."""
        self._ended.set()
        self._said.set()
        if self._live is not None:
            self._live.stop()
            self._live = None

    @contextmanager
    def working(self, name: object, activity: Activity) -> Iterator[None]:
        """Do one of the things; ``activity`` is of the process that does it."""
        with self._lock:
            activity.clear()
            self._waiting.pop(name, None)
            self._running[name] = activity
        ended = False
        try:
            yield
            ended = True
        finally:
            with self._lock:
                activity.stop()
                del self._running[name]
                if ended:
                    self._finished += 1
                    self._pace.add(self.sizes[name], activity.seconds())

    def say(self, text: str) -> None:
        """Say what came of one thing, with how many are done and the time left."""
        text = f"{text}; {self._state()}"
        if self._live is None:
            say(text)
            self._said.set()
        else:
            # Or what was true before would stand below it again.
            self._live.refresh()
            self._live.console.print(text, markup=False, soft_wrap=True)

    @property
    def done(self) -> int:
        """How many things are done, without those that failed."""
        if self.count is not None:
            return self.count()
        return self.kept + self._finished

    @property
    def total(self) -> int:
        """How many there are with those that were done before."""
        return self.kept + len(self.sizes)

    def _state(self) -> str:
        with self._lock:
            running = [(self.sizes[n], own) for n, own in self._running.items()]
            left = self._pace.left(self._waiting.values(), running, self.workers)
            busy = bool(running or self._waiting)
        text = f"{self.done}/{self.total} {self.what}"
        if left is None or not busy:
            return text
        here = " here" if self.world > 1 else ""
        return f"{text}, {timedelta(seconds=round(left))} left{here}"

    def _now(self) -> list[str]:
        with self._lock:
            running = list(self._running.items())
        lines = [f"{name}: {own}" for name, own in running[:SHOWN]]
        more = len(running) - SHOWN
        return [*lines, f"and {more} more"] if more > 0 else lines

    def _view(self) -> Any:
        from rich.text import Text

        text = Text(self._state(), style="bold", no_wrap=True, overflow="ellipsis")
        for line in self._now():
            text.append(f"\n  {line}", style="not bold")
        return text

    def _give_signs(self) -> None:
        """Say what runs after each long silence; several processes take turns."""
        pause = FIRST_SIGN
        while True:
            self._said.clear()
            # Set before the other, so that neither is missed.
            if self._ended.is_set():
                return
            if self._said.wait(pause * self.world):
                continue
            now = "; ".join(self._now()) or "nothing runs"
            say(f"{self._state()}; {now}")
            pause = min(2 * pause, LONGEST_SILENCE)
