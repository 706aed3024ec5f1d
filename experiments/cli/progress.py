"""Progress on a terminal."""

import sys
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], verb: str, total: int | None) -> Iterable[T]:
    """Pass items through and show how many there were, on a terminal only."""
    if sys.stderr is None or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track as show

    console = Console(stderr=True)
    return show(items, verb, total=total, console=console, transient=True)
