"""BRISQUE: how unlike a natural picture a frame looks, without its source.

Lower is better; values below 0 and above 100 are normal. Implementations differ by
factors on one picture, so the one that is used is named wherever a value stands: that
of the package piq, with the support vectors that its authors trained on LIVE.

Source: Mittal, Moorthy and Bovik 2012, "No-Reference Image Quality Assessment in the
Spatial Domain".
"""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from callbacks.metrics.distribution import to_8_bit
from lightning_modules.perceptual import (
    UnavailableMetricError,
    check_file,
    check_side,
    hub_file,
)

BRISQUE_SIDE = 16
"""Smallest side: the second of two scales still has more pixels than its window."""


def brisque_file() -> Path:
    """Return where the support vectors must lie."""
    return hub_file("brisque_svm_weights.pt")


def check_brisque() -> None:
    """Check that BRISQUE can be measured here; nothing is ever downloaded.

    Raises:
        UnavailableMetricError: Its package or its support vectors are missing; the
            message says what to install, or which file to put where.
    """
    if importlib.util.find_spec("piq") is None:
        raise UnavailableMetricError("brisque needs the package piq: pip install piq")
    check_file("brisque needs the support vectors", brisque_file())


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
    check_side("brisque needs", x_hat.shape[-2:], BRISQUE_SIDE)
    # Not at the top: the package is optional.
    import piq

    values = []
    # One by one: a frame's value does not depend on which others there are.
    for frame in to_8_bit(x_hat).unsqueeze(1).float():
        try:
            value = piq.brisque(frame, data_range=255).squeeze()
        except AssertionError as error:
            # How piq says that its statistics do not exist.
            raise UnavailableMetricError(
                f"brisque is not defined for a frame without contrast ({error})"
            ) from error
        if not value.isfinite():
            raise UnavailableMetricError(
                "brisque of a frame is NaN: piq gives no number"
            )
        values.append(value)
    return torch.stack(values).reshape(x_hat.shape[:-3])
