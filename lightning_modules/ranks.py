"""What the processes of a run tell each other."""

import socket
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

NAMED_HOSTS = 3
"""Hosts that a message names, at most."""


def several() -> bool:
    """Return whether this process is one of several that know each other."""
    return dist.is_available() and dist.is_initialized()


def part() -> None:
    """End what the ranks have in common, after the last thing that they do together.

    A process that ends with the group still open is aborted now and then ("terminate
    called without an active exception"), and its launcher calls the run failed.
    """
    if several():
        dist.destroy_process_group()


def gather(own: T) -> list[T]:
    """Return every rank's object, by rank; all ranks must call it."""
    if not several():
        return [own]
    ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(ranks, own)
    return ranks


class Votes:
    """Yes or no of all ranks, asked on their CPUs: nobody waits for a GPU.

    Where the ranks talk by their GPUs otherwise, they get a second group, by gloo. All
    ranks must construct it together, and close it.
    """

    def __init__(self) -> None:
        self._own: Any = None
        if several() and dist.get_backend() != "gloo":
            self._own = dist.new_group(backend="gloo")

    def any(self, own: bool) -> bool:
        """Return whether any rank says yes; all ranks must call it."""
        if not several():
            return own
        vote = torch.tensor(int(own), device="cpu")
        dist.all_reduce(vote, dist.ReduceOp.MAX, group=self._own)
        return bool(vote)

    def close(self) -> None:
        """End the group of its own."""
        if self._own is not None:
            dist.destroy_process_group(self._own)
            self._own = None


def gather_reasons(own: Mapping[str, str]) -> dict[str, str]:
    """Return what fails on any rank and why; all ranks must call it.

    Files may lie on one machine and not on another, and a mean over some ranks only
    would be another measure: all ranks act on what this returns.

    Args:
        own: Reasons of this rank, by the name of what fails.

    Returns:
        The first rank's reason by name, the same on all ranks; where there are several
        ranks it begins with the hosts.
    """
    ranks = gather((socket.gethostname(), dict(own)))
    found: dict[str, str] = {}
    for name in dict.fromkeys(name for _, reasons in ranks for name in reasons):
        hosts = list(dict.fromkeys(host for host, reasons in ranks if name in reasons))
        reason = next(reasons[name] for _, reasons in ranks if name in reasons)
        more = len(hosts) - NAMED_HOSTS
        named = ", ".join(hosts[:NAMED_HOSTS]) + (f" and {more} more" * (more > 0))
        found[name] = f"on {named}: {reason}" if len(ranks) > 1 else reason
    return found
