"""Between the frames that are compared and the pictures that an encoder takes."""

from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from datamodules.yuv import (
    Codes,
    Colour,
    Planes,
    chroma_size,
    dequantise,
    planes_to_rgb,
    quantise,
    rgb_to_planes,
    rgb_to_yuv,
    yuv420_to_444,
    yuv444_to_420,
    yuv_to_rgb,
)


class PixelFormat(NamedTuple):
    """How an encoder holds a picture: planar YUV, BT.709, full range.

    Attributes:
        name: FFmpeg's name for it.
        depth: Bits per sample.
        subsampled: Whether it is 4:2:0, else 4:4:4.
    """

    name: str
    depth: int
    subsampled: bool

    @property
    def sample(self) -> np.dtype[Any]:
        """How one sample is stored."""
        return np.dtype("u1") if self.depth == 8 else np.dtype("<u2")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the coded size: 4:2:0 pictures have even sides."""
        if self.subsampled:
            return height + height % 2, width + width % 2
        return height, width

    def shapes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the shapes of the three planes of a picture of a coded size."""
        chroma = chroma_size(height, width) if self.subsampled else (height, width)
        return [(height, width), chroma, chroma]


PIXEL_FORMATS = {
    pixel_format.name: pixel_format
    for pixel_format in (
        PixelFormat("yuv420p", 8, True),
        PixelFormat("yuv420p10le", 10, True),
        PixelFormat("yuv444p", 8, False),
        PixelFormat("yuv444p10le", 10, False),
    )
}


def to_samples(codes: Codes, colour: Colour, pixel_format: PixelFormat) -> Codes:
    """Turn a frame of the source into what an encoder is given.

    4:2:0 stays as it is, shifted up where the encoder takes more than 8 bits, as the
    reference encoders do it themselves. RGB becomes YUV, rounded to the encoder's depth
    and with chroma averaged 2 x 2 if the encoder has no 4:4:4. Odd sides of 4:2:0 are
    padded by repeating the last luma row or column.

    Args:
        codes: Three 8-bit planes in ``colour``.
        colour: Of the source.
        pixel_format: Of the encoder.

    Returns:
        Y, U and V in [0, 2**depth - 1], of :meth:`PixelFormat.shapes`.

    Raises:
        ValueError: 4:2:0 is to be coded as 4:4:4.
    """
    if colour == "yuv420":
        if not pixel_format.subsampled:
            raise ValueError(f"4:2:0 frames are not coded as {pixel_format.name}")
        y, u, v = (_shift(plane, pixel_format) for plane in codes)
    else:
        yuv = rgb_to_yuv(planes_to_rgb(dequantise(codes), "rgb"))
        if pixel_format.subsampled:
            y, u, v = quantise(yuv444_to_420(yuv), pixel_format.depth)
        else:
            y, u, v = quantise(rgb_to_planes(yuv, "rgb"), pixel_format.depth)
    if pixel_format.subsampled:
        y = np.pad(y, [(0, side % 2) for side in y.shape], mode="edge")
    return y, u, v


def _shift(plane: npt.NDArray[np.uint8], pixel_format: PixelFormat) -> npt.NDArray[Any]:
    return plane.astype(pixel_format.sample) << (pixel_format.depth - 8)


def from_samples(
    samples: Codes,
    colour: Colour,
    pixel_format: PixelFormat,
    height: int,
    width: int,
) -> Planes:
    """Turn a decoded picture into the planes that are compared.

    Args:
        samples: Y, U and V as :func:`to_samples` gives them.
        colour: Of the planes.
        pixel_format: Of the samples.
        height: Rows of the source.
        width: Columns of the source.

    Returns:
        Three float planes in [0, 1] without padding, not rounded to 8 bits.
    """
    y, u, v = samples
    y = y[:height, :width]
    if colour == "yuv420":
        peak = 255 << (pixel_format.depth - 8)
        a, b, c = (torch.from_numpy(p.astype(np.float32)) / peak for p in (y, u, v))
        return a.clamp(max=1), b.clamp(max=1), c.clamp(max=1)
    planes = dequantise((y, u, v), pixel_format.depth)
    yuv = yuv420_to_444(*planes) if pixel_format.subsampled else torch.stack(planes)
    return rgb_to_planes(yuv_to_rgb(yuv).clamp(0, 1), "rgb")


def read_picture(
    file: IO[bytes], pixel_format: PixelFormat, height: int, width: int
) -> Codes | None:
    """Read the next picture of a coded size from a raw file; None at its end.

    Raises:
        ValueError: The file ends within the picture.
    """
    shapes = pixel_format.shapes(height, width)
    counts = [rows * columns for rows, columns in shapes]
    size = sum(counts) * pixel_format.sample.itemsize
    data = file.read(size)
    if not data:
        return None
    if len(data) < size:
        raise ValueError(
            f"the decoder's output ends within a frame: {width}x{height} "
            f"{pixel_format.name} needs {size} bytes, {len(data)} are left"
        )
    samples = np.frombuffer(data, dtype=pixel_format.sample)
    y, u, v = np.split(samples, [counts[0], counts[0] + counts[1]])
    return y.reshape(shapes[0]), u.reshape(shapes[1]), v.reshape(shapes[2])
