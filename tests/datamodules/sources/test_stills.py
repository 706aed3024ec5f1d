"""Clips of still pictures: where the camera looks, what it never sees, what is kept."""

import cv2
import numpy as np
import pytest
from numpy.random import default_rng
from torch.utils.data import DataLoader

from datamodules.options import DataOptions
from datamodules.sources import stills as stills_module
from datamodules.sources.folder import FolderSource
from datamodules.sources.index import examine
from datamodules.sources.opening import open_sources
from datamodules.sources.samples import TrainingClips, collate
from datamodules.sources.source import ClipError
from datamodules.sources.still_motion import FASTEST, Motion, draw_motion, fit
from datamodules.sources.still_views import Patch, views
from datamodules.sources.stills import Pictures, StillsSource

MOTIONS = {
    "stands": (0, 0, 0, 0),
    "pans": (1.3, -0.6, 0, 0),
    "zooms": (0.4, 0.2, 0.03, 0),
    "turns": (0.5, 0.7, -0.02, 0.04),
}
"""Rates per frame: right, down, logarithm of the scale, radians."""


@pytest.fixture
def make_pictures(write_png):
    """Write pictures of noise in one colour each: number ``k`` has red ``40 k``."""

    def make(root, count=4, size=(96, 120)):
        for number in range(count):
            write_png(root / f"{number}.png", 40 * number, 10, size)
        return root

    return make


@pytest.fixture
def always_patched(monkeypatch):
    monkeypatch.setattr(stills_module, "PATCHED", 1.0)


def motion(rates, frames=5):
    return Motion(*(rate * (np.arange(frames) - (frames - 1) / 2) for rate in rates))


