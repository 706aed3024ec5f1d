"""Which frames and which crop a clip has, and what synthetic scenes look like."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from numpy.random import default_rng

from datamodules.sources.samples import TrainingClips, collate, to_tensor
from datamodules.sources.source import (
    ClipError,
    Window,
    choose_window,
    read_clip,
    window,
)
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
    assert choose_window(6, 10, 4, None) == Window(1, 3, 4, 4)
    assert choose_window(6, 10, 8, None) == Window(0, 1, 6, 8)
    assert choose_window(6, 10, None, None) == Window(0, 0, 6, 10)
    with pytest.raises(ClipError, match="10x6, the crop is 8x8"):
        choose_window(6, 10, 8, default_rng(0))


def test_a_clip_cropped_in_blocks_is_that_of_whole_frames():
    """Also where it is played to and fro, and where a reader has to begin again."""
    shown = default_rng(0).integers(0, 256, (9, 12, 20, 3), np.uint8)

    def blocks(numbers):
        yield 0, shown[-2:]
        for first in range(0, len(numbers), 2):
            yield first, shown[numbers[first : first + 2]]

    # 6 frames, 1 in 3, are 0, 3, 4, 1: each once, and not rising.
    for length, frames, stride in ((9, 5, 1), (9, 20, 1), (6, 4, 3), (9, 4, 2)):
        for seed in range(4):
            rng, same = default_rng(seed), default_rng(seed)
            clip = read_clip(blocks, length, rng, frames, 8, stride)
            numbers = window(length, frames, stride, same)
            top, left = (int(same.integers(side - 7)) for side in (12, 20))
            whole = shown[numbers]
            assert (clip == whole[:, top : top + 8, left : left + 8]).all()
            assert rng.integers(1 << 30) == same.integers(1 << 30)


def test_what_is_drawn_after_a_broken_clip_does_not_depend_on_where_it_broke():
    def breaking(good, numbers):
        for first in range(good):
            yield first, np.zeros((1, 12, 20, 3), np.uint8)
        raise ClipError("it is cut")

    drawn = set()
    for good in range(3):
        rng = default_rng(0)
        with pytest.raises(ClipError, match="it is cut"):
            read_clip(partial(breaking, good), 9, rng, 5, 8, 1)
        drawn.add(int(rng.integers(1 << 30)))
    assert len(drawn) == 1


def test_a_clip_is_mirrored_as_its_sample_draws_and_not_copied():
    clips = TrainingClips(
        SyntheticSource(),
        [0],
        seed=0,
        stage=0,
        frames=2,
        crop=8,
        stride=1,
        flip=True,
    )
    plain = replace(clips, flip=False)
    equal = [bool((clips[n]["clip"] == plain[n]["clip"]).all()) for n in range(12)]
    assert 0 < sum(equal) < 12
    for number, same in enumerate(equal):
        mirrored = plain[number]["clip"].flip(-1)
        assert same or (clips[number]["clip"] == mirrored).all()
    frozen = np.zeros((2, 3, 8, 8), np.uint8)
    view = frozen.transpose(0, 2, 3, 1)
    assert to_tensor(view).data_ptr() == frozen.ctypes.data
    frozen.flags.writeable = False
    view = frozen.transpose(0, 2, 3, 1)
    assert to_tensor(view).data_ptr() != frozen.ctypes.data
    sample = clips[0]
    assert collate([sample])["clip"].data_ptr() == sample["clip"].data_ptr()


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
