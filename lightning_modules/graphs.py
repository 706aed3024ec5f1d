"""Networks of a unit as CUDA graphs: recorded once for each size, then replayed.

Launching the kernels of a small layer takes a processor longer than a GPU takes to run
it. A graph holds all launches between two calls of a port, where the host has to do
something, and repeats them at once: the same kernels on the same shapes, so the numbers
are the same, bit by bit. That is looked at when a graph is new: what it gives is
compared with what the layers gave.

A walk of a network through its port becomes a list of parts, each a graph, and between
two of them a latent that the port codes::

    inputs --copied--> [graph 0] -> port -> [graph 1] -> port -> [graph 2] --copied--> outputs

Tensors in between live where the recording put them, and so hold only until the next
replay; what goes out is a copy.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_modules.clock import unwatched
from lightning_modules.entropy.distributions import Distributions
from lightning_modules.entropy.ports import Port

R = TypeVar("R")

WARM_UPS = 2
"""Passes before one is recorded: libraries choose and load their kernels in the first,
and what layers cache must be there."""
KEPT = 8
"""Recordings of other sizes, starts and refreshes that are kept; each has memory."""


class Graph(Protocol):
    """What ``torch.cuda.CUDAGraph`` can do, of which this needs no more."""

    def begin(self) -> None:
        """Record what is launched from now on, and do not run it."""

    def end(self) -> None:
        """Record no more."""

    def replay(self) -> None:
        """Run what was recorded."""


class CudaGraph:
    """A part of a walk on a GPU.

    Args:
        pool: Memory that the parts of one walk share, in the order that they run in.
    """

    def __init__(self, pool: Any) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._pool = pool

    def begin(self) -> None:
        """Record; other threads may go on to wait for their own copies."""
        self._graph.capture_begin(self._pool, capture_error_mode="thread_local")

    def end(self) -> None:
        """Record no more."""
        self._graph.capture_end()

    def replay(self) -> None:
        """Run what was recorded on the stream of the caller."""
        self._graph.replay()


class Backend:
    """Makes graphs on a CUDA device."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def graph(self) -> Graph:
        """Return an empty graph."""
        return CudaGraph(self._pool)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Launch on a stream of its own, as recording asks for."""
        caller, own = torch.cuda.current_stream(), torch.cuda.Stream()
        torch.cuda.synchronize()
        own.wait_stream(caller)
        with torch.cuda.stream(own):
            yield
        caller.wait_stream(own)
        torch.cuda.synchronize()


BACKENDS: dict[str, Callable[[], Backend]] = {"cuda": Backend}
"""By type of device; walks on others run as they are."""


class GraphsDifferError(RuntimeError):
    """A graph does not give what the layers gave: coding with it would be wrong."""
