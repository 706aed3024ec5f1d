"""Where float32 is float32: in coding, and on islands of training in less.

GPUs may round what they multiply to TF32 (10 bits after the point, as float16 has),
autocast rounds it to bfloat16 (7 bits), and cuDNN may choose its kernels by timing. A
decoder must arrive at its encoder's numbers, so coding allows none of them
(:func:`exact`). Training allows what its options say, but for islands: where a few
more digits cost next to nothing and decide what is rounded, what it costs, or where
something is looked up (:func:`in_float32`, :class:`Float32Ends`).

Islands show under autocast only. A network whose weights are of half precision itself
computes on them as anywhere else: its streams depend on that.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

P = ParamSpec("P")
T = TypeVar("T")

EXACT = ("ieee", "none")
"""Of torch's settings of one kind of kernels: float32 as it is, and not set at all."""


@contextmanager
def restored() -> Iterator[None]:
    """Put back, in the end, all that this process says of float32 kernels.

    Torch has two ways to say it, and refuses to read the one where the other was used.
    """
    kernels: list[Any] = list(_kernels())
    cudnn: Any = torch.backends.cudnn
    matmul = _readable(torch.get_float32_matmul_precision)
    convolutions = _readable(lambda: bool(cudnn.allow_tf32))
    own = [each.fp32_precision for each in kernels]
    chosen = cudnn.benchmark, cudnn.deterministic
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = chosen
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if convolutions is not None:
            cudnn.allow_tf32 = convolutions
        for each, value in zip(kernels, own, strict=True):
            if each.fp32_precision != value:
                each.fp32_precision = value


def allow(matmul_precision: str, *, benchmark: bool) -> None:
    """Set how exact float32 products of this process are from now on.

    Args:
        matmul_precision: ``highest``: float32, of convolutions too. ``high`` and
            ``medium`` allow TF32 to both, on GPUs that have it; on processors that
            can, ``medium`` allows bfloat16 to matrix products.
        benchmark: Whether cuDNN tries its kernels and takes the fastest.
    """
    torch.set_float32_matmul_precision(matmul_precision)
    torch.backends.cudnn.allow_tf32 = matmul_precision != "highest"
    torch.backends.cudnn.benchmark = benchmark


class _Exactness:
    """Holds a process to float32 for as long as anybody asks for it.

    The settings are the process's, and several threads may code at once: the first
    sets them, the last restores what was before the first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._stack = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._count:
                self._stack.enter_context(restored())
                allow("highest", benchmark=False)
                torch.backends.cudnn.deterministic = True
                # What was set by the newer of torch's two ways.
                for each in _kernels():
                    if each.fp32_precision not in EXACT:
                        each.fp32_precision = "ieee"
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1
            if not self._count:
                self._stack.close()


EXACTNESS = _Exactness()
"""The one of this process."""


@contextmanager
def exact(device: str | torch.device = "cpu") -> Iterator[None]:
    """Compute as coding must, whatever the process allows otherwise; then restore.

    No TF32, no kernels chosen by timing, no autocast.

    Args:
        device: Where it computes.
    """
    kind = torch.device(device).type
    with EXACTNESS, torch.autocast(kind, enabled=False):
        yield


def exactly(
    steps: Callable[P, Iterator[T]],
) -> Callable[P, Iterator[T]]:
    """Make a codec's generator compute :func:`exact`; its caller in between does not.

    Args:
        steps: A generator method of something that has ``devices``.
    """

    @wraps(steps)
    def held(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        codec: Any = args[0]
        device = codec.devices[0]
        own = steps(*args, **kwargs)
        try:
            while True:
                with exact(device):
                    try:
                        item = next(own)
                    except StopIteration:
                        return
                yield item
        finally:
            with exact(device):
                own.close()  # type: ignore[attr-defined]

    return held


def uncast(method: Callable[P, T]) -> Callable[P, T]:
    """Make a method of a module compute without autocast on the module's device."""

    @wraps(method)
    def held(*args: P.args, **kwargs: P.kwargs) -> T:
        module: Any = args[0]
        with torch.autocast(module.device.type, enabled=False):
            return method(*args, **kwargs)

    return held


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which nothing on the device of ``x`` is cast."""
    if not _is_cast(x):
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def widened(x: Tensor) -> Tensor:
    """Return ``x`` in float32 under autocast, and as it is elsewhere."""
    return x.to(island_dtype(x))


def island_dtype(like: Tensor) -> torch.dtype:
    """Return the dtype of what an island reads: that of ``like`` without autocast."""
    narrow = like.dtype.itemsize < 4 and _is_cast(like)
    return torch.float32 if narrow else like.dtype


def in_float32(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer to ``x``; under autocast in float32, and not in less."""
    x = widened(x)
    with without_autocast(x):
        return layer(x)


class Float32Ends(nn.Sequential):
    """Layers in a row, of which the first, the last, or both are in float32.

    Args:
        layers: As for ``nn.Sequential``.
        first: Whether the first is: it reads what was rounded.
        last: Whether the last is: it writes what will be.
    """

    def __init__(
        self, *layers: nn.Module, first: bool = False, last: bool = False
    ) -> None:
        super().__init__(*layers)
        self.ends = [0] * first + [len(layers) - 1] * last

    def forward(self, x: Tensor) -> Tensor:
        """Apply them one after the other."""
        for number, layer in enumerate(self):
            x = in_float32(layer, x) if number in self.ends else layer(x)
        return x


def _is_cast(x: Tensor) -> bool:
    """Whether autocast is on where ``x`` lies."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


def _kernels() -> Iterator[Any]:
    """Give torch's settings of each kind of kernels, by their newer names."""
    backends: Any = torch.backends
    yield backends.cuda.matmul
    yield backends.cudnn.conv
    yield backends.cudnn.rnn
    yield backends.mkldnn.matmul
    yield backends.mkldnn.conv
    yield backends.mkldnn.rnn


def _readable(read: Callable[[], T]) -> T | None:
    """Return what a setting says, or ``None`` where torch refuses to say it."""
    try:
        return read()
    except RuntimeError:
        return None
