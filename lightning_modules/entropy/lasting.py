"""Tensors that are made once, for all who use them later."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import _disable_current_modes


@contextmanager
def lasting() -> Iterator[None]:
    """Make tensors that are cached as if nothing were around their first use.

    They serve validation and training alike: autograd refuses those that were made in
    inference mode. And those of a step without values would lack values ever after.
    """
    with torch.inference_mode(False), _disable_current_modes():
        yield
