"""Metrics of validation that need pairs of frames, networks, or all clips at once."""

import json
import os
import socket
import sys
import types
import warnings
from functools import partial
from multiprocessing import get_context

import pytest
import torch
import torch.distributed as dist
import torchvision
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn

import lightning_modules
from callbacks.metrics import temporal
from callbacks.metrics.distribution import (
    Samples,
    frechet_distance,
    inception_file,
    kernel_distance,
    patches,
    to_8_bit,
)
from callbacks.metrics.table import DEFAULT_METRICS, validation_names
from callbacks.metrics.temporal import Tlp, tof, tof_l1, tof_teco
from callbacks.quality_metrics import QualityMetrics
from experiments.fit.options import TrackingOptions
from lightning_modules.base import ValidationResult
from lightning_modules.perceptual import Lpips, UnavailableMetricError, lpips_file
from lightning_modules.stages import Stage

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
    monkeypatch.setattr(f"{room}.pools.Inception", ToyInception)
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


def make_trainer(testing=False, step=None, last=None):
    fn = "test" if testing else "validate" if step is None else "fit"
    state = types.SimpleNamespace(fn=TrainerFn(fn))
    at = {"global_step": step, "max_steps": last}
    return types.SimpleNamespace(
        testing=testing, state=state, callback_metrics={}, **at
    )


def validate(callback, clips, testing=False):
    model, trainer = Model(), make_trainer(testing)
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
        *(f"val/{point}{name}" for point in ("", "qp21/", "qp42/") for name in NAMES),
        *("val/fid_samples", "val/kid_samples"),
    }
    assert logged["val/fid_samples"] == sum(clip.shape[1] for clip in clips)
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
    trainer = make_trainer()
    callback.setup(trainer, model, "validate")
    callback.on_validation_epoch_start(trainer, model)
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


def test_a_source_is_looked_at_once_for_all_points(toy, monkeypatch):
    seen = {"inception": 0, "flow": 0, "lpips": 0}

    def counted(name, function):
        def call(*arguments):
            seen[name] += 1
            return function(*arguments)

        return call

    monkeypatch.setitem(temporal.FLOWS, "dis", counted("flow", temporal.dis_flow))
    look = counted("inception", ToyInception.__call__)
    monkeypatch.setattr(ToyInception, "__call__", look)
    random = Lpips("random")
    monkeypatch.setattr(
        "callbacks.metrics.temporal.Lpips", lambda net: counted("lpips", random)
    )
    names = ["tof", "tof_l1", "tlp", "fid"]
    validate(QualityMetrics(names), enumerate(make_clips(1)))
    # Of two frames and two points: the source and both reconstructions, for both norms.
    assert seen == {"inception": 3, "flow": 3, "lpips": 3}


def test_what_costs_most_has_its_interval_and_ends_a_stage(toy):
    def pooled(callback, step):
        trainer, model = make_trainer(step=step, last=9), Model()
        callback.on_validation_epoch_start(trainer, model)
        outputs = results(make_clips(1)[0], 0)
        callback.on_validation_batch_end(trainer, model, outputs, None, 0)
        callback.on_validation_epoch_end(trainer, model)
        assert "val/psnr" in model.logged
        return "val/fid" in model.logged

    def stage(callback, steps):
        return [step for step in steps if pooled(callback, step)]

    def start(every):
        callback = QualityMetrics(["psnr", "fid"], pooled_every_n_validations=every)
        callback.setup(make_trainer(step=0, last=9), Model(), "fit")
        return callback

    assert stage(start(1), range(10)) == [*range(10)]
    assert stage(start(0), range(10)) == [9]
    callback = start(3)
    assert stage(callback, range(2)) == [0]
    # It is stopped, goes on, and has another stage after that.
    again = start(3)
    again.load_state_dict(callback.state_dict())
    assert stage(again, range(2, 10)) == [3, 6, 9]
    again.setup(make_trainer(step=0, last=9), Model(), "fit")
    assert stage(again, range(2)) == [0]
    assert "val/fid" in validate(again, enumerate(make_clips(1)))


