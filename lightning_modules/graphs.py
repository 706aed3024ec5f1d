"""Networks of a unit as CUDA graphs: recorded once for each size, then replayed.

Launching the kernels of a small layer takes a processor longer than a GPU takes to run
it. A graph holds all launches between two calls of a port, where the host has to do
something, and repeats them at once: the same kernels on the same shapes, so the numbers
are the same, bit by bit. That is looked at when a graph is new: what it gives is
compared with what the layers gave.

A walk of a network through its port becomes a list of parts, each a graph, and between
two of them a latent that the port codes::

    inputs, copied -> [graph] -> port -> [graph] -> port -> [graph] -> copied, outputs

Tensors in between live where the recording put them, and so hold only until the next
replay; what goes out is a copy.
"""

import gc
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_modules.clock import unwatched
from lightning_modules.entropy.distributions import Distributions, Factorised
from lightning_modules.entropy.ports import DecodePort, EncodePort, Port
from lightning_modules.numerics import KERNELS

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
    """Makes graphs on a CUDA device.

    Args:
        device: Which one; it need not be the current one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def graph(self) -> Graph:
        """Return an empty graph."""
        return CudaGraph(self._pool)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Launch on a stream of its own, as recording asks for."""
        torch.cuda.synchronize(self._device)
        # Nothing of CUDA may be freed meanwhile, as a collection would.
        gc.collect()
        collects = gc.isenabled()
        gc.disable()
        try:
            with torch.cuda.stream(torch.cuda.Stream(self._device)):
                yield
        finally:
            if collects:
                gc.enable()
        torch.cuda.synchronize(self._device)


BACKENDS: dict[str, Callable[[torch.device], Backend]] = {"cuda": Backend}
"""By type of device; walks on others run as they are."""


class GraphsDifferError(ValueError):
    """A graph does not give what the layers give: decoders without it would differ."""


class _Outside(TorchDispatchMode):
    """Keeps what is read in a recording and was there before: a graph has addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []
        self._own: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = tensors_of((args, tuple((kwargs or {}).values())))
        self.tensors += [t for t in given if _address(t) not in self._own]
        result = func(*args, **(kwargs or {}))
        self._own |= {_address(t) for t in tensors_of(result)}
        return result


def _address(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


@dataclass
class Step:
    """A latent that a port codes between two graphs.

    Attributes:
        x: Where the graph before leaves it; ``None`` to decode.
        of: How it is distributed, by parameters that the graph before leaves.
        coded: Where the graph after looks for it.
    """

    x: Tensor | None
    of: Distributions
    coded: Tensor


class _RecordingPort:
    """Ends a graph where a walk codes a latent, has it coded, and begins the next."""

    def __init__(self, recording: "Recording", port: Port) -> None:
        self._recording = recording
        self._port = port

    def code(self, x: Tensor | None, of: Distributions) -> Tensor:
        recording = self._recording
        recording.end()
        coded = self._port.code(x, of).clone()
        recording.steps.append(Step(x, of, coded))
        recording.begin()
        return coded


class _EchoPort:
    """Says again what was coded, if it is asked the same, bit by bit."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = iter(steps)

    def code(self, x: Tensor | None, of: Distributions) -> Tensor:
        step = next(self._steps)
        pairs = [(step.x, x)]
        # A factorised latent's is its shape alone.
        if not isinstance(of, Factorised):
            pairs.append((step.of.like, of.like))
        _compare(pairs)
        return step.coded


def _compare(pairs: Sequence[tuple[Tensor | None, Tensor | None]]) -> None:
    for one, other in pairs:
        if one is None or other is None:
            same = one is other
        else:
            # As bytes: NaN is NaN.
            bits = (t.reshape(-1).view(torch.uint8) for t in (one, other))
            same = torch.equal(*bits)
        if not same:
            raise GraphsDifferError(
                "CUDA graphs do not give, bit by bit, what the networks give on this "
                "device: leave out --graphs"
            )


