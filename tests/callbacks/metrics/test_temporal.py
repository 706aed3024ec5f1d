"""tOF and tLP against independent computations."""

import cv2
import numpy as np
import pytest
import torch

from callbacks.metrics import temporal
from callbacks.metrics.gauges import Frame, FramePair
from callbacks.metrics.meter import make_gauges
from callbacks.metrics.temporal import (
    FLOWS,
    TOFS,
    Tlp,
    TofStream,
    luma,
    tof,
    tof_l1,
    tof_teco,
)
from lightning_modules.perceptual import UnavailableMetricError


def clips(batch=2, frames=3, height=60, width=83):
    """Return textures that move by two pixels a frame, and a disturbed copy."""
    noise = torch.rand(batch, 3, height // 4 + 8, width // 4 + 8)
    scene = torch.nn.functional.interpolate(noise, scale_factor=4, mode="bicubic")
    clip = torch.stack(
        [scene[..., t : t + height, 2 * t : 2 * t + width] for t in range(frames)],
        dim=1,
    )
    x_hat = clip + 0.03 * torch.randn_like(clip)
    return x_hat.clamp(0, 1), clip.clamp(0, 1)


def dis(a, b):
    return cv2.DISOpticalFlow_create(2).calc(a, b, None)


def farneback(a, b):
    return cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0)


def mean_length(difference):
    u, v = np.moveaxis(difference.astype(np.float64), -1, 0)
    return np.mean(np.hypot(u, v))


def mean_sum(difference):
    u, v = np.moveaxis(difference.astype(np.float64), -1, 0)
    return np.mean(np.abs(u) + np.abs(v))


def expected_tof(
    x_hat, clip, flow, window=(slice(None), slice(None)), norm=mean_length
):
    pairs = []
    for ours, theirs in zip(x_hat, clip, strict=True):
        a, b = luma(ours), luma(theirs)
        pairs.append(
            [
                norm((flow(a[t - 1], a[t]) - flow(b[t - 1], b[t]))[window])
                for t in range(1, len(a))
            ]
        )
    return np.array(pairs)


def test_luma_is_the_rounded_y_of_bt709():
    frames = clips()[0]
    r, g, b = frames.double().movedim(2, 0).numpy()
    y = 255 * (0.2126 * r + 0.7152 * g + 0.0722 * b)
    assert luma(frames).dtype == np.uint8
    assert np.abs(luma(frames) - y).max() < 0.5 + 1e-4


def test_tof_is_the_mean_length_of_the_flows_difference():
    x_hat, clip = clips()
    values = tof(x_hat, clip)
    assert values.shape == (2, 2) and values.min() > 0.01
    expected = expected_tof(x_hat, clip, dis)
    assert values.numpy() == pytest.approx(expected, rel=1e-5)
    assert abs(values.numpy() / expected_tof(x_hat, clip, farneback) - 1).min() > 0.01


def test_the_papers_tof_is_the_mean_l1_norm_of_the_same_difference():
    x_hat, clip = clips()
    values = tof_l1(x_hat, clip)
    expected = expected_tof(x_hat, clip, dis, norm=mean_sum)
    assert values.numpy() == pytest.approx(expected, rel=1e-5)
    ratio = values / tof(x_hat, clip)
    # Between those of a vector along an axis and of one along a diagonal.
    assert 1.1 < ratio.min() and ratio.max() < 2**0.5
    still = clip[:, :1].expand_as(clip)
    # Two to the left and one up, all over the frame.
    assert tof_l1(still, clip)[:, 0].numpy() == pytest.approx(3, rel=0.15)


def test_sequences_are_measured_in_both_norms_by_one_flow(monkeypatch):
    x_hat, clip = clips(batch=1, frames=3)
    estimated = []

    def note(*pair):
        estimated.append(pair)
        return dis(*pair)

    monkeypatch.setitem(FLOWS, "dis", note)
    names = ["tof", "tof_l1", "tof_teco"]
    (gauge,) = make_gauges(names, "cpu")
    values = []
    for pair in zip(x_hat[0], clip[0], strict=True):
        own, source = (Frame((f[0] * 255, f[0], f[0]), f) for f in pair)
        values.append(gauge.add(FramePair(own, source, (own, source))))
    assert values[0] == {}
    assert all(set(pair) == set(names) == set(TOFS) for pair in values[1:])
    assert all(1 < pair["tof_l1"] / pair["tof"] < 2**0.5 for pair in values[1:])
    # Two pairs of frames, each of the decoded and of the source.
    assert len(estimated) == 4


