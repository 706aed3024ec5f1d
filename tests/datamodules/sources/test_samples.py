"""Which frames and which crop a clip has, and what synthetic scenes look like."""

import numpy as np
import pytest
from numpy.random import default_rng

from datamodules.sources.source import ClipError, cut, window
from datamodules.sources.synthetic import SyntheticSource


def test_a_window_is_contiguous_and_covers_every_start():
    starts = set()
    for seed in range(50):
        frames = window(10, 3, 2, default_rng(seed))
        assert np.diff(frames).tolist() == [2, 2]
        starts.add(frames[0])
    assert starts == set(range(6))


def test_a_short_video_is_played_back_and_forth():
    assert window(4, 9, 1, default_rng(0)) == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert window(4, 4, 2, default_rng(0)) == [0, 2, 2, 0]
    assert window(2, 4, 1, None) == [0, 1, 0, 1]
    assert window(1, 1, 1, default_rng(0)) == [0]
    with pytest.raises(ClipError, match="too short: 1 frame"):
        window(1, 2, 1, default_rng(0))


def test_a_fixed_window_starts_in_the_middle_but_not_late():
    assert window(20, 4, 1, None) == [8, 9, 10, 11]
    assert window(100_000, 2, 1, None) == [240, 241]


def test_a_fixed_crop_is_centred_and_shrinks_to_fit():
    frames = np.arange(2 * 6 * 10 * 3, dtype=np.uint8).reshape(2, 6, 10, 3)
    assert (cut(frames, 4, None) == frames[:, 1:5, 3:7]).all()
    assert (cut(frames, 8, None) == frames[:, :, 1:9]).all()
    with pytest.raises(ClipError, match="10x6, the crop is 8x8"):
        cut(frames, 8, default_rng(0))


def test_synthetic_scenes_are_decided_by_item_and_generator():
    source = SyntheticSource()
    clip = source.read(7, default_rng(1), 4, 32, 1)
    assert clip.shape == (4, 32, 32, 3)
    assert clip.dtype == np.uint8
    assert (source.read(7, default_rng(1), 4, 32, 1) == clip).all()
    assert (SyntheticSource(first=7).read(0, default_rng(1), 4, 32, 1) == clip).all()
    assert (source.read(7, default_rng(2), 4, 32, 1) != clip).any()
    assert (source.read(8, default_rng(1), 4, 32, 1) != clip).any()
    fixed = source.read(7, None, 2, None, 1)
    assert fixed.shape == (2, 256, 256, 3)
    assert (source.read(7, None, 2, None, 1) == fixed).all()


def test_synthetic_scenes_look_like_video():
    """They move, but slowly; neighbouring pixels agree; some have a cut."""
    source = SyntheticSource()
    contrast, motion, gradient = [], [], []
    for item in range(80):
        clip = source.read(item, default_rng(item), 5, 64, 1).astype(float).mean(-1)
        contrast.append(clip.std())
        motion.append(np.abs(np.diff(clip, axis=0)).mean((1, 2)))
        gradient.append(np.abs(np.diff(clip, axis=2)).mean())
    assert 20 < np.median(contrast) < 60
    assert 1 < np.median(motion) < 12
    assert np.median(gradient) < 0.5 * np.median(contrast)
    cuts = [steps.max() > 5 * np.median(steps) + 5 for steps in motion]
    assert 1 <= sum(cuts) <= 24
