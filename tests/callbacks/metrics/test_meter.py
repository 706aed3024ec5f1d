"""The metrics of a coded sequence against independent computations."""

import json
import math

import cv2
import numpy as np
import pytest
import torch
from pytorch_msssim import ms_ssim as reference_ms_ssim

from callbacks.metrics.meter import Meter, at_boundaries, means
from callbacks.metrics.table import METRICS
from lightning_modules.perceptual import UnavailableMetricError, lpips_file

COLOURS = ["yuv420", "rgb"]
SQUEEZE = ("lpips_squeeze", "tlp_squeeze")
PSNR = [f"psnr_{plane}" for plane in ("y", "u", "v", "yuv", "rgb")]


def shapes(colour, height, width):
    chroma = (
        (-(-height // 2), -(-width // 2)) if colour == "yuv420" else (height, width)
    )
    return [(height, width), chroma, chroma]


def sequence(colour, height, width, frames=2, noise=0.03):
    """Return smooth 8-bit planes that move, and disturbed floats of them."""
    numbers = np.random.default_rng(0)
    pairs = []
    for t in range(frames):
        source, decoded = [], []
        for p, (rows, columns) in enumerate(shapes(colour, height, width)):
            i, j = np.mgrid[:rows, :columns]
            wave = (
                np.sin((i + 2 * t) / (5 + p))
                * np.cos((j - 3 * t) / 9)
                * (0.9 - 0.3 * p)
            )
            codes = np.rint(127.5 + 127.5 * wave).astype(np.uint8)
            source.append(codes)
            error = noise * (p + 1) * numbers.standard_normal(codes.shape)
            decoded.append(torch.from_numpy(codes / 255 + error).float())
        pairs.append((tuple(source), tuple(decoded)))
    return pairs


PLAIN = [name for name, metric in METRICS.items() if not metric.option]


def measured(pairs, colour, *more):
    meter = Meter(colour, *pairs[0][0][0].shape, [*PLAIN, "tof", *more])
    for source, decoded in pairs:
        meter.add(source, decoded)
    return meter.close(), meter.unavailable


def both_colours(planes, colour):
    """Return (Y, U, V) and RGB (H, W, 3) of float64 codes in 0..255."""
    if colour == "rgb":
        r, g, b = planes
        y = 0.2126 * r + 0.7152 * g + 0.0722 * b
        return (y, (b - y) / 1.8556 + 127.5, (r - y) / 1.5748 + 127.5), np.dstack(
            planes
        )
    y, u, v = planes
    u, v = (
        np.kron(c, np.ones((2, 2)))[: y.shape[0], : y.shape[1]] - 127.5 for c in (u, v)
    )
    r, b = y + 1.5748 * v, y + 1.8556 * u
    rgb = np.dstack([r, (y - 0.2126 * r - 0.0722 * b) / 0.7152, b])
    return planes, rgb.clip(0, 255)


def expected_psnr(source, decoded, colour, *, rounded):
    source = [plane.astype(np.float64) for plane in source]
    decoded = [(255 * plane.double().numpy()).clip(0, 255) for plane in decoded]
    if rounded:
        decoded = [np.rint(plane) for plane in decoded]
    (x, x_rgb), (y, y_rgb) = (both_colours(p, colour) for p in (source, decoded))
    if rounded:
        x_rgb, y_rgb = np.rint(x_rgb), np.rint(y_rgb)
    pairs = [*zip(x, y, strict=True), (x_rgb, y_rgb)]
    y, u, v, rgb = (
        20 * math.log10(255 / np.sqrt(np.mean((a - b) ** 2))) for a, b in pairs
    )
    return [y, u, v, (6 * y + u + v) / 8, rgb]


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("size", [(48, 64), (51, 65)])
def test_psnr_is_that_of_the_8_bit_output_and_of_the_unrounded_one(colour, size):
    pairs = sequence(colour, *size)
    values, _ = measured(pairs, colour)
    for t, (source, decoded) in enumerate(pairs):
        for suffix in ("", "_unrounded"):
            ours = [values[name + suffix][t] for name in PSNR]
            expected = expected_psnr(source, decoded, colour, rounded=not suffix)
            # One more or less where RGB lies between two codes is below 1e-3 dB.
            assert ours == pytest.approx(expected, abs=1e-3)
            planes = slice(3) if colour == "yuv420" else slice(4, 5)
            exactly = 1e-5 if suffix else 1e-9
            assert ours[planes] == pytest.approx(expected[planes], abs=exactly)


@pytest.mark.parametrize("colour", COLOURS)
def test_what_rounding_hides_is_seen_before_it(colour):
    source = tuple(np.full(s, 100, np.uint8) for s in shapes(colour, 48, 48))
    near, far = (
        tuple(torch.full(plane.shape, (100 + error) / 255) for plane in source)
        for error in (0.4, 0.6)
    )
    values, _ = measured([(source, near), (source, far)], colour)
    name = "psnr_y" if colour == "yuv420" else "psnr_rgb"
    assert values[name] == pytest.approx([99.9, 20 * math.log10(255)])
    unrounded = [20 * math.log10(255 / error) for error in (0.4, 0.6)]
    assert values[f"{name}_unrounded"] == pytest.approx(unrounded, abs=1e-3)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_perfect_sequence_has_the_best_values(colour, dummy_squeeze):
    pairs = [
        (source, tuple(torch.from_numpy(p / np.float32(255)) for p in source))
        for source, _ in sequence(colour, 89, 99)
    ]
    values, unavailable = measured(pairs, colour, *SQUEEZE)
    assert not unavailable
    best = dict.fromkeys([*PSNR, *(f"{name}_unrounded" for name in PSNR)], 99.9)
    best |= {"ms_ssim_y": 1, "ms_ssim_rgb": 1, "ms_ssim_y_db": 99.9}
    best |= {"ms_ssim_rgb_db": 99.9, "lpips_squeeze": 0, "tof": 0, "tlp_squeeze": 0}
    assert means(values) == pytest.approx(best, abs=1e-9)
    assert list(values) == [name for name in METRICS if name in best]
    json.dumps(values, allow_nan=False)


def test_values_beyond_the_range_are_clamped():
    source = tuple(np.full(s, 255, np.uint8) for s in shapes("rgb", 48, 48))
    decoded = tuple(torch.full(plane.shape, 1.2) for plane in source)
    values, _ = measured([(source, decoded)], "rgb")
    assert values["psnr_rgb"] == values["psnr_rgb_unrounded"] == [99.9]


def test_psnr_is_exact_and_does_not_depend_on_the_number_of_threads():
    pairs = sequence("yuv420", 60, 2000, frames=1, noise=0.3)
    values = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        values.append(measured(pairs, "yuv420")[0])
    torch.set_num_threads(1)
    for name in [*PSNR, *(f"{name}_unrounded" for name in PSNR)]:
        assert values[0][name] == values[1][name]
    (source, decoded) = pairs[0]
    exactly = expected_psnr(source, decoded, "yuv420", rounded=True)[:3]
    ours = [values[0][name][0] for name in PSNR[:3]]
    assert ours == pytest.approx(exactly, abs=1e-12)


def test_ms_ssim_of_luma_and_of_rgb_is_the_librarys():
    # No scale has an odd side: there pytorch_msssim pads with black.
    pairs = sequence("yuv420", 176, 208, noise=0.02)
    values, _ = measured(pairs, "yuv420")
    for t, (source, decoded) in enumerate(pairs):
        output = [np.rint(255 * p.double().numpy().clip(0, 1)) for p in decoded]
        rgb, rgb_hat = (
            torch.tensor(np.rint(both_colours(planes, "yuv420")[1])).permute(2, 0, 1)
            for planes in ([p.astype(float) for p in source], output)
        )
        for name, x, x_hat in (
            ("ms_ssim_y", torch.tensor(source[0])[None], torch.tensor(output[0])[None]),
            ("ms_ssim_rgb", rgb, rgb_hat),
        ):
            score = reference_ms_ssim(x_hat[None].float(), x[None].float()).item()
            assert 0.5 < score < 0.999
            assert values[name][t] == pytest.approx(score, abs=1e-5)
            decibels = -10 * math.log10(1 - values[name][t])
            assert values[f"{name}_db"][t] == pytest.approx(decibels)


@pytest.mark.parametrize("colour", COLOURS)
def test_tof_is_the_flow_of_the_rounded_luma(colour):
    pairs = sequence(colour, 64, 80, frames=3)
    values, _ = measured(pairs, colour)
    flow = cv2.DISOpticalFlow_create(2)

    def luma(planes):
        output = [np.rint(plane.clip(0, 255)) for plane in planes]
        return np.rint(both_colours(output, colour)[0][0]).astype(np.uint8)

    source = [luma([p.astype(float) for p in planes]) for planes, _ in pairs]
    decoded = [luma([255 * p.double().numpy() for p in planes]) for _, planes in pairs]
    expected = [
        np.linalg.norm(
            flow.calc(*decoded[t : t + 2], None) - flow.calc(*source[t : t + 2], None),
            axis=-1,
        ).mean()
        for t in range(2)
    ]
    assert values["tof"] == pytest.approx(expected, rel=1e-5)
    assert min(expected) > 0.01


@pytest.mark.parametrize("colour", COLOURS)
def test_tecogans_tof_is_measured_beside_the_default(colour):
    pairs = sequence(colour, 64, 80, frames=3)
    values, _ = measured(pairs, colour, "tof_teco")
    alone, _ = measured(pairs, colour)
    assert values["tof"] == alone["tof"] and "tof_teco" not in alone

    def luma(planes):
        output = [np.rint(plane.clip(0, 255)) for plane in planes]
        return np.rint(both_colours(output, colour)[0][0]).astype(np.uint8)

    def flow(a, b):
        moved = cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        # 32 of 64 rows and 64 of 80 columns.
        return moved[16:48, 8:72]

    source = [luma([p.astype(float) for p in planes]) for planes, _ in pairs]
    decoded = [luma([255 * p.double().numpy() for p in planes]) for _, planes in pairs]
    expected = [
        np.linalg.norm(
            flow(*decoded[t : t + 2]) - flow(*source[t : t + 2]), axis=-1
        ).mean()
        for t in range(2)
    ]
    assert values["tof_teco"] == pytest.approx(expected, rel=1e-5)


def test_boundaries_have_the_mean_of_the_pairs_that_cross_them():
    per_frame = {
        "psnr_y": [30.0] * 5,
        "tof": [1.0, 2.0, 4.0, 8.0],
        "tof_teco": [1.0] * 4,
        "tlp_vgg": [0.1, 0.2, 0.3, 0.4],
    }
    # Frames 0 and 1 are the first pair.
    assert at_boundaries(per_frame, [1, 4]) == {
        "tof_boundary": 4.5,
        "tlp_boundary_vgg": 0.25,
    }
    assert at_boundaries(per_frame, []) == {}
    assert set(at_boundaries(per_frame, [1])) < set(METRICS)


@pytest.mark.parametrize("colour", COLOURS)
def test_brisque_is_that_of_the_rounded_output(colour, monkeypatch):
    monkeypatch.setattr("callbacks.metrics.brisque.check_brisque", lambda: None)
    monkeypatch.setattr(
        "callbacks.metrics.brisque.brisque",
        lambda x, clip: x[..., 0, :, :].mean() + x.std(),
    )
    pairs = sequence(colour, 48, 64)
    values, unavailable = measured(pairs, colour, "brisque")
    for t, (_, planes) in enumerate(pairs):
        output = [np.rint(255 * p.double().numpy().clip(0, 1)) for p in planes]
        rgb = np.rint(both_colours(output, colour)[1]) / 255
        expected = rgb[..., 0].mean() + rgb.std()
        assert values["brisque"][t] == pytest.approx(expected, rel=1e-4)
    assert "brisque" not in unavailable


def test_a_frame_without_brisque_leaves_the_sequence_without(monkeypatch):
    seen = []

    def of_the_first_only(rgb, clip):
        seen.append(rgb)
        if len(seen) > 1:
            raise UnavailableMetricError("no contrast")
        return torch.tensor(20.0)

    monkeypatch.setattr("callbacks.metrics.brisque.check_brisque", lambda: None)
    monkeypatch.setattr("callbacks.metrics.brisque.brisque", of_the_first_only)
    pairs = sequence("rgb", 48, 64, frames=3)
    meter = Meter("rgb", 48, 64, ["brisque"])
    for pair in pairs:
        meter.add(*pair)
    assert "brisque" not in meter.close()
    # It is the frames that lack it, not the machine.
    assert meter.undefined["brisque"] == "frame 1: no contrast"
    assert meter.missing == {}
    assert len(seen) == 2


def test_missing_support_vectors_are_reported_with_file_and_folder(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    meter = Meter("rgb", 48, 64, ["brisque"])
    for pair in sequence("rgb", 48, 64):
        meter.add(*pair)
    assert "brisque" not in meter.close()
    file = tmp_path / "hub" / "checkpoints" / "brisque_svm_weights.pt"
    assert str(file) in meter.missing["brisque"]
    assert "brisque" not in meter.undefined


@pytest.fixture
def dummy_squeeze(tmp_path, monkeypatch):
    """Random weights in the place of the backbone's."""
    torchvision = pytest.importorskip("torchvision")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = lpips_file("squeeze")
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), file)


@pytest.mark.parametrize("colour", COLOURS)
def test_lpips_and_tlp_are_those_of_the_library(colour, dummy_squeeze):
    import lpips

    network = lpips.LPIPS(net="squeeze", verbose=False)
    pairs = sequence(colour, 49, 64, frames=3, noise=0.1)
    # Noise makes neighbours differ more than the source's, a repeated frame less.
    pairs[2] = (pairs[2][0], pairs[1][1])
    values, unavailable = measured(pairs, colour, *SQUEEZE)
    assert set(unavailable) == {name for name in METRICS if name.startswith("ms_ssim")}

    def picture(planes):
        planes = [np.rint(np.clip(np.asarray(p, np.float64), 0, 255)) for p in planes]
        rgb = np.rint(both_colours(planes, colour)[1])
        return torch.tensor(rgb / 127.5 - 1).float().permute(2, 0, 1)[None]

    source = [picture(planes) for planes, _ in pairs]
    decoded = [picture([255 * p for p in planes]) for _, planes in pairs]
    with torch.no_grad():
        expected = [network(*both).item() for both in zip(decoded, source, strict=True)]
        changes = [
            [network(frames[t], frames[t + 1]).item() for t in range(2)]
            for frames in (decoded, source)
        ]
    assert values["lpips_squeeze"] == pytest.approx(expected, rel=1e-4)
    tlp = [abs(ours - theirs) for ours, theirs in zip(*changes, strict=True)]
    assert values["tlp_squeeze"] == pytest.approx(tlp, abs=1e-6)
    assert min(tlp) > 1e-5


def test_missing_weights_are_reported_with_file_and_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    values, unavailable = measured(
        sequence("rgb", 48, 64), "rgb", "lpips_vgg", "tlp_vgg"
    )
    file = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    for name in ("lpips_vgg", "tlp_vgg"):
        assert str(file) in unavailable[name]
        assert name not in values


def test_small_frames_have_no_ms_ssim_and_still_smaller_ones_no_motion():
    values, unavailable = measured(sequence("yuv420", 47, 64), "yuv420")
    assert list(values) == [*PSNR, *(f"{name}_unrounded" for name in PSNR)]
    assert "at least 88x88" in unavailable["ms_ssim_rgb_db"]
    assert "at least 48x48" in unavailable["tof"]
    assert len(unavailable) == 5


def test_small_frames_have_no_lpips(dummy_squeeze):
    pairs = sequence("yuv420", 31, 64)
    values, unavailable = measured(pairs, "yuv420", *SQUEEZE)
    assert "lpips_squeeze" not in values
    assert "at least 32x32" in unavailable["lpips_squeeze"]
    assert "at least 32x32" in unavailable["tlp_squeeze"]


def test_one_frame_has_no_motion(dummy_squeeze):
    pairs = sequence("yuv420", 48, 64, frames=1)
    values, unavailable = measured(pairs, "yuv420", *SQUEEZE)
    assert len(values["lpips_squeeze"]) == 1
    for name in ("tof", "tlp_squeeze"):
        assert name not in values
        assert "needs two frames" in unavailable[name]


def test_motion_has_one_value_less_than_there_are_frames(dummy_squeeze):
    pairs = sequence("yuv420", 48, 64, frames=3)
    values, _ = measured(pairs, "yuv420", *SQUEEZE)
    lengths = {name: len(v) for name, v in values.items()}
    assert lengths.pop("tof") == lengths.pop("tlp_squeeze") == 2
    assert set(lengths.values()) == {3}


def test_a_sequences_quality_is_the_mean_of_its_frames():
    assert means({"psnr_y": [30.0, 40.0, 50.0], "tof": [1.0]}) == {
        "psnr_y": 40.0,
        "tof": 1.0,
    }


@pytest.mark.parametrize("colour", COLOURS)
def test_planes_of_another_size_are_refused(colour):
    (source, decoded), other = (
        sequence(colour, *size, frames=1)[0] for size in ((48, 64), (48, 66))
    )
    meter = Meter(colour, 48, 64, PLAIN)
    with pytest.raises(
        ValueError, match=r"frame 0: the decoded planes are .*\(48, 66\)"
    ):
        meter.add(source, other[1])
    with pytest.raises(
        ValueError, match=r"frame 0: the source planes are .*\(48, 66\)"
    ):
        meter.add(other[0], decoded)


def test_what_is_no_number_is_refused():
    source, decoded = sequence("yuv420", 48, 64, frames=1)[0]
    decoded[2][3, 4] = torch.nan
    with pytest.raises(ValueError, match="frame 0: the decoded planes hold NaN"):
        Meter("yuv420", 48, 64, PLAIN).add(source, decoded)


def test_a_sequence_without_frames_has_no_quality():
    with pytest.raises(ValueError, match="no frame was measured"):
        Meter("rgb", 48, 64, PLAIN).close()


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match=r"no metrics \['lpips_resnet'\]"):
        Meter("rgb", 48, 64, ["psnr_y", "lpips_resnet"])
