"""Raw 4:2:0 as RGB the way FFmpeg makes PNGs of it where nobody tells it more.

The command of DCVC-TCM's README (``ffmpeg -pix_fmt yuv420p -s WxH -i IN -f image2
im%05d.png``) makes such pictures: no tag says a matrix or a range, so BT.601 and
limited range are assumed. swscale itself converts, with its defaults: it repeats
chroma, and truncates where it could round, which is about one code too dark. On
processors other than x86 its last digits may differ.

Source: arXiv 2410.02598, section 6.1.1, and the README of DCVC-TCM; which matrix their
pictures were made with is not stated.
"""

import numpy as np
import torch
from torch import Tensor

from datamodules.pyav import av
from datamodules.yuv import Codes


def convert_as_ffmpeg(codes: Codes, *, full_range: bool) -> Tensor:
    """Convert a frame as FFmpeg does by default.

    Args:
        codes: y (H, W), u and v (ceil(H/2), ceil(W/2)), uint8.
        full_range: Whether the file says that it is; otherwise it is limited.

    Returns:
        (3, H, W), RGB in [0, 1], of 8 bits.
    """
    y, u, v = codes
    height, width = y.shape
    # swscale works on pairs of rows and columns: an odd last one comes out as noise.
    even = np.pad(y, [(0, height % 2), (0, width % 2)], mode="edge")
    frame = av.VideoFrame(even.shape[1], even.shape[0], "yuv420p")
    formats = av.video.reformatter
    ranges = formats.ColorRange
    frame.color_range = ranges.JPEG if full_range else ranges.MPEG
    for plane, samples in zip(frame.planes, (even, u, v), strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        rows[: plane.height, : plane.width] = samples
    rgb = formats.VideoReformatter().reformat(frame, format="rgb24").to_ndarray()
    return (
        torch.from_numpy(rgb[:height, :width])
        .permute(2, 0, 1)
        .contiguous()
        .float()
        .div_(255)
    )
