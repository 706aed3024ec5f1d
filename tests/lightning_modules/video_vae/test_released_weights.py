"""Published weights of CV-VAE and LeanVAE: what is loaded, left out and refused."""

import argparse
import json
import os

import pytest
import torch
from torch import nn

from experiments.fit.weights import init_from
from lightning_modules import load_codec
from lightning_modules.video_vae.backbones import build_backbone
from lightning_modules.video_vae.cv_vae import CVVAE
from lightning_modules.video_vae.lean_vae import LeanVAE, LeanVAEWidths
from lightning_modules.video_vae.released import (
    LATENT_LAYERS,
    find_released,
    released_weights,
)


class Videos:
    """A class of somebody's training, which is not importable here."""

    def __init__(self, files):
        self.files = files


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize(
    ("name", "shapes_of"),
    [
        ("cv_vae", lambda r: r.cv_shapes(128, 4)),
        ("lean_vae", lambda r: r.lean_shapes(LeanVAEWidths(128, 384, 2, 4, 2, 2), 4)),
    ],
)
def test_the_published_sizes_are_the_papers(released, name, shapes_of):
    shapes = shapes_of(released)
    with torch.device("meta"):
        backbone = build_backbone(name, "paper", 4)
        given = {key: torch.empty(shape) for key, shape in shapes.items()}
    wanted = released.Codec(backbone).state_dict()
    released = released_weights(given, wanted).weights
    assert {k: v.shape for k, v in released.items()} == {
        k: v.shape for k, v in wanted.items() if k.startswith("backbone.")
    }
    norms = [m for m in backbone.modules() if isinstance(m, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == ({32} if name == "cv_vae" else set())
    # Published: 182 M and 39.8 M, with the heads that are left out.
    millions = sum(tensor.numel() for tensor in given.values()) / 1e6
    assert round(millions, 2) == {"cv_vae": 182.45, "lean_vae": 39.77}[name]


@pytest.mark.parametrize(
    "of",
    [
        lambda r: (r.cv_shapes(), CVVAE(16, r.WIDTH)),
        lambda r: (r.lean_shapes(), LeanVAE(16, r.LEAN)),
    ],
    ids=["cv_vae", "lean_vae"],
)
def test_with_another_latent_only_what_touches_it_stays_new(released, tmp_path, of):
    shapes, backbone = of(released)
    codec = released.Codec(backbone, nn.Linear(2, 2))
    before = {key: value.clone() for key, value in codec.state_dict().items()}
    report = init_from(codec, released.save(tmp_path, released.random_state(shapes)))
    after = codec.state_dict()
    same = {key for key, value in before.items() if torch.equal(value, after[key])}
    latent = {
        f"backbone.{name}" for name in LATENT_LAYERS if f"backbone.{name}" in before
    }
    assert same == latent | {"latent_codec.weight", "latent_codec.bias"}
    line = next(line for line in report.splitlines() if "newly initialised" in line)
    assert all(key in line for key in latent)
    assert "2 missing: latent_codec.bias, latent_codec.weight" in report


def test_a_training_checkpoint_gives_the_model_alone(released, tmp_path):
    state = released.random_state(released.lean_shapes())
    wrapped = {f"autoencoder.{key}": value for key, value in state.items()}
    wrapped["perceptual_model.net.weight"] = torch.zeros(3)
    wrapped["gan_loss.discriminator.main.0.weight"] = torch.zeros(3)
    wrapped["gan_loss.discriminator.main.0.bias"] = torch.zeros(3)
    backbones = [LeanVAE(5, released.LEAN), LeanVAE(5, released.LEAN)]
    init_from(
        released.Codec(backbones[0]), released.save(tmp_path, {"state_dict": state})
    )
    path = released.save(tmp_path, {"state_dict": wrapped, "epoch": 3}, "training.ckpt")
    report = init_from(released.Codec(backbones[1]), path)
    assert "gan_loss (2), perceptual_model (1), std_layer (2)" in report
    for key, value in backbones[0].state_dict().items():
        assert torch.equal(value, backbones[1].state_dict()[key]), key


def test_a_model_beside_another_with_a_longer_name_is_found(released):
    state = {k: torch.zeros(v) for k, v in released.cv_shapes().items()}
    state["constraint_decoder.up.0.block.0.conv1.weight"] = torch.zeros(1)
    released = find_released({key: state[key] for key in reversed(state)})
    assert released.left_out["constraint_decoder"] == 1
    assert "encoder.first.weight" in released.weights


@pytest.mark.parametrize(
    ("given", "model", "message"),
    [
        ("cv", "lean", "CV-VAE.*have cv_vae as its backbone"),
        ("lean", "cv", "LeanVAE.*have lean_vae as its backbone"),
        ("wide cv", "cv", "paper's size"),
        ("cv", "whole cv", r"conv2\.weight.*same half_3d"),
        ("whole cv", "cv", r"conv2\.weight.*same half_3d"),
        ("other cv", "cv", "vae3d_sd3.*vae3d_v1-1"),
    ],
)
def test_published_weights_of_another_network_are_refused(
    released, tmp_path, given, model, message
):
    width = released.WIDTH
    shapes = {
        "cv": released.cv_shapes(),
        "wide cv": released.cv_shapes(2 * width),
        "whole cv": released.cv_shapes(half_3d=False),
        "other cv": {"encoder.down_blocks.0.resnets.0.conv1.weight": (1,)},
        "lean": released.lean_shapes(),
    }[given]
    backbone = {
        "cv": CVVAE(4, width),
        "whole cv": CVVAE(4, width, half_3d=False),
        "lean": LeanVAE(4, released.LEAN),
    }[model]
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=f"released.ckpt: .*{message}"):
        init_from(
            released.Codec(backbone),
            released.save(tmp_path, released.random_state(shapes)),
        )
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())


