"""Symbols between a device and the host, where the entropy coder is.

On a GPU a copy to ordinary memory waits for all work before it, and each further tensor
waits again. Here all tensors of a step go in one copy to pinned memory, which nobody
waits for until the numbers are asked for. On a CPU nothing is copied.
"""

from collections.abc import Callable, Sequence
from math import ceil, floor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Wait = Callable[[], object]


def _from_cuda(flat: Tensor) -> tuple[Tensor, Wait]:
    """Begin to copy bytes to pinned memory; return it, and what waits for the copy."""
    host = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True)
    host.copy_(flat, non_blocking=True)
    copied = torch.cuda.Event()
    # The copy waits in a queue of its own device, which need not be the current one.
    copied.record(torch.cuda.current_stream(flat.device))
    return host, copied.synchronize


COPIES: dict[str, Callable[[Tensor], tuple[Tensor, Wait]]] = {"cuda": _from_cuda}
"""How bytes (n,) leave a type of device; where it is not named, they need not."""


def leaves(x: Tensor) -> bool:
    """Whether a tensor has a way to go to the host."""
    return x.device.type in COPIES


class Download:
    """Tensors on their way to the host, of those that are not there.

    Args:
        tensors: Of any shapes and dtypes. Those of a GPU may change afterwards: the
            copy is of what they hold when the device comes to it. Others must not.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._shapes = [each.shape for each in tensors]
        self._dtypes = [each.dtype for each in tensors]
        self._here = {i: t for i, t in enumerate(tensors) if not leaves(t)}
        # The wide ones first, so that each begins at a multiple of its own size.
        away = [i for i in range(len(tensors)) if i not in self._here]
        self._away = sorted(away, key=lambda i: -tensors[i].element_size())
        if self._away:
            copy = COPIES[tensors[self._away[0]].device.type]
            flat = [tensors[i].reshape(-1).view(torch.uint8) for i in self._away]
            self._host, self._wait = copy(torch.cat(flat))

    def arrays(self) -> list[npt.NDArray[Any]]:
        """Wait for the copy, and for nothing after it, and return the numbers."""
        found = {i: each.numpy(force=True) for i, each in self._here.items()}
        if self._away:
            self._wait()
        at = 0
        for i in self._away:
            dtype = torch.empty(0, dtype=self._dtypes[i]).numpy().dtype
            own = np.frombuffer(self._host.numpy(), dtype, self._shapes[i].numel(), at)
            found[i] = own.reshape(self._shapes[i])
            at += own.nbytes
        return [found[i] for i in range(len(self._shapes))]


def upload(numbers: Tensor, like: Tensor) -> Tensor:
    """Return numbers of the host as a tensor of the device and dtype of another.

    On a GPU they go by way of pinned memory, and nobody waits for them.
    """
    if like.device.type == "cuda" and numbers.device.type == "cpu":
        numbers = numbers.pin_memory().to(like.device, non_blocking=True)
    return numbers.to(like)


def narrowest(low: float, high: float) -> torch.dtype:
    """Return the narrowest type of whole numbers that holds a range.

    Symbols need 32 bits at most: they lie within +-2^30.
    """
    low, high = floor(low), ceil(high)
    for dtype in (torch.uint8, torch.int8, torch.int16):
        info = torch.iinfo(dtype)
        if info.min <= low and high <= info.max:
            return dtype
    return torch.int32