def test_what_a_validation_does_not_measure_is_not_taken_from_the_one_before(
    tiny_module, fit
):
    seen = []

    class First(Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            if not seen:
                pl_module.log("val/fid", 1.0)

        def on_validation_end(self, trainer, pl_module):
            seen.append({"val/fid", "val/psnr"} & trainer.callback_metrics.keys())

    fit(tiny_module(), QualityMetrics(["psnr"]), First())
    assert seen == [{"val/fid", "val/psnr"}, {"val/psnr"}]


def rank(number, clips, folder, names, torch_home=None):
    """Validate on some of the clips as one of several processes."""
    if torch_home:
        os.environ["TORCH_HOME"] = str(torch_home[number])
    socket.gethostname = lambda: f"node{number}"
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=number,
        world_size=len(clips),
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        callback = QualityMetrics(names, lpips_net="squeeze")
        logged = validate(callback, clips[number])
    said = [str(warning.message) for warning in caught]
    text = json.dumps([logged, callback.unavailable, said])
    (folder / f"{number}.json").write_text(text)
    dist.destroy_process_group()


def in_ranks(shares, folder, names, *rest):
    """Validate as one process for each share; return what each has found."""
    processes = [
        get_context("fork").Process(target=rank, args=(n, shares, folder, names, *rest))
        for n in range(len(shares))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return [json.loads((folder / f"{n}.json").read_text()) for n in range(len(shares))]


def test_three_ranks_log_what_one_does_though_one_has_no_clip(toy, tmp_path):
    clips = list(enumerate(make_clips()))
    # Squares: all ranks find that there are none, and none waits for the others.
    names = (*NAMES, "fid_256")
    expected = validate(QualityMetrics(names), clips)
    shares = [[clips[1], clips[0]], [clips[2]], []]
    for logged, lacking, _ in in_ranks(shares, tmp_path, names):
        assert logged == pytest.approx(expected, rel=1e-6)
        # Also where there was no clip.
        assert lacking.keys() == {"fid_256"}
        assert "on node0, node1: " in lacking["fid_256"]
        assert "clips like clip 1 are left out" in lacking["fid_256"]


def test_a_rank_without_the_weights_changes_no_value_and_ends_no_job(tmp_path):
    """On all ranks, what one machine lacks is left out, and said with its name."""
    file = tmp_path / "there" / "hub" / "checkpoints" / lpips_file("squeeze").name
    file.parent.mkdir(parents=True)
    squeeze = torchvision.models.squeezenet1_1(weights=None).state_dict()
    torch.save(squeeze, file)
    file.with_name(inception_file().name).touch()
    clips = list(enumerate(make_clips()))
    names = ["psnr", "lpips", "tlp", "fid", "tof"]
    found = in_ranks(
        [clips[:1], clips[1:]],
        tmp_path,
        names,
        [tmp_path / "there", tmp_path / "nowhere"],
    )
    expected = validate(QualityMetrics(["psnr", "tof"]), clips)
    for logged, lacking, said in found:
        assert logged == pytest.approx(expected, rel=1e-6)
        assert lacking.keys() == {"lpips", "tlp", "fid"}
        assert lacking["lpips"].startswith("on node1: lpips needs the backbone weights")
        assert str(tmp_path / "nowhere") in lacking["fid"]
        # Lightning lets rank 0 alone say it.
        for names in ("lpips, tlp", "fid"):
            own = [line for line in said if f"unavailable: {names}: on" in line]
            assert len(own) == 1


def refuse(number, folder):
    """Train with LPIPS as one of two ranks, of which the second has no weights."""
    os.environ["TORCH_HOME"] = str(folder / f"{number}")
    socket.gethostname = lambda: f"node{number}"
    module = lightning_modules.UI2C(size="tiny", lpips="squeeze")
    module.start_stage(Stage("row", 1, 5, weights={"lpips": 0.5}), 0, 1, 0)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2
    )
    try:
        module.setup("fit")
    except UnavailableMetricError as error:
        (folder / f"{number}.txt").write_text(str(error))
    dist.destroy_process_group()


def test_a_loss_that_one_rank_cannot_compute_ends_all_of_them(tmp_path):
    file = tmp_path / "0" / "hub" / "checkpoints" / lpips_file("squeeze").name
    file.parent.mkdir(parents=True)
    file.touch()
    context = get_context("fork")
    ranks = [context.Process(target=refuse, args=(n, tmp_path)) for n in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    for number in range(2):
        said = (tmp_path / f"{number}.txt").read_text()
        assert said.startswith("on node1: lpips needs the backbone weights")
        assert f"{tmp_path}/1/hub" in said and "--model.lpips random" in said


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
    # One line for each reason.
    assert len(said) == len(set(callback.unavailable.values())) == 4
    assert any("unavailable: lpips, tlp: lpips needs" in line for line in said)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        callback.setup(make_trainer(), Model(), "fit")
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


def test_all_six_families_are_measured_unless_told_otherwise():
    assert QualityMetrics().names == list(DEFAULT_METRICS) == TrackingOptions().metrics
    families = {"psnr", "ms_ssim", "lpips", "fid", "tof", "tlp"}
    assert families <= set(DEFAULT_METRICS)


def test_means_keep_the_digits_of_float64():
    mean = QualityMetrics()._metric("qp21/psnr", torch.device("cpu"))
    mean.update(torch.tensor([1 / 3], dtype=torch.float64))
    assert mean.compute().item() == 1 / 3
