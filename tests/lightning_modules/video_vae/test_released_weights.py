"""Published weights of CV-VAE and LeanVAE: what is loaded, left out and refused."""

import argparse
import json

import pytest
import torch
from torch import nn

from experiments.fit.weights import init_from
from lightning_modules.video_vae.backbones import build_backbone
from lightning_modules.video_vae.cv_vae import CVVAE
from lightning_modules.video_vae.lean_vae import LeanVAE, LeanVAEWidths
from lightning_modules.video_vae.released import (
    LATENT_LAYERS,
    find_released,
    released_weights,
)
from released_weights_samples import (
    LEAN,
    WIDTH,
    Codec,
    cv_shapes,
    lean_shapes,
    random_state,
    save,
)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("cv_vae", cv_shapes(128, 4)),
        ("lean_vae", lean_shapes(LeanVAEWidths(128, 384, 2, 4, 2, 2), 4)),
    ],
)
def test_the_published_sizes_are_the_papers(name, shapes):
    with torch.device("meta"):
        backbone = build_backbone(name, "paper", 4)
        given = {key: torch.empty(shape) for key, shape in shapes.items()}
    wanted = Codec(backbone).state_dict()
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
    ("state", "backbone"),
    [
        (cv_shapes(), CVVAE(16, WIDTH)),
        (lean_shapes(), LeanVAE(16, LEAN)),
    ],
)
def test_with_another_latent_only_what_touches_it_stays_new(tmp_path, state, backbone):
    codec = Codec(backbone, nn.Linear(2, 2))
    before = {key: value.clone() for key, value in codec.state_dict().items()}
    report = init_from(codec, save(tmp_path, random_state(state)))
    after = codec.state_dict()
    same = {key for key, value in before.items() if torch.equal(value, after[key])}
    latent = {
        f"backbone.{name}" for name in LATENT_LAYERS if f"backbone.{name}" in before
    }
    assert same == latent | {"latent_codec.weight", "latent_codec.bias"}
    line = next(line for line in report.splitlines() if "newly initialised" in line)
    assert all(key in line for key in latent)
    assert "2 missing: latent_codec.bias, latent_codec.weight" in report


def test_a_training_checkpoint_gives_the_model_alone(tmp_path):
    state = random_state(lean_shapes())
    wrapped = {f"autoencoder.{key}": value for key, value in state.items()}
    wrapped["perceptual_model.net.weight"] = torch.zeros(3)
    wrapped["gan_loss.discriminator.main.0.weight"] = torch.zeros(3)
    wrapped["gan_loss.discriminator.main.0.bias"] = torch.zeros(3)
    backbones = [LeanVAE(5, LEAN), LeanVAE(5, LEAN)]
    init_from(Codec(backbones[0]), save(tmp_path, {"state_dict": state}))
    path = save(tmp_path, {"state_dict": wrapped, "epoch": 3}, "training.ckpt")
    report = init_from(Codec(backbones[1]), path)
    assert "gan_loss (2), perceptual_model (1), std_layer (2)" in report
    for key, value in backbones[0].state_dict().items():
        assert torch.equal(value, backbones[1].state_dict()[key]), key


def test_a_model_beside_another_with_a_longer_name_is_found():
    state = {k: torch.zeros(v) for k, v in cv_shapes().items()}
    state["constraint_decoder.up.0.block.0.conv1.weight"] = torch.zeros(1)
    released = find_released({key: state[key] for key in reversed(state)})
    assert released.left_out["constraint_decoder"] == 1
    assert "encoder.first.weight" in released.weights


@pytest.mark.parametrize(
    ("shapes", "backbone", "message"),
    [
        (cv_shapes(), LeanVAE(4, LEAN), "CV-VAE.*have cv_vae as its backbone"),
        (lean_shapes(), CVVAE(4, WIDTH), "LeanVAE.*have lean_vae as its backbone"),
        (cv_shapes(2 * WIDTH), CVVAE(4, WIDTH), "paper's size"),
        (cv_shapes(), CVVAE(4, WIDTH, half_3d=False), r"conv2\.weight.*same half_3d"),
        (cv_shapes(half_3d=False), CVVAE(4, WIDTH), r"conv2\.weight.*same half_3d"),
        (
            {"encoder.down_blocks.0.resnets.0.conv1.weight": (1,)},
            CVVAE(4, WIDTH),
            "vae3d_sd3.*vae3d_v1-1",
        ),
    ],
)
def test_published_weights_of_another_network_are_refused(
    tmp_path, shapes, backbone, message
):
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=f"released.ckpt: .*{message}"):
        init_from(Codec(backbone), save(tmp_path, random_state(shapes)))
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())


def test_published_weights_with_a_missing_layer_are_refused(tmp_path):
    state = random_state(lean_shapes())
    del state["encoder.low_layer.ffd_layer.1.0.weight"]
    with pytest.raises(ValueError, match=r"1 of them .*encoder\.low\.1\.norm\.weight"):
        init_from(Codec(LeanVAE(5, LEAN)), save(tmp_path, state))


def test_a_file_with_python_objects_is_refused_with_advice(tmp_path):
    content = {
        "state_dict": random_state(lean_shapes()),
        "hyper_parameters": argparse.Namespace(lr=1),
    }
    path = save(tmp_path, content)
    with pytest.raises(ValueError, match=r"argparse\.Namespace.*convert it once: "):
        init_from(Codec(LeanVAE(5, LEAN)), path)
    torch.save(torch.load(path, weights_only=False)["state_dict"], path)
    assert "weights loaded" in init_from(Codec(LeanVAE(5, LEAN)), path)


def test_a_file_that_is_no_state_dict_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds a list, not a state dict"):
        init_from(Codec(LeanVAE(5, LEAN)), save(tmp_path, [torch.zeros(1)]))


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


def test_weights_of_a_safetensors_file_are_loaded(tmp_path):
    state = random_state(lean_shapes())
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    path.write_bytes(safetensors(state))
    backbone = LeanVAE(5, LEAN)
    assert "released weights of LeanVAE" in init_from(Codec(backbone), path)
    phi = state["latent_bottleneck.phi"].half().float()
    assert torch.equal(backbone.encoder.sensing.weight, phi)
    step = state["latent_bottleneck.weights.1"].half().float()
    assert torch.equal(backbone.decoder.iterations[1].step, step)


@pytest.mark.parametrize("length", [4, 200, -1])
def test_a_damaged_safetensors_file_is_refused(tmp_path, length):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(random_state(lean_shapes()))[:length])
    with pytest.raises(ValueError, match=r"model\.safetensors: not a whole"):
        init_from(Codec(LeanVAE(5, LEAN)), path)
