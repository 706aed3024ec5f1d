"""8-bit RGB and 4:2:0 codes as :mod:`datamodules.yuv` has them, fast and without torch.

Source: ITU-R BT.709-6, section 3 (Kr = 0.2126, Kb = 0.0722).
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

KR = 0.2126
KB = 0.0722
KG = 1.0 - KR - KB

Codes: TypeAlias = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]

_CENTRED = np.arange(256) - 127.5
_RED_OF_V = np.rint(2 * (1 - KR) * _CENTRED).astype(np.int16)
_BLUE_OF_U = np.rint(2 * (1 - KB) * _CENTRED).astype(np.int16)
_GREEN_OF_UV = np.rint(
    -2 * KB * (1 - KB) / KG * _CENTRED[:, None] - 2 * KR * (1 - KR) / KG * _CENTRED
).astype(np.int16)
"""What codes of chroma add to those of luma."""


def chroma_size(height: int, width: int) -> tuple[int, int]:
    """Return height and width of a 4:2:0 chroma plane, rounded up."""
    return (height + 1) // 2, (width + 1) // 2


def rgb8_to_codes(frame: npt.NDArray[np.uint8]) -> Codes:
    """Convert an 8-bit RGB frame to 4:2:0 codes, as :mod:`datamodules.yuv` does.

    Args:
        frame: (H, W, 3), 0..255.

    Returns:
        y (H, W), u and v (ceil(H/2), ceil(W/2)), uint8, full range.
    """
    edge = ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0))
    rgb = frame.astype(np.float32)
    y = np.rint(_luma(rgb)).astype(np.uint8)
    if edge[0][1] or edge[1][1]:
        rgb = np.pad(rgb, edge, "edge")
    means = rgb[::2, ::2] + rgb[1::2, ::2] + rgb[::2, 1::2] + rgb[1::2, 1::2]
    luma = _luma(means)
    u = (means[..., 2] - luma) / (8 * (1 - KB)) + 127.5
    v = (means[..., 0] - luma) / (8 * (1 - KR)) + 127.5
    u8, v8 = (np.rint(plane).clip(0, 255).astype(np.uint8) for plane in (u, v))
    return y, u8, v8


def _luma(rgb: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    # Not as a product of matrices: its threads would not survive a fork.
    luma: npt.NDArray[np.float32] = np.float32(KR) * rgb[..., 0]
    luma += np.float32(KG) * rgb[..., 1]
    luma += np.float32(KB) * rgb[..., 2]
    return luma


def codes_to_rgb8(codes: Codes, top: int = 0, left: int = 0) -> npt.NDArray[np.uint8]:
    """Convert 4:2:0 codes of some frames to 8-bit RGB, chroma repeated.

    What chroma adds is rounded before luma is added: each value is at most one code off
    :func:`datamodules.yuv.planes_to_rgb`.

    Args:
        codes: y (T, H, W), u and v (T, ceil((top + H)/2), ceil((left + W)/2)), uint8.
        top: 1 where the first row is the second one of its chroma sample.
        left: The same of the first column.

    Returns:
        (T, H, W, 3), a view of planes (T, 3, H, W).
    """
    y, u, v = codes
    frames, height, width = y.shape
    rgb = np.empty((frames, 3, height, width), np.uint8)
    total = np.empty(y.shape, np.int16)
    added = _RED_OF_V[v], _GREEN_OF_UV[u, v], _BLUE_OF_U[u]
    for colour, chroma in enumerate(added):
        wide = chroma.repeat(2, axis=2)[:, :, left : left + width]
        np.add(y, wide.repeat(2, axis=1)[:, top : top + height], out=total)
        rgb[:, colour] = np.clip(total, 0, 255, out=total)
    return rgb.transpose(0, 2, 3, 1)
