"""BRISQUE: how unlike a natural picture a frame looks, without its source.

Lower is better; values below 0 and above 100 are normal. Implementations differ by
factors on one picture, so the one that is used is named wherever a value stands: that
of the package piq, with the support vectors that its authors trained on LIVE.

Source: Mittal, Moorthy and Bovik 2012, "No-Reference Image Quality Assessment in the
Spatial Domain".
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from callbacks.metrics.distribution import to_8_bit
from lightning_modules.perceptual import UnavailableMetricError

BRISQUE_FILE = "brisque_svm_weights.pt"

BRISQUE_SIDE = 16
"""Smallest side: the second of two scales still has more pixels than its window."""


def brisque_file() -> Path:
    """Return where the support vectors must lie."""
    return Path(torch.hub.get_dir(), "checkpoints", BRISQUE_FILE).absolute()


def check_brisque() -> None:
    """Check that BRISQUE can be measured here; nothing is ever downloaded.

    Raises:
        UnavailableMetricError: Its package or its support vectors are missing; the
            message says what to install, or which file to put where.
    """
    if importlib.util.find_spec("piq") is None:
        raise UnavailableMetricError("brisque needs the package piq: pip install piq")
    file = brisque_file()
    if not file.is_file():
        raise UnavailableMetricError(
            f"brisque needs the support vectors {file.name}, put them at {file} (or "
            "set TORCH_HOME to the folder that holds hub/checkpoints)"
        )


@torch.inference_mode()
def brisque(x_hat: Tensor, clip: Tensor | None = None) -> Tensor:
    """Return each frame's BRISQUE.

    Args:
        x_hat: (..., 3, H, W), RGB in [0, 1]; it is rounded to 8 bits.
        clip: Its source, which is not looked at.

    Returns:
        (...), float32.

    Raises:
        UnavailableMetricError: See :func:`check_brisque`; or a side is below 16
            pixels; or a frame has no contrast, which leaves nothing to measure.
    """
    check_brisque()
    height, width = x_hat.shape[-2:]
    if min(height, width) < BRISQUE_SIDE:
        raise UnavailableMetricError(
            f"brisque needs frames of at least {BRISQUE_SIDE}x{BRISQUE_SIDE} pixels, "
            f"these have {width}x{height}"
        )
    # Not at the top: the package is optional.
    import piq

    # One by one: a frame's value does not depend on which others there are.
    values = [_of_frame(piq.brisque, frame) for frame in to_8_bit(x_hat)]
    return torch.stack(values).reshape(x_hat.shape[:-3])


def _of_frame(measure: Callable[..., Tensor], frame: Tensor) -> Tensor:
    try:
        value = measure(frame.unsqueeze(0).float(), data_range=255).squeeze()
    except AssertionError as error:
        # How piq says that its statistics do not exist.
        raise UnavailableMetricError(
            f"brisque is not defined for a frame without contrast ({error})"
        ) from error
    if not value.isfinite():
        raise UnavailableMetricError("brisque of a frame is NaN: piq gives no number")
    return value
