"""Cuts are found; pans, flashes, changes of exposure and noise are none."""

import cv2
import numpy as np
import pytest

from datamodules.prepared.cuts import CutFinder


def texture(seed, size=(90, 260)):
    coarse = np.random.default_rng(seed).uniform(0, 255, (9, 26, 3)).astype(np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def pan(seed, frames, step=4):
    return [texture(seed)[:, step * t : step * t + 160] for t in range(frames)]


def begins(frames, *threshold):
    finder = CutFinder(*threshold)
    return [number for number, f in enumerate(frames) if finder.begins_shot(f)]


def test_cuts_between_moving_shots_are_found():
    assert begins(pan(0, 5) + pan(1, 1) + pan(2, 8)) == [0, 5, 6]


@pytest.mark.parametrize(
    "change", [lambda f: f // 3, lambda f: 255 - (255 - f) // 2], ids=["dark", "light"]
)
def test_a_flash_is_no_cut(change):
    frames = pan(0, 9)
    frames[4] = change(frames[4])
    frames[6:] = [change(frame) for frame in frames[6:]]
    assert begins(frames) == [0]


def test_noise_of_a_black_picture_is_no_cut():
    rng = np.random.default_rng(0)
    assert begins(list(rng.integers(0, 6, (9, 90, 160, 3), np.uint8))) == [0]


def test_without_a_threshold_a_video_is_one_shot():
    assert begins(pan(0, 2) + pan(1, 2), 0.0) == [0]
