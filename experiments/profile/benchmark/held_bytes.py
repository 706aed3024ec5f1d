"""Bytes that the tensors of a piece of code hold, now and at most."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class HeldBytes(TorchDispatchMode):
    """Counts every storage from its birth until nothing holds it.

    It sees what operators return. A storage that is older, such as a weight's, counts
    from the first view of it on, for example from that which recomputed activations
    take: tell of it beforehand (``known``).

    Args:
        known: Tensors that are there already.

    Attributes:
        now: Bytes of all storages that something holds.
        peak: The most that ever were.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()
        for tensor in known:
            self.hold(tensor)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, torch.Tensor):
                self.hold(each)
        return out

    def hold(self, tensor: Tensor) -> None:
        """Count a tensor's storage until nothing holds it."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.add(size)
        weakref.finalize(storage, self._free, key, size)

    def add(self, size: int) -> None:
        """Count bytes that stay."""
        self.now += size
        self.peak = max(self.peak, self.now)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
