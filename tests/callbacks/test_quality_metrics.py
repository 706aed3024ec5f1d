"""Metrics of validation that need pairs of frames, networks, or all clips at once."""

import json
import sys
import types
import warnings
from functools import partial
from multiprocessing import get_context

import pytest
import torch
import torch.distributed as dist

from callbacks.metrics.distribution import (
    Samples,
    frechet_distance,
    kernel_distance,
    patches,
    to_8_bit,
)
from callbacks.metrics.table import FAST_METRICS, validation_names
from callbacks.metrics.temporal import Tlp, tof, tof_l1, tof_teco
from callbacks.quality_metrics import QualityMetrics
from experiments.fit.options import TrackingOptions
from lightning_modules.base import ValidationResult
from lightning_modules.perceptual import Lpips, UnavailableMetricError

small_kid = partial(kernel_distance, subset_size=5)


class ToyInception:
    size = 12

    def __call__(self, pictures):
        assert pictures.dtype == torch.uint8
        quarters = torch.nn.functional.adaptive_avg_pool2d(pictures.float() / 255, 2)
        return quarters.flatten(1)


def brightest(x_hat, clip):
    return x_hat.amax(dim=(-3, -2, -1))


@pytest.fixture
def toy(monkeypatch):
    room = "callbacks.metrics"
    monkeypatch.setattr("callbacks.quality_metrics.Inception", ToyInception)
    monkeypatch.setattr(f"{room}.distribution.check_inception", lambda: None)
    monkeypatch.setattr(f"{room}.distribution.kernel_distance", small_kid)
    monkeypatch.setattr("lightning_modules.perceptual.check_lpips", lambda net: None)
    monkeypatch.setattr(f"{room}.temporal.Lpips", lambda net: Lpips("random"))
    monkeypatch.setattr(
        "lightning_modules.perceptual.Lpips", lambda net: Lpips("random")
    )
    monkeypatch.setattr(f"{room}.brisque.check_brisque", lambda: None)
    monkeypatch.setattr(f"{room}.brisque.brisque", brightest)


class Model:
    """Keeps what is logged."""

    device = torch.device("cpu")

    def __init__(self):
        self.logged = {}

    def log(self, key, value, sync_dist):
        assert sync_dist
        self.logged[key] = float(value)


def results(clip, number):
    found = []
    for point, strength in (("qp21", 0.1), ("qp42", 0.03)):
        noise = torch.Generator().manual_seed(number)
        x_hat = clip + strength * torch.randn(clip.shape, generator=noise)
        bits = torch.ones(clip.shape[:2])
        name = f"clip {number}"
        found.append(ValidationResult(name, point, 1.0, clip, x_hat.clamp(0, 1), bits))
    return found


def make_clips(count=3, size=64):
    seed = torch.Generator().manual_seed(1)
    # Of unequal lengths: a rank's mean is not the mean of means.
    shapes = [(1, t, 3, size, size) for t in range(2, 2 + count)]
    return [torch.rand(shape, generator=seed) for shape in shapes]


def validate(callback, clips, model=None, testing=False):
    model = model or Model()
    trainer = types.SimpleNamespace(testing=testing)
    callback.setup(trainer, model, "validate")
    callback.on_validation_epoch_start(trainer, model)
    for number, clip in clips:
        callback.on_validation_batch_end(trainer, model, results(clip, number), None, 0)
    callback.on_validation_epoch_end(trainer, model)
    return model.logged


NAMES = ("psnr", "tof", "tof_l1", "tof_teco", "tlp", "brisque", "fid", "kid")


def test_values_are_those_of_all_clips_together(toy):
    clips = make_clips()
    logged = validate(QualityMetrics(NAMES), enumerate(clips))
    assert set(logged) == {
        f"val/{point}{name}" for point in ("", "qp21/", "qp42/") for name in NAMES
    }
    both = [r for n, clip in enumerate(clips) for r in results(clip, n)]
    own = [(r.x_hat, r.clip) for r in both if r.point == "qp21"]
    for name, function in (
        ("tof", tof),
        ("tof_l1", tof_l1),
        ("tof_teco", tof_teco),
        ("tlp", Tlp("random")),
    ):
        expected = torch.cat([function(*pair).flatten() for pair in own]).mean().item()
        assert expected > 0
        assert logged[f"val/qp21/{name}"] == pytest.approx(expected, rel=1e-5)
    extract = ToyInception()
    y, x = (
        torch.cat([extract(to_8_bit(pair[i])) for pair in own]).numpy() for i in (0, 1)
    )
    fid = frechet_distance(Samples([x]), Samples([y]))
    assert logged["val/qp21/fid"] == pytest.approx(fid, rel=1e-5)
    kid = small_kid(Samples([x]), Samples([y]))
    assert logged["val/qp21/kid"] == pytest.approx(kid, rel=1e-5)
    for name in NAMES:
        points = [logged[f"val/{point}/{name}"] for point in ("qp21", "qp42")]
        assert logged[f"val/{name}"] == pytest.approx(sum(points) / 2, rel=1e-5)


