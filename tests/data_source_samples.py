"""Videos and pictures whose pixels say which frame they are."""

import av
import cv2
import numpy as np


def rng(seed=0):
    return np.random.default_rng(seed)


def write_video(path, frames=24, size=(48, 64), codec="libx264", **options):
    """Every frame has one grey level, which says its number (see `numbers`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": "8", **options}
        for number in range(frames):
            image = np.full((*size, 3), 20 + 4 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path


def numbers(clip):
    """Frame numbers of a clip whose frames `write_video` wrote."""
    levels = clip.astype(float).mean((1, 2, 3))
    assert clip.astype(float).std((1, 2)).max() < 2
    return np.rint((levels - 20) / 4).astype(int).tolist()


def write_png(path, red, green, size=(24, 40)):
    """Red and green are what the caller says, blue is the column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((*size, 3), np.uint8)
    image[..., 2], image[..., 1] = red, green
    image[..., 0] = np.arange(size[1])
    assert cv2.imwrite(str(path), image)