class Recording:
    """A walk for inputs of given shapes, as graphs and what happens between them.

    Args:
        backend: Makes graphs.
        walk: As :meth:`Graphs.run` takes it.
        arguments: Likewise; their port codes the latents of this first pass.

    Attributes:
        outputs: Of this pass.
        steps: Between the graphs.

    Raises:
        GraphsDifferError: The graphs give something else than the walk.
    """

    def __init__(
        self,
        backend: Backend,
        walk: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> None:
        self.steps: list[Step] = []
        self._backend = backend
        self._graphs: list[Graph] = []
        self._inputs = [given.clone() for given in tensors_of(arguments)]
        held = rebuilt(arguments, iter(self._inputs))
        outside = _Outside()
        # A clock would wait for the device, which nothing may while it records.
        with unwatched(), backend.recording():
            with outside:
                self.begin()
                port = _RecordingPort(self, port_of(arguments))
                self._left = walk(*_with_port(held, port))
                self.end()
            self._outside = outside.tensors
            again = walk(*_with_port(held, _EchoPort(self.steps)))
        outputs = self._copied()
        pairs = zip(tensors_of(outputs), tensors_of(again), strict=True)
        _compare(list(pairs))
        self.outputs = outputs

    def begin(self) -> None:
        """Begin the next graph."""
        self._graphs.append(self._backend.graph())
        self._graphs[-1].begin()

    def end(self) -> None:
        """End the graph, and run it: until then nothing has been computed."""
        self._graphs[-1].end()
        self._graphs[-1].replay()

    def replay(self, arguments: tuple[Any, ...]) -> Any:
        """Return what the walk returns for other arguments of the same shapes."""
        for held, given in zip(self._inputs, tensors_of(arguments), strict=True):
            held.copy_(given)
        port = port_of(arguments)
        first, *others = self._graphs
        first.replay()
        for graph, step in zip(others, self.steps, strict=True):
            step.coded.copy_(port.code(step.x, step.of.anew()))
            graph.replay()
        return self._copied()

    def _copied(self) -> Any:
        return rebuilt(self._left, (t.clone() for t in tensors_of(self._left)))


class Graphs:
    """Runs walks as graphs, of which it keeps those of the latest shapes.

    Threads take turns, each for a whole walk: a graph has one place for its inputs.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._recordings: OrderedDict[Any, Recording] = OrderedDict()
        self._passes: dict[Any, int] = {}
        self._told = False

    def __deepcopy__(self, memo: Any) -> "Graphs":
        return Graphs()

    def __reduce__(self) -> tuple[type["Graphs"], tuple[()]]:
        return Graphs, ()

    def run(self, device: torch.device, walk: Callable[..., R], *arguments: Any) -> R:
        """Return what a walk returns for arguments.

        Args:
            device: Where it runs.
            walk: A function or method that launches the same kernels for the same
                shapes, waits for nothing, and codes latents through its port alone.
            arguments: A port, and nested tuples, lists, dicts and dataclasses of
                tensors, and values that can be compared.

        Raises:
            GraphsDifferError: Graphs give something else than the walk.
            ValueError: It cannot be recorded.
        """
        backend = BACKENDS.get(device.type)
        if backend is None:
            self._tell(device.type)
            return walk(*arguments)
        with self._turn:
            result: R = self._graphed(backend, device, walk, arguments)
        return result

    def _graphed(
        self,
        backend: Callable[[torch.device], Backend],
        device: torch.device,
        walk: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> Any:
        # Other kernels are another walk.
        key = walk, KERNELS.generation, signature(arguments)
        if recording := self._recordings.get(key):
            self._recordings.move_to_end(key)
            return recording.replay(arguments)
        self._passes[key] = passes = self._passes.get(key, 0) + 1
        if passes <= WARM_UPS:
            return walk(*arguments)
        if len(self._recordings) >= KEPT:
            self._recordings.popitem(last=False)
        try:
            recorded = Recording(backend(device), walk, arguments)
        except RuntimeError as error:
            why = str(error).partition("\n")[0]
            raise ValueError(
                f"the networks cannot be recorded as CUDA graphs here ({why}): leave "
                "out --graphs"
            ) from error
        self._recordings[key] = recorded
        outputs, recorded.outputs = recorded.outputs, None
        return outputs

    def _tell(self, device: str) -> None:
        if not self._told:
            warnings.warn(
                f"graphs: a {device} has none, so networks run as they always do there",
                stacklevel=3,
            )
        self._told = True


def port_of(arguments: tuple[Any, ...]) -> Port:
    """Return the port among the arguments of a walk."""
    (port,) = (a for a in arguments if isinstance(a, EncodePort | DecodePort))
    return port


def _with_port(arguments: tuple[Any, ...], port: Port) -> list[Any]:
    ports = EncodePort | DecodePort
    return [port if isinstance(each, ports) else each for each in arguments]


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors in nested values, in order."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in _parts(value) for tensor in tensors_of(part)]


def rebuilt(value: Any, tensors: Iterator[Tensor]) -> Any:
    """Return nested values with other tensors in the place of theirs."""
    if isinstance(value, Tensor):
        return next(tensors)
    if isinstance(value, tuple | list):
        return type(value)(rebuilt(part, tensors) for part in value)
    if isinstance(value, dict):
        return {name: rebuilt(part, tensors) for name, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        parts = {each.name: getattr(value, each.name) for each in fields(value)}
        return replace(value, **rebuilt(parts, tensors))
    return value


def signature(value: Any) -> Any:
    """Return what has to be the same for a recording: all but tensors' elements."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    if isinstance(value, EncodePort | DecodePort):
        return type(value)
    parts = _parts(value)
    names = tuple(value) if isinstance(value, dict) else ()
    own = type(value) if parts or value == () else value
    return own, names, *map(signature, parts)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, each.name) for each in fields(value)]
    return []