def test_clips_of_one_batch_are_each_compared_with_their_own_source(toy):
    clips = make_clips(2)
    expected = validate(QualityMetrics(["fid"]), enumerate(clips))
    callback, model = QualityMetrics(["fid"]), Model()
    trainer = types.SimpleNamespace(testing=False)
    callback.setup(trainer, model, "validate")
    both = [r for n, clip in enumerate(clips) for r in results(clip, n)]
    callback.on_validation_batch_end(trainer, model, both, None, 0)
    callback.on_validation_epoch_end(trainer, model)
    assert model.logged == pytest.approx(expected, rel=1e-9)


def test_squares_are_pooled_too(toy):
    clips = make_clips(2, size=256)
    names = ("fid_256", "kid_256")
    logged = validate(QualityMetrics(names), enumerate(clips), testing=True)
    extract = ToyInception()
    own = [r for n, clip in enumerate(clips) for r in results(clip, n)][::2]
    y, x = (
        torch.cat([extract(patches(to_8_bit(v))) for v in some]).numpy()
        for some in ([r.x_hat for r in own], [r.clip for r in own])
    )
    fid = frechet_distance(Samples([x]), Samples([y]))
    assert logged["test/qp21/fid_256"] == pytest.approx(fid, rel=1e-5)


def rank(number, clips, folder, names):
    """Validate on some of the clips as one of three processes."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=3
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        callback = QualityMetrics(names)
        logged = validate(callback, clips)
    text = json.dumps([logged, callback.unavailable])
    (folder / f"{number}.json").write_text(text)
    dist.destroy_process_group()


def test_three_ranks_log_what_one_does_though_one_has_no_clip(toy, tmp_path):
    clips = list(enumerate(make_clips()))
    # Squares: all ranks find that there are none, and none waits for the others.
    names = (*NAMES, "fid_256")
    alone = QualityMetrics(names)
    expected = validate(alone, clips)
    shares = [[clips[1], clips[0]], [clips[2]], []]
    context = get_context("fork")
    processes = [
        context.Process(target=rank, args=(n, share, tmp_path, names))
        for n, share in enumerate(shares)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    for number in range(3):
        logged, lacking = json.loads((tmp_path / f"{number}.json").read_text())
        assert logged == pytest.approx(expected, rel=1e-6)
        if shares[number]:
            assert lacking.keys() == alone.unavailable.keys() == {"fid_256"}


def test_few_samples_are_a_caution_or_a_reason(toy, monkeypatch):
    name = "callbacks.metrics.distribution.kernel_distance"
    monkeypatch.setattr(name, kernel_distance)
    callback = QualityMetrics(("fid", "kid", "tof"))
    one_frame = torch.rand(1, 1, 3, 64, 64)
    with pytest.warns(UserWarning, match="metric unavailable"):
        logged = validate(callback, [(0, one_frame)])
    assert logged == {}
    assert "at least 2 samples, there is 1" in callback.unavailable["fid"]
    assert "1000 samples, there are 1" in callback.unavailable["kid"]
    assert "at least two frames" in callback.unavailable["tof"]
    with pytest.warns(UserWarning, match="fid is of 5 samples, below 2048 biased"):
        logged = validate(callback, enumerate(make_clips(2)))
    assert {"val/fid", "val/tof"} <= set(logged) and "val/kid" not in logged


def test_what_is_missing_is_reported_by_name_and_the_rest_is_logged(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "piq", None)
    callback = QualityMetrics(validation_names())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logged = validate(callback, enumerate(make_clips(1)))
    lacking = {"lpips", "tlp", "brisque", "fid", "kid", "fid_256", "kid_256"}
    assert set(callback.unavailable) == {*lacking, "ms_ssim"}
    assert "alexnet-owt-7be5be79.pth" in callback.unavailable["tlp"]
    said = [str(w.message) for w in caught if "metric unavailable" in str(w.message)]
    assert len(said) == len(callback.unavailable)
    assert {key for key in logged if key.count("/") == 1} == {
        "val/psnr", "val/psnr_yuv", "val/bpp", "val/tof", "val/tof_l1", "val/tof_teco",
    }  # fmt: skip


def test_a_frame_that_a_metric_is_not_defined_for_leaves_its_clip_out(toy, monkeypatch):
    def refuses_dark(x_hat, clip):
        if x_hat.shape[1] == 2:
            raise UnavailableMetricError("brisque is not defined")
        return brightest(x_hat, clip)

    monkeypatch.setattr("callbacks.metrics.brisque.brisque", refuses_dark)
    callback = QualityMetrics(["brisque"])
    with pytest.warns(UserWarning, match="clips like clip 0 are left out"):
        logged = validate(callback, enumerate(make_clips(2)))
    assert logged == validate(QualityMetrics(["brisque"]), [(1, make_clips(2)[1])])


def test_what_takes_long_is_not_measured_unless_asked_for():
    assert QualityMetrics().names == list(FAST_METRICS) == TrackingOptions().metrics
    assert not {"fid", "kid", "fid_256", "tof", "brisque"} & set(FAST_METRICS)


def test_means_keep_the_digits_of_float64():
    mean = QualityMetrics()._metric("qp21/psnr", torch.device("cpu"))
    mean.update(torch.tensor([1 / 3], dtype=torch.float64))
    assert mean.compute().item() == 1 / 3
