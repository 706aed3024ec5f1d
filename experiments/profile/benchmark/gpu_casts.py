"""What autocast does on a GPU, for tensors on a CPU."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

TO_FLOAT32 = frozenset(
    (
        *("__pow__", "__rdiv__", "__rpow__", "__rtruediv__", "acos", "asin"),
        *("cosh", "cosine_similarity", "cross_entropy", "cumprod", "cumsum"),
        *("dist", "erfinv", "exp", "expm1", "group_norm", "kl_div", "l1_loss"),
        *("layer_norm", "log", "log10", "log1p", "log2", "log_softmax"),
        *("mse_loss", "nll_loss", "norm", "normalize", "pow", "prod", "reciprocal"),
        *("renorm", "rsqrt", "sinh", "smooth_l1_loss", "softmax", "softmin"),
        *("softplus", "tan"),
    )
)
"""Operators that autocast computes in float32 on a GPU, and in half precision on a CPU.
Source: torch's documentation of ``torch.amp``, "CUDA Ops that can autocast to float32".
``sum`` is one of them, too, but keeps no input and gives little."""


class GpuCasts(TorchFunctionMode):
    """Casts what autocast casts on a GPU besides, wherever it is on for the CPU.

    Normalisations then keep float32 inputs for the backward pass, which is most of the
    memory of a network that has many.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name in TO_FLOAT32 and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map(_widened, (args, kwargs))
        return function(*args, **kwargs)


def _widened(x: Any) -> Any:
    half = isinstance(x, torch.Tensor) and x.dtype in (torch.bfloat16, torch.float16)
    return x.float() if half else x
