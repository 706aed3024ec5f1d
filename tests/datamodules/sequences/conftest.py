"""Sample sequences as files: their values encode sequence and frame, so that a wrong
file, frame or plane cannot pass."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from datamodules.sequences.find import find_sequences

HEVC_D = {
    "BQSquare": (60, 600),
    "BasketballPass": (50, 500),
    "BlowingBubbles": (50, 500),
    "RaceHorses": (30, 300),
}


@pytest.fixture(scope="session")
def samples():
    """What writes sequences, and says which planes a frame of them has."""
    functions = (codes_of, same, write_raw, write_y4m, write_pngs, write_hevc_d)
    return SimpleNamespace(HEVC_D=HEVC_D, **{f.__name__: f for f in functions})


@pytest.fixture(scope="session")
def message():
    """Return why sequences of a name cannot be found."""

    def refused(spec):
        with pytest.raises(ValueError) as caught:
            find_sequences([str(spec)])
        return str(caught.value)

    return refused


def codes_of(sequence, frame, height, width):
    """Three planes that no other sequence and frame have."""
    rows, columns = np.mgrid[:height, :width]
    small = (slice((height + 1) // 2), slice((width + 1) // 2))
    y = (3 * rows + 5 * columns + 31 * sequence + frame) % 256
    u = (40 + 20 * sequence + rows)[small] % 256
    v = (frame // 2 + 3 * (frame % 2) + 2 * columns)[small] % 256
    return tuple(plane.astype(np.uint8) for plane in (y, u, v))


def raw_frame(sequence, frame, height, width):
    planes = codes_of(sequence, frame, height, width)
    return b"".join(plane.tobytes() for plane in planes)


def write_raw(path, sequence, height, width, frames, written=None):
    """Write frames by number (default: all); the others are holes in the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nbytes = height * width + 2 * ((height + 1) // 2) * ((width + 1) // 2)
    with path.open("wb") as file:
        file.truncate(nbytes * frames)
        for frame in range(frames) if written is None else written:
            file.seek(nbytes * frame)
            file.write(raw_frame(sequence, frame, height, width))
    return path


def write_y4m(path, sequence, height, width, frames, tags="C420 XCOLORRANGE=FULL"):
    header = f"YUV4MPEG2 W{width} H{height} F25:1 {tags}\n".encode()
    raw = [raw_frame(sequence, frame, height, width) for frame in range(frames)]
    path.write_bytes(header + b"".join(b"FRAME\n" + frame for frame in raw))
    return path


def write_pngs(path, sequence, height, width, frames, pattern="im{:05d}.png"):
    """R, G and B of a frame are all of luma's size."""
    path.mkdir(parents=True)
    for frame in range(frames):
        planes = [codes_of(sequence + i, frame, height, width)[0] for i in range(3)]
        name = path / pattern.format(frame + 1)
        cv2.imwrite(str(name), np.stack(planes, axis=-1)[..., ::-1])
    return path


def write_hevc_d(root, written=(0, 1)):
    for number, (name, (fps, frames)) in enumerate(HEVC_D.items()):
        path = root / f"{name}_416x240_{fps}.yuv"
        write_raw(path, number, 240, 416, frames, written)
    return root


def same(codes, others):
    return all(np.array_equal(a, b) for a, b in zip(codes, others, strict=True))