def test_tof_sees_motion_in_its_own_direction_and_in_pixels():
    _, clip = clips(batch=1, frames=2, height=128, width=128)
    still = clip[:, :1].expand(-1, 2, -1, -1, -1)
    # Two to the left and one up, all over the frame.
    assert tof(still, clip).item() == pytest.approx(5**0.5, rel=0.1)
    assert tof(clip, clip).item() == 0


def test_tecogans_tof_compares_the_centre_only():
    x_hat, clip = clips(batch=1, frames=3, height=83, width=113)
    # 64 of 83 rows and 96 of 113 columns are left, the odd pixel below and right.
    window = (slice(9, 9 + 64), slice(8, 8 + 96))
    values = tof_teco(x_hat, clip)
    expected = expected_tof(x_hat, clip, farneback, window)
    assert values.numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("size", "kept"),
    [
        ((1080, 1920), (1056, 1888)),
        ((240, 416), (224, 384)),
        # 15 pixels less would leave 64 and 96.
        ((79, 111), (32, 64)),
    ],
)
def test_tecogans_crop_has_the_published_sizes(size, kept):
    frame = np.zeros(size, np.uint8)
    assert FLOWS["teco"](frame, frame).shape == (*kept, 2)
    assert FLOWS["dis"](frame, frame).shape == (*size, 2)


@pytest.mark.parametrize("method", ["dis", "teco"])
def test_flows_do_not_depend_on_the_number_of_threads(method):
    frames = luma(clips(batch=1, frames=2, height=200, width=300)[0])[0]
    before = cv2.getNumThreads()
    try:
        flows = []
        for threads in (1, 2):
            cv2.setNumThreads(threads)
            flows.append(FLOWS[method](*frames))
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(*flows)


def test_a_stream_gives_what_the_whole_clip_gives():
    x_hat, clip = clips(batch=1, frames=4)
    stream = TofStream("tof", "tof_teco")
    pairs = zip(luma(x_hat[0]), luma(clip[0]), strict=True)
    values = [stream.add(*pair) for pair in pairs]
    assert values[0] == {}
    for name, function in (("tof", tof), ("tof_teco", tof_teco)):
        given = [pair[name] for pair in values[1:]]
        assert given == function(x_hat, clip)[0].tolist()


def test_small_frames_are_refused_before_opencv_crashes():
    frames = torch.rand(1, 2, 3, 47, 100)
    with pytest.raises(UnavailableMetricError, match=r"at least 48x48.*have 100x47"):
        tof(frames, frames)


def test_frames_that_are_not_finite_give_nan():
    x_hat, clip = clips(batch=1, frames=4)
    x_hat[0, 0, 1, 5, 5] = torch.nan
    assert tof(x_hat, clip).isnan().tolist() == [[True, False, False]]


def brightness(x, y):
    """A distance in the place of LPIPS."""
    return (x.mean(dim=(-3, -2, -1)) - y.mean(dim=(-3, -2, -1))).square()


def test_tlp_compares_how_much_neighbours_differ(monkeypatch):
    monkeypatch.setattr(temporal, "Lpips", lambda net: brightness)
    x_hat, clip = (
        torch.tensor(levels).reshape(1, 4, 1, 1, 1).expand(1, 4, 3, 2, 2)
        for levels in ([0.1, 0.3, 0.2, 0.3], [0.1, 0.2, 0.2, 0.5])
    )
    expected = [0.2**2 - 0.1**2, 0.1**2, 0.3**2 - 0.1**2]
    values = Tlp("alex")(x_hat, clip)
    assert values[0].numpy() == pytest.approx(np.array(expected), abs=1e-6)
