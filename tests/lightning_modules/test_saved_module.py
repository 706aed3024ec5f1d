"""Lightning's own entry points, ``Trainer.test`` and ``load_from_checkpoint``."""

import pytest
import torch
from lightning.pytorch import Trainer

import lightning_modules
from callbacks.error_accumulation import ErrorAccumulation
from callbacks.quality_metrics import QualityMetrics
from datamodules.options import DataOptions
from datamodules.video import VideoDataModule

CODECS = lightning_modules.CODECS

GIVEN = {
    "DHVC": {"lmbda_range": (300, 900), "lmbda_sampling": "cube_root"},
    "DualDomain": {"distortion": "yuv"},
    "UI2C": {"lmbda_range": (2.0, 99.0), "frames_per_unit": 1},
    "VideoVAE": {"backbone": "lean_vae", "lpips": "random", "lmbda": 0.07},
}
"""Arguments of the network and of training that are not the defaults."""


@pytest.fixture(params=CODECS)
def module(request, lively_module):
    return lively_module(request.param, **GIVEN.get(request.param, {}))


@pytest.fixture
def save(tmp_path):
    """Save a module as a Trainer does; return the path."""

    def save(module, **changes):
        trainer = Trainer(accelerator="cpu", logger=False)
        trainer.strategy.connect(module)
        path = tmp_path / "last.ckpt"
        trainer.save_checkpoint(path)
        checkpoint = torch.load(path, weights_only=True) | changes
        torch.save({k: v for k, v in checkpoint.items() if v is not None}, path)
        return path

    return save


def averages(module):
    """Return weights that are not the module's."""
    return {name: p.detach() * 0.9 for name, p in module.codec.named_parameters()}


def data(frames=2):
    clips = {"val_clips": 1, "val_frames": frames, "val_crop": 64, "workers": 0}
    return VideoDataModule(DataOptions(source="synthetic", **clips))


def trainer(*callbacks):
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[QualityMetrics(["psnr", "bpp"]), *callbacks],
    )


def test_a_checkpoint_rebuilds_its_module_and_tests_as_it_validated(module, save):
    (validated,) = trainer().validate(module, data(), verbose=False)
    loaded = type(module).load_from_checkpoint(save(module))
    assert loaded.codec.architecture == module.codec.architecture
    assert dict(loaded.hparams) == dict(module.hparams)
    given = {"size": "tiny", **GIVEN.get(type(module).__name__, {})}
    assert {key: loaded.hparams[key] for key in given} == given
    assert loaded.codec.fingerprint() == module.codec.fingerprint()
    (tested,) = trainer().test(loaded, data(), verbose=False)
    points = [f"test/{point}" for point in module.rate_points()]
    assert {"test/loss", "test/psnr", "test/bpp"} < tested.keys()
    assert {f"{p}/{n}" for p in points for n in ("psnr", "bpp")} < tested.keys()
    assert tested == {k.replace("val/", "test/"): v for k, v in validated.items()}
    assert 0 < tested["test/loss"] and 0 < tested["test/bpp"]


def test_averaged_weights_are_loaded_and_tested_but_training_goes_on_without(
    lively_module, save
):
    module = lively_module("UI2C")
    ema = averages(module)
    path = save(module, ema=ema)
    loaded = type(module).load_from_checkpoint(path)
    assert all(torch.equal(p, ema[n]) for n, p in loaded.codec.named_parameters())
    given = {name: p.detach().clone() for name, p in module.codec.named_parameters()}
    (by_path,) = trainer().test(module, data(), ckpt_path=path, verbose=False)
    assert all(torch.equal(p, ema[n]) for n, p in module.codec.named_parameters())
    assert by_path == trainer().test(loaded, data(), verbose=False)[0]
    checkpoint = torch.load(path, weights_only=True)
    fitting = trainer()
    fitting.state.fn = "fit"
    module.trainer = fitting
    module.on_load_checkpoint(checkpoint)
    state = checkpoint["state_dict"]
    assert all(torch.equal(state[f"codec.{n}"], p) for n, p in given.items())


def test_errors_that_add_up_are_tested_too(lively_module):
    module = lively_module("UI2C")
    (tested,) = trainer(ErrorAccumulation()).test(module, data(16), verbose=False)
    ends = (tested["test/psnr_first8"], tested["test/psnr_last8"])
    assert tested["test/psnr_drop"] == pytest.approx(ends[0] - ends[1], abs=1e-4)


def test_arguments_may_be_others(lively_module, save):
    module = lively_module("VideoVAE", **GIVEN["VideoVAE"])
    path = save(module)
    loaded = type(module).load_from_checkpoint(path, overlap=False, beta=0.5)
    assert not loaded.codec.coding.gop_overlap
    assert loaded.factors["lpips"] == loaded.hparams["beta"] == 0.5
    assert loaded.codec.architecture["lmbda"] == 0.07


def test_a_checkpoint_without_arguments_needs_them(lively_module, save):
    module = lively_module("UI2C", **GIVEN["UI2C"])
    path = save(module, hyper_parameters=None)
    with pytest.raises(ValueError, match="arguments of UI2C") as error:
        type(module).load_from_checkpoint(path)
    message = str(error.value)
    assert "lightning_modules.load_codec(path), or pass the arguments" in message
    assert "config.yaml" in message and "\n" not in message
    loaded = type(module).load_from_checkpoint(path, lmbda_range=(2.0, 99.0))
    assert loaded.codec.architecture == module.codec.architecture
    assert dict(loaded.hparams) == dict(module.hparams)


def test_another_codecs_checkpoint_and_none_are_refused(lively_module, save, tmp_path):
    path = save(lively_module("DHVC"))
    with pytest.raises(ValueError, match=r"of DHVC, not of UI2C: call DHVC\.load_from"):
        lightning_modules.UI2C.load_from_checkpoint(path)
    with pytest.raises(ValueError, match=r"there is no checkpoint .*none\.ckpt"):
        lightning_modules.UI2C.load_from_checkpoint(tmp_path / "none.ckpt")
    path.write_text("a note")
    with pytest.raises(
        ValueError, match=r"is not a checkpoint: it begins with b'a note'"
    ):
        lightning_modules.UI2C.load_from_checkpoint(path)


def test_a_former_argument_of_the_codec_says_how_it_codes(lively_module, save):
    module = lively_module("UI2C")
    module.codec.architecture["refresh"] = 8
    path = save(module, hyper_parameters=None)
    named = {**module.codec.architecture, "refresh": 8}
    for loaded in (
        lightning_modules.load_codec(path),
        type(module).load_from_checkpoint(path, hybrid_references=True).codec,
        # Saved once more, it is the same network.
        type(module).load_from_checkpoint(save(module)).codec,
    ):
        assert loaded.coding.refresh == 8 and loaded.architecture == named
    other = type(module).load_from_checkpoint(path, refresh=2)
    assert other.codec.coding.refresh == other.codec.architecture["refresh"] == 2
    assert "refresh" not in other.hparams


def test_arguments_that_a_checkpoint_does_not_name_yet_stay_unnamed(
    lively_module, save
):
    module = lively_module("VideoVAE", lpips="random")
    del module.codec.architecture["z_prior"]
    path = save(module, hyper_parameters=None)
    codec = lightning_modules.load_codec(path)
    assert codec.fingerprint() == module.codec.fingerprint()
    loaded = type(module).load_from_checkpoint(path, lpips="random")
    assert loaded.codec.fingerprint() == codec.fingerprint()
    named = type(module).load_from_checkpoint(path, z_prior="scalar").codec
    assert named.architecture == {**codec.architecture, "z_prior": "scalar"}
