"""BT.709 full-range colour and raw 4:2:0 frames: the only colour code of its own.

:mod:`datamodules.yuv_codes` does the same to whole frames of 8 bits, without torch.

Three forms of a picture occur, always in this order of conversion:

* RGB, float (..., 3, H, W), nominal range [0, 1], gamma-coded as files store it.
* YUV 4:4:4, float (..., 3, H, W): luma Y in [0, 1], chroma U and V in [0, 1] with
  neutral grey at 0.5.
* YUV 4:2:0, as float planes (``Planes``) or as the integer ``Codes`` of a file:
  chroma has ceil(H/2) x ceil(W/2) samples.

What is measured is three planes in one of two colours (``Colour``): ``yuv420`` as
above, or ``rgb``, where ``Planes`` and ``Codes`` hold R, G and B of full size.

How raw 4:2:0 becomes RGB has a name too (``YuvAs``): ``full709``, which is all of this
module, or ``ffmpeg``, which is :mod:`datamodules.ffmpeg_rgb`.

A full-range code is ``round(value * (2**depth - 1))`` for luma and for chroma alike,
so neutral chroma lies at 127.5 of 8 bits, half a code below the 128 of ITU-T H.273.
This is how learned codecs feed raw test sequences to their networks, whatever range
the sequences were produced in; figures are comparable only under the same reading.
No function clamps, except where integers or pictures to be shown are made.

Source: ITU-R BT.709-6, section 3 (Kr = 0.2126, Kb = 0.0722).
"""

from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from datamodules.yuv_codes import KB, KG, KR, Codes, chroma_size

Colour: TypeAlias = Literal["yuv420", "rgb"]
YuvAs: TypeAlias = Literal["full709", "ffmpeg"]
Planes: TypeAlias = tuple[Tensor, Tensor, Tensor]


def rgb_to_yuv(x: Tensor) -> Tensor:
    """Convert RGB to BT.709 full-range YUV 4:4:4, differentiably.

    Args:
        x: (..., 3, H, W), RGB in [0, 1].

    Returns:
        (..., 3, H, W): Y, U and V in [0, 1], chroma centred at 0.5.
    """
    r, g, b = x.unbind(-3)
    y = KR * r + KG * g + KB * b
    u = (b - y) / (2 * (1 - KB)) + 0.5
    v = (r - y) / (2 * (1 - KR)) + 0.5
    return torch.stack([y, u, v], dim=-3)


def yuv_to_rgb(x: Tensor) -> Tensor:
    """Convert BT.709 full-range YUV 4:4:4 to RGB, differentiably.

    Args:
        x: (..., 3, H, W): Y, U and V in [0, 1], chroma centred at 0.5.

    Returns:
        (..., 3, H, W), RGB; outside [0, 1] where YUV names a colour that RGB lacks.
    """
    y, u, v = x.unbind(-3)
    r = y + 2 * (1 - KR) * (v - 0.5)
    b = y + 2 * (1 - KB) * (u - 0.5)
    g = (y - KR * r - KB * b) / KG
    return torch.stack([r, g, b], dim=-3)