def ramp(height, width):
    """Return a picture whose red is its column and whose green is its row."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0], picture[..., 1] = np.arange(width), np.arange(height)[:, None]
    return picture


def test_pictures_of_any_depth_are_found_and_broken_ones_left_out_by_name(
    make_pictures, tmp_path
):
    make_pictures(tmp_path / "b" / "c", 2)
    make_pictures(tmp_path / ".hidden", 1)
    noise = default_rng(0).integers(0, 255, (80, 90, 3), np.uint8)
    assert cv2.imwrite(str(tmp_path / "a.JPG"), noise)
    whole = (tmp_path / "a.JPG").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.jpeg").touch()
    (tmp_path / "link.jpg").symlink_to("nowhere")
    (tmp_path / "notes.txt").touch()
    source = StillsSource(tmp_path)
    labels = [source.label(item) for item in range(len(source))]
    assert labels == ["a.JPG", "b/c/0.png", "b/c/1.png"]
    assert list(source.skipped) == ["cut.jpg", "empty.jpeg", "link.jpg", "text.png"]
    assert "cut, damaged or no image" in source.skipped["cut.jpg"]
    assert "cut, damaged or no image" in source.skipped["text.png"]
    assert source.skipped["empty.jpeg"] == "the file is empty"
    assert "there is no nowhere" in source.skipped["link.jpg"]
    assert source.describe().endswith(": 3 pictures, 0.0 megapixels, 4 skipped")


def test_a_tree_without_a_picture_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'stills' needs `root`: .*photographs"):
        StillsSource(None)
    (tmp_path / "a.gif").touch()
    with pytest.raises(ValueError, match=r"photographs \(\.png .*found a\.gif"):
        StillsSource(tmp_path)
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"none of the 1 pictures .*file is empty"):
        StillsSource(tmp_path)


def test_the_same_tree_is_indexed_once_as_pictures_and_as_videos(
    make_pictures, examined, tmp_path
):
    make_pictures(tmp_path / "frames", 2)
    for _ in range(2):
        assert len(StillsSource(tmp_path)) == 2
        assert len(FolderSource(tmp_path)) == 1
    assert sorted(examined) == ["0.png", "1.png", "frames"]
    info = examine(tmp_path / "frames" / "0.png")
    assert (info.width, info.height, info.frames) == (120, 96, 1)


@pytest.mark.parametrize("frames", [1, 4])
def test_picture_and_generator_decide_a_clip(make_pictures, tmp_path, frames):
    source = StillsSource(make_pictures(tmp_path))
    first = source.read(3, default_rng(5), frames, 48, 1)
    assert first.shape == (frames, 48, 48, 3)
    assert first.dtype == np.uint8
    for item, seed in ((0, 1), (2, 5), (3, 6)):
        source.read(item, default_rng(seed), 2, 64, 1)
    for again in (source, StillsSource(tmp_path)):
        assert (again.read(3, default_rng(5), frames, 48, 1) == first).all()
    assert (source.read(3, default_rng(6), frames, 48, 1) != first).any()


def test_the_next_draw_does_not_depend_on_the_clip(make_pictures, tmp_path):
    source = StillsSource(make_pictures(tmp_path))
    (tmp_path / "1.png").unlink()
    states = []
    for item, frames, crop in ((0, 1, 48), (2, 9, 32), (1, 5, 48)):
        rng = default_rng(0)
        try:
            source.read(item, rng, frames, crop, 1)
        except ClipError:
            assert item == 1
        states.append(rng.random())
    assert len(set(states)) == 1


def test_workers_make_the_clips_that_the_process_itself_makes(make_pictures, tmp_path):
    source = StillsSource(make_pictures(tmp_path))
    clips = TrainingClips(
        *(source, range(4)),
        **dict(seed=3, stage=1, frames=3, crop=32, stride=1, flip=True),
    )
    numbers = [[4, 5], [6, 7], [8, 9]]
    loader = DataLoader(clips, batch_sampler=numbers, num_workers=2, collate_fn=collate)
    for some, batch in zip(numbers, loader, strict=True):
        assert batch["clip"].shape == (2, 3, 3, 32, 32)
        for number, clip in zip(some, batch["clip"], strict=True):
            assert (clips[number]["clip"] == clip).all()


@pytest.mark.parametrize("name", MOTIONS)
@pytest.mark.parametrize("smaller", [0.0, 0.6])
def test_a_camera_sees_what_lies_where_it_looks(name, smaller):
    rows, columns, place = 40, 56, (0.3, 0.8)
    camera = motion(MOTIONS[name])
    clip = views(ramp(200, 250), camera, (rows, columns), place, smaller)
    # By hand: the box that all views see lies in the picture as the place says.
    down, right = np.mgrid[:rows, :columns] + 0.5
    down, right = down - rows / 2, right - columns / 2
    scale = np.exp(camera.zoom - camera.zoom.min())[:, None, None]
    cos, sin = (part(camera.angle)[:, None, None] for part in (np.cos, np.sin))
    x = camera.x[:, None, None] + scale * (cos * right - sin * down)
    y = camera.y[:, None, None] + scale * (sin * right + cos * down)
    left, top, end, bottom = camera.bounds(rows, columns)
    assert left <= x.min() < x.max() <= end
    assert top <= y.min() < y.max() <= bottom
    room = min(250 / (end - left), 200 / (bottom - top), 2.5)
    factor = 1 + smaller * (room - 1)
    x = factor * (x - left) + 0.3 * (250 - factor * (end - left))
    y = factor * (y - top) + 0.8 * (200 - factor * (bottom - top))
    # Pixel 0 is from 0 to 1. Codes are rounded, where the camera turns twice.
    error = clip[:, :2] - (np.stack([x, y], axis=1) - 0.5)
    assert np.abs(error).max() < 1.25
    assert np.abs(error).mean() < 0.35
    if camera.zoom.any():
        # Each phase of rounding is met: no codes too dark or too bright.
        assert np.abs(error.mean((0, 2, 3))).max() < 0.1


def test_no_camera_sees_beyond_its_picture():
    for seed in range(300):
        rng = default_rng(seed)
        size = tuple(rng.integers(8, 33, 2).tolist())
        height, width = size if seed % 5 == 0 else rng.integers(33, 90, 2).tolist()
        frames, stride = int(rng.choice([1, 2, 5, 32])), int(rng.choice([1, 3]))
        times = (np.arange(frames) - (frames - 1) / 2) * stride
        camera = fit(draw_motion(rng, times), *size, height, width)
        white = np.full((height, width, 3), 255, np.uint8)
        clip = views(white, camera, size, tuple(rng.random(2)), rng.random())
        assert clip.shape == (frames, 3, *size)
        assert clip.min() == 255


def test_a_path_that_fits_stays_and_another_gets_smaller():
    camera = motion(MOTIONS["turns"], 9)
    assert fit(camera, 40, 40, 90, 90) is camera
    near = fit(camera, 40, 40, 46, 46)
    assert 0 < np.abs(near.x).max() < np.abs(camera.x).max()
    left, top, right, bottom = near.bounds(40, 40)
    assert max(right - left, bottom - top) <= 46
    assert not any(fit(camera, 40, 40, 40, 40).x)


@pytest.mark.parametrize("name", ["pans", "turns"])
def test_a_picture_is_scaled_down_without_aliasing(name):
    # Squares of one pixel are beyond what half the size can hold.
    board = (np.indices((200, 200)).sum(0) % 2 * 255).astype(np.uint8)
    picture = np.repeat(board[..., None], 3, axis=2)
    grey = views(picture, motion(MOTIONS[name]), (48, 48), (0.5, 0.5), 1.0)
    assert grey.std() < 5
    assert abs(grey.mean() - 127) < 2
    sharp = views(picture, motion(MOTIONS["stands"]), (48, 48), (0, 0), 0.0)
    assert (sharp == board[:48, :48]).all()


def test_cameras_stand_creep_and_pan_as_fast_as_is_said():
    times = np.arange(5) - 2.0
    drawn = [draw_motion(default_rng(seed), times) for seed in range(600)]
    speeds = np.array([np.hypot(m.x[-1] - m.x[0], m.y[-1] - m.y[0]) for m in drawn]) / 4
    assert 0.1 < (speeds == 0).mean() < 0.2
    assert 0.15 < (speeds > 2).mean() < 0.4
    assert FASTEST / 2 < speeds.max() < 1.2 * FASTEST
    assert 0.4 < np.mean([bool(m.zoom.any()) for m in drawn]) < 0.65
    assert 0.25 < np.mean([m.turns for m in drawn]) < 0.45
    # It is smooth: velocity changes by a small part from frame to frame.
    accelerations = [np.abs(np.diff(m.x, 2)).max() for m in drawn]
    assert max(accelerations) < 0.25 * FASTEST


def test_a_patch_hides_what_is_behind_and_moves_by_itself():
    blue, red = np.zeros((2, 80, 80, 3), np.uint8)
    blue[..., 2], red[..., 0] = 200, 200
    stands = motion(MOTIONS["stands"], 4)
    behind = views(blue, stands, (64, 64), (0.5, 0.5), 0.0)
    shown = 0
    for seed in range(20):
        clip = behind.copy()
        Patch(red, default_rng(seed), (64, 64)).lay(clip, motion((2.0, 0, 0, 0), 4))
        clip = clip.astype(int)
        # Nothing but the two, and a mixture of them at the edge.
        assert np.abs(clip[:, 0] + clip[:, 2] - 200).max() <= 2
        assert not clip[:, 1].any()
        # Two pixels a frame to the right.
        assert np.abs(clip[1:, ..., 4:] - clip[:-1, ..., 2:-2]).max() <= 2
        seen = clip[0, 0] / 200
        shown += seen.max() > 0.99
        assert seen.max() < 0.99 or ((seen > 0.1) & (seen < 0.9)).any()
        assert seen.mean() < 0.6
    assert shown >= 18


def test_a_patch_turns_clockwise_and_grows():
    still = np.zeros(2)
    path = Motion(still, still, np.array([0, 0.2]), np.array([0, 0.5]))
    clip = np.full((2, 3, 100, 100), 255, np.uint8)
    Patch(2 * ramp(120, 120), default_rng(4), (100, 100)).lay(clip, path)
    slopes = []
    for red, _, blue in clip.astype(float):
        # Where nothing but cloth is seen, as far as neighbours.
        cloth = cv2.erode((blue == 0).astype(np.uint8), np.ones((3, 3))) > 0
        assert cloth.sum() > 100
        down, right = (part[cloth].mean() for part in np.gradient(red))
        slopes.append((np.hypot(down, right), np.arctan2(down, right)))
    (upright, level), (turned, angle) = slopes
    assert abs(level) < 0.02
    assert abs(angle - 0.5) < 0.02
    assert abs(turned / upright - np.exp(-0.2)) < 0.02


def test_patches_are_of_earlier_pictures_never_of_those_that_validate(
    make_pictures, always_patched, tmp_path
):
    source = StillsSource(make_pictures(tmp_path))
    seen = set()
    for seed in range(40):
        clip = source.read(1, default_rng(seed), 2, 48, 1)
        seen |= set(np.unique(clip[..., 0]).tolist())
    # Number 1 has red 40, number 0 has none, and edges lie between.
    assert {0, 40} <= seen
    assert max(seen) <= 41


def test_a_fixed_clip_is_the_same_every_time_and_leaves_room(make_pictures, tmp_path):
    source = StillsSource(make_pictures(tmp_path))
    for crop, shape in ((None, (76, 96)), (64, (64, 64)), (80, (76, 80))):
        first = source.read(3, None, 5, crop, 1)
        assert first.shape == (5, *shape, 3)
        assert (StillsSource(tmp_path).read(3, None, 5, crop, 1) == first).all()
    assert source.read(3, None, 1, None, 1).shape == (1, 96, 120, 3)
    assert source.read(3, None, 1, 128, 1).shape == (1, 96, 120, 3)


def test_a_picture_smaller_than_the_crop_is_told_and_refused(make_pictures, tmp_path):
    source = StillsSource(make_pictures(tmp_path))
    assert source.unfit(0, 5, 96) == ""
    message = "too small: 120x96, the crop is 97x97"
    assert source.unfit(0, 1, 97) == message
    with pytest.raises(ClipError, match=message):
        source.read(0, default_rng(0), 1, 97, 1)
    clip = source.read(0, default_rng(0), 5, 96, 1)
    assert clip.shape == (5, 96, 96, 3)


def test_a_picture_that_vanishes_or_changes_later_is_a_clip_error(
    make_pictures, write_png, tmp_path, monkeypatch
):
    source = StillsSource(make_pictures(tmp_path))
    monkeypatch.setattr(stills_module, "PICTURES", Pictures())
    (tmp_path / "1.png").unlink()
    write_png(tmp_path / "2.png", 0, 0, (50, 60))
    for draw in (default_rng(0), None):
        with pytest.raises(ClipError, match=r"1\.png is missing"):
            source.read(1, draw, 1, 48, 1)
        message = r"2\.png was 120x96 when it was indexed, and is 60x50 now"
        with pytest.raises(ClipError, match=message):
            source.read(2, draw, 1, 48, 1)


def test_pictures_are_kept_within_their_bytes(make_pictures, tmp_path, monkeypatch):
    make_pictures(tmp_path)
    decoded = []
    read = stills_module.read_images
    monkeypatch.setattr(
        stills_module, "read_images", lambda p: decoded.append(p[0].name) or read(p)
    )
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    each = 96 * 120 * 3
    pictures = Pictures(limit=2 * each)
    for number in (0, 1, 0, 2, 0, 1):
        picture = pictures.read(paths[number], examine(paths[number]))
        assert picture[0, :, 2].tolist() == list(range(120))
    assert decoded == ["0.png", "1.png", "2.png", "1.png"]
    assert len(pictures) == 2
    small = Pictures(limit=each - 1)
    small.read(paths[0], examine(paths[0]))
    assert len(small) == 0


def test_the_last_pictures_validate(make_pictures, tmp_path):
    root = str(make_pictures(tmp_path))
    opened = open_sources(DataOptions(source="stills", root=root, val_clips=1))
    assert list(opened.train_items) == [0, 1, 2]
    assert [opened.val.label(item) for item in opened.val_items] == ["3.png"]
