"""One image file as pixels; one that is cut is an error, not half grey."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from datamodules.paths import open_at_once


def decode_image(path: Path, flags: int) -> npt.NDArray[Any]:
    """Decode a PNG or JPEG file, turned upright if its EXIF data says so.

    Args:
        path: The file.
        flags: OpenCV's ``IMREAD_...``.

    Returns:
        (H, W, 3), BGR as OpenCV has it.

    Raises:
        ValueError: It is cut, damaged or no image.
        OSError: It cannot be read.
    """
    # Not ``imread``: that fills the rest of a cut JPEG with grey and says nothing, and
    # takes no name that is not UTF-8.
    with open_at_once(path) as file:
        data = np.frombuffer(file.read(), np.uint8)
    try:
        pixels = cv2.imdecode(data, flags) if data.size else None
    except cv2.error as error:
        raise ValueError(f"cannot be decoded: {error}") from error
    if pixels is None:
        raise ValueError("cannot be decoded: it is cut, damaged or no image")
    return pixels
