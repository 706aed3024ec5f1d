"""What a VideoVAE codec can be built with and set to, and how large it is."""

import re
from pathlib import Path

import pytest
import torch

from experiments.profile import command as profile
from lightning_modules.ui2c.codec import UI2CCodec
from lightning_modules.video_vae.codec import VideoVAECodec

CONFIGS = Path(__file__).parents[3] / "experiments" / "configs"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gop_batch": 0}, "gop_batch is 0"),
        ({"tile": 100}, "a multiple of 8"),
        ({"tile": 1 << 16}, "65536"),
        ({"gop": 4}, "cannot set gop"),
    ],
)
def test_options_that_make_no_sense_are_refused(codec, options, message):
    with pytest.raises(ValueError, match=message):
        codec.configure(**options)
    with pytest.raises(ValueError, match=f"UI2C cannot set {next(iter(options))}"):
        UI2CCodec("tiny").configure(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "huge"}, "'huge' is unknown"),
        ({"channels": 40}, "channels is 40"),
        ({"halvings": 3}, "halvings is 3"),
        ({"frames_per_unit": 8}, "frames_per_unit is 8"),
        ({"frames_per_unit": 1}, "frames_per_unit is 1"),
        ({"lmbda": 0.0}, "lmbda is 0"),
    ],
)
def test_an_impossible_architecture_is_refused(video_vae, arguments, message):
    with pytest.raises(ValueError, match=message):
        VideoVAECodec(**{"size": "tiny", **video_vae.SMALL, **arguments})


def test_the_rate_is_the_models_lambda_and_nothing_else(video_vae):
    codec = video_vae.lively(lmbda=0.05)
    assert codec.rate_knob.points == (0.05,)
    for rate in (0.04, 0.06):
        with pytest.raises(ValueError, match=r"lmbda.*0\.05"):
            list(codec.compress(video_vae.scene(1), rate))


def shipped(ablation=None):
    configs = ["video_vae.yaml"]
    if ablation:
        configs.append(f"ablations/video_vae/{ablation}.yaml")
    with torch.device("meta"):
        return profile.build_codec([str(CONFIGS / name) for name in configs])


@pytest.mark.parametrize(
    ("ablation", "parameters", "kmacs"),
    [
        (None, 13.3, 20.4),
        ("channels_64", 4.44, 6.5),
        ("channels_192", 27.5, 42.8),
        ("latent_stride_8", 11.3, 52.3),
        ("latent_stride_32", 15.3, 12.4),
    ],
)
def test_the_latent_codec_has_the_designs_complexity(ablation, parameters, kmacs):
    codec = shipped(ablation)
    found = sum(p.numel() for p in codec.latent_codec.parameters())
    assert found / 1e6 == pytest.approx(parameters, rel=0.01)
    # The design ran each group's spatial context twice, which took 2 %.
    del codec.backbone
    codec.backbone = torch.nn.Identity()
    codec.backbone.encode = codec.backbone.decode = lambda x: x
    run = codec.passes(256, 256)["latent_codec"]
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        with torch.no_grad():
            run()
    measured = counter.get_total_flops() / 2 / (9 * 256 * 256) / 1e3
    assert measured == pytest.approx(kmacs, rel=0.03)


def test_profile_prints_the_latent_codecs_share(capsys):
    arguments = ["--config", str(CONFIGS / "video_vae.yaml"), "--config"]
    arguments += [str(CONFIGS / "ablations/video_vae/lean_vae.yaml")]
    assert profile.main([*arguments, "--height", "256", "--width", "256"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"encode +decode +latent_codec", said)
    assert re.search(r"latent_codec\.context +4,604,437", said)
    kmacs = re.search(r"all +53,208,857 +([\d.]+) +([\d.]+) +20\.0\d ", said)
    encode_, decode_ = map(float, kmacs.groups())
    assert encode_ == pytest.approx(59.2 + 13.6, rel=0.01)
    assert decode_ == pytest.approx(148.5 + 15.6, rel=0.01)