def yuv420_to_444(y: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Repeat each chroma sample over its 2 x 2 luma samples.

    Args:
        y: (..., H, W).
        u: (..., ceil(H/2), ceil(W/2)).
        v: Like ``u``.

    Returns:
        (..., 3, H, W).
    """
    height, width = y.shape[-2:]
    chroma = torch.stack([u, v], dim=-3)
    chroma = chroma.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
    return torch.cat([y.unsqueeze(-3), chroma[..., :height, :width]], dim=-3)


def yuv444_to_420(x: Tensor) -> Planes:
    """Average chroma over 2 x 2 samples; an odd edge is repeated first.

    Args:
        x: (..., 3, H, W).

    Returns:
        y (..., H, W), u and v (..., ceil(H/2), ceil(W/2)).
    """
    chroma = x[..., 1:, :, :]
    if chroma.shape[-1] % 2:
        chroma = torch.cat([chroma, chroma[..., -1:]], dim=-1)
    if chroma.shape[-2] % 2:
        chroma = torch.cat([chroma, chroma[..., -1:, :]], dim=-2)
    *batch, height, width = chroma.shape
    blocks = chroma.reshape(*batch, height // 2, 2, width // 2, 2)
    u, v = blocks.mean(dim=(-3, -1)).unbind(-3)
    return x[..., 0, :, :], u, v


def rgb_to_planes(x: Tensor, colour: Colour) -> Planes:
    """Split RGB into the three planes that are measured.

    Args:
        x: (..., 3, H, W), RGB in [0, 1].
        colour: ``yuv420`` converts (BT.709, full range) and averages chroma 2 x 2.

    Returns:
        Y (..., H, W), U and V (..., ceil(H/2), ceil(W/2)); or R, G and B (..., H, W).
    """
    if colour == "rgb":
        r, g, b = x.unbind(-3)
        return r, g, b
    return yuv444_to_420(rgb_to_yuv(x))


def planes_to_rgb(planes: Planes, colour: Colour) -> Tensor:
    """Join planes into RGB, the reverse of :func:`rgb_to_planes`.

    Args:
        planes: As :func:`rgb_to_planes` gives them.
        colour: ``yuv420`` repeats chroma and converts (BT.709, full range).

    Returns:
        (..., 3, H, W), RGB clamped to [0, 1].
    """
    if colour == "rgb":
        return torch.stack(planes, dim=-3).clamp(0, 1)
    return yuv_to_rgb(yuv420_to_444(*planes)).clamp(0, 1)


def yuv420_frame_size(height: int, width: int, depth: int = 8) -> int:
    """Return the bytes of one raw 4:2:0 frame of 8 or 9..16 bits per sample."""
    chroma_height, chroma_width = chroma_size(height, width)
    samples = height * width + 2 * chroma_height * chroma_width
    return samples * _sample_type(depth).itemsize


def read_yuv420_frame(file: BinaryIO, height: int, width: int, depth: int = 8) -> Codes:
    """Read one planar 4:2:0 frame at the file's position.

    Args:
        file: Open binary file. Samples above 8 bits are little-endian 16-bit words.
        height: Luma rows.
        width: Luma columns.
        depth: Bits per sample.

    Returns:
        y (H, W), u and v (ceil(H/2), ceil(W/2)), in [0, 2**depth - 1].

    Raises:
        ValueError: The file ends within the frame, or a sample has more bits.
    """
    size = yuv420_frame_size(height, width, depth)
    data = file.read(size)
    if len(data) < size:
        raise ValueError(
            f"the file ends within a frame: {width}x{height} yuv420p at {depth} bits "
            f"needs {size} bytes, {len(data)} are left"
        )
    samples = np.frombuffer(data, dtype=_sample_type(depth))
    if samples.max() >= 1 << depth:
        raise ValueError(
            f"a sample is {samples.max()}, more than {depth} bits hold: the file has "
            "another depth"
        )
    shape = chroma_size(height, width)
    luma, chroma = height * width, shape[0] * shape[1]
    y, u, v = np.split(samples, [luma, luma + chroma])
    return y.reshape(height, width), u.reshape(shape), v.reshape(shape)


def dequantise(codes: Codes, depth: int = 8, *, full_range: bool = True) -> Planes:
    """Turn a file's integers into float planes, nominally in [0, 1].

    Args:
        codes: y, u, v in [0, 2**depth - 1].
        depth: Bits per sample.
        full_range: False reads studio range instead: 8-bit luma 16..235, chroma
            16..240 around 128, scaled by 2**(depth - 8); values beyond those ends
            lie outside [0, 1].
    """
    y, u, v = (torch.from_numpy(plane.astype(np.float32)) for plane in codes)
    if full_range:
        peak = 2**depth - 1
        return y / peak, u / peak, v / peak
    step = 2 ** (depth - 8)
    y = (y - 16 * step) / (219 * step)
    u, v = ((plane - 128 * step) / (224 * step) + 0.5 for plane in (u, v))
    return y, u, v


def quantise(planes: Planes, depth: int = 8) -> Codes:
    """Clamp float planes to [0, 1] and round all three to full-range integers."""
    peak = 2**depth - 1
    y, u, v = (
        plane.detach().float().clamp(0, 1).mul(peak).round().cpu().numpy()
        for plane in planes
    )
    kind = _sample_type(depth)
    return y.astype(kind), u.astype(kind), v.astype(kind)


def _sample_type(depth: int) -> np.dtype[Any]:
    """Return how a file stores one sample."""
    if not 8 <= depth <= 16:
        raise ValueError(f"bit depth {depth} is not possible: 8 to 16 are")
    return np.dtype("u1" if depth == 8 else "<u2")