@pytest.mark.parametrize("kind", ["cv_vae", "lean_vae"])
def test_a_backbone_alone_is_no_checkpoint_and_the_way_to_one_is_said(
    released, tmp_path, kind
):
    shapes = released.cv_shapes() if kind == "cv_vae" else released.lean_shapes()
    path = tmp_path / "vae.safetensors"
    path.write_bytes(safetensors(released.random_state(shapes)))
    with pytest.raises(
        ValueError, match=r"safetensors: these are .* code nothing yet"
    ) as told:
        load_codec(path)
    line = str(told.value)
    assert "\n" not in line and line.endswith(f"--init_from {path}")
    assert ("ablations/video_vae/lean_vae" in line) is (kind == "lean_vae")


def test_published_weights_with_a_missing_layer_are_refused(released, tmp_path):
    state = released.random_state(released.lean_shapes())
    del state["encoder.low_layer.ffd_layer.1.0.weight"]
    with pytest.raises(ValueError, match=r"1 of them .*encoder\.low\.1\.norm\.weight"):
        init_from(
            released.Codec(LeanVAE(5, released.LEAN)), released.save(tmp_path, state)
        )


TELLING = "decoder.up.0.block.0.conv1.weight"


@pytest.mark.parametrize(
    "part",
    [
        {TELLING: torch.ones(1)},
        {TELLING: torch.ones(1), "decoder.conv_in.weight": torch.ones(())},
        {TELLING: torch.ones(1), "decoder.conv_in.weight": torch.ones(2, 2)}
        | {"encoder.conv_out.bias": torch.ones(())},
    ],
)
def test_a_part_of_published_weights_is_refused(released, tmp_path, part):
    path = tmp_path / "part.ckpt"
    torch.save(part, path)
    with pytest.raises(ValueError, match=r"weights of CV-VAE, and \d+ of them do"):
        init_from(released.Codec(LeanVAE(5, released.LEAN)), path)


def test_a_training_checkpoint_with_python_objects_needs_no_conversion(
    released, tmp_path
):
    # What Lightning saves beside the weights: options, and the data module itself.
    content = {
        "state_dict": released.random_state(released.lean_shapes()),
        "hyper_parameters": {"args": argparse.Namespace(lr=1), "data": Videos("a.txt")},
    }
    path = released.save(tmp_path, content)
    codec = released.Codec(LeanVAE(5, released.LEAN))
    assert "released weights of LeanVAE" in init_from(codec, path)
    phi = content["state_dict"]["latent_bottleneck.phi"]
    assert torch.equal(codec.backbone.encoder.sensing.weight, phi)


def test_python_objects_that_no_training_writes_are_refused_with_advice(
    released, tmp_path
):
    state = released.random_state(released.lean_shapes())
    path = released.save(tmp_path, {"state_dict": state, "harm": Evil()})
    with pytest.raises(ValueError, match=r"posix\.system.*convert it once: "):
        init_from(released.Codec(LeanVAE(5, released.LEAN)), path)


def test_a_file_that_is_no_state_dict_is_refused(released, tmp_path):
    with pytest.raises(ValueError, match="holds a list, not a state dict"):
        init_from(
            released.Codec(LeanVAE(5, released.LEAN)),
            released.save(tmp_path, [torch.zeros(1)]),
        )


def safetensors(state, dtype=torch.float16):
    """The bytes of a file of published weights, written from the format's text."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for key, value in state.items():
        raw = value.to(dtype).numpy().tobytes()
        header[key] = {
            "dtype": "F16",
            "shape": list(value.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def test_weights_of_a_safetensors_file_are_loaded(released, tmp_path):
    state = released.random_state(released.lean_shapes())
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    path.write_bytes(safetensors(state))
    backbone = LeanVAE(5, released.LEAN)
    assert "released weights of LeanVAE" in init_from(released.Codec(backbone), path)
    phi = state["latent_bottleneck.phi"].half().float()
    assert torch.equal(backbone.encoder.sensing.weight, phi)
    step = state["latent_bottleneck.weights.1"].half().float()
    assert torch.equal(backbone.decoder.iterations[1].step, step)


@pytest.mark.parametrize("length", [4, 200, -1])
def test_a_damaged_safetensors_file_is_refused(released, tmp_path, length):
    path = tmp_path / "model.safetensors"
    path.write_bytes(
        safetensors(released.random_state(released.lean_shapes()))[:length]
    )
    with pytest.raises(ValueError, match=r"model\.safetensors: is not a whole"):
        init_from(released.Codec(LeanVAE(5, released.LEAN)), path)
