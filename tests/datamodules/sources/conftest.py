"""Pictures and clips whose pixels say which frame they are."""

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def numbers():
    """Return the frame numbers of a clip whose frames ``write_video`` wrote."""

    def read(clip):
        levels = clip.astype(float).mean((1, 2, 3))
        assert clip.astype(float).std((1, 2)).max() < 2
        return np.rint((levels - 20) / 4).astype(int).tolist()

    return read


@pytest.fixture(scope="session")
def write_png():
    """Write a picture: red and green are what the caller says, blue is the column."""

    def write(path, red, green, size=(24, 40)):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.zeros((*size, 3), np.uint8)
        image[..., 2], image[..., 1] = red, green
        image[..., 0] = np.arange(size[1])
        assert cv2.imwrite(str(path), image)

    return write
