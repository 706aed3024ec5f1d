"""A file that is no checkpoint of the suite goes to the codecs' ``from_released``."""

from pathlib import Path

import pytest
import torch

from lightning_modules import CODECS, codec_class, load_codec


@pytest.fixture
def published(monkeypatch):
    """Let UI2C know weights whose only tensor is called ``published.scale``."""
    kind = codec_class("UI2C")

    def from_released(cls, weights, path):
        if "published.scale" not in weights:
            return None
        if not weights["published.scale"].numel():
            raise ValueError("the published scale is empty")
        codec = cls("tiny")
        codec.trained_with = {"released": path.name}
        return codec

    monkeypatch.setattr(kind, "from_released", classmethod(from_released))
    return "published.scale"


@pytest.mark.parametrize("entry", ["", "state_dict", "net", "model"])
def test_published_weights_become_their_codec_wherever_they_stand(
    published, entry, tmp_path
):
    path = tmp_path / "published.pth.tar"
    weights = {published: torch.ones(1)}
    torch.save({entry: weights, "epoch": 3} if entry else weights, path)
    codec = load_codec(path)
    assert codec.trained_with == {"released": path.name}
    assert not codec.training
    assert not any(each.requires_grad for each in codec.parameters())


def test_an_error_of_published_weights_names_the_file(published, tmp_path):
    path = tmp_path / "published.pth.tar"
    torch.save({published: torch.ones(0)}, path)
    with pytest.raises(ValueError, match=r"published\.pth\.tar: the published scale"):
        load_codec(path)


def test_weights_that_no_codec_knows_are_no_checkpoint(published, tmp_path):
    path = tmp_path / "other.pth.tar"
    torch.save({"weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"other\.pth\.tar is no checkpoint"):
        load_codec(path)


@pytest.mark.parametrize(
    "contents", [{"state_dict": [1]}, {"state_dict": {}}, {"model": 3}, {}]
)
def test_entries_that_are_no_weights_are_no_checkpoint(tmp_path, contents):
    path = tmp_path / "other.pth.tar"
    torch.save(contents, path)
    with pytest.raises(ValueError, match=r"other\.pth\.tar is no checkpoint"):
        load_codec(path)


# What each codec knows, and what it leaves to the others.

TELLING = {
    "dec_blocks.0.tcp.enc1.0.weight": "DHVC",
    "motion_hyperprior.entropy_bottleneck.quantiles": "ScaleSpaceFlow",
    "decoder.up.0.block.0.conv1.weight": "VideoVAE",
    "latent_bottleneck.phi": "VideoVAE",
    "recon_generation_net.head.weight": "UI2C",
}
"""Keys of published weights, and whose they are."""


ARGUMENTS = {"UI2C": {"frames_per_unit": 1, "input_offset": 0.0}}
"""Of a network that published weights could be of."""


@pytest.fixture(scope="module")
def codecs(lively_module):
    return {
        name: lively_module(name, **ARGUMENTS.get(name, {})).codec for name in CODECS
    }


@pytest.mark.parametrize("name", CODECS)
def test_weights_of_another_codec_are_none_of_its_published_ones(codecs, name):
    codec = codecs[name]
    for other in codecs.values():
        weights = other.state_dict()
        assert codec.find_released(weights) is None
        assert type(codec).from_released(weights, Path("other.ckpt")) is None
    for key, owner in TELLING.items():
        if owner != name:
            weights = {key: torch.ones(2, 2), "weight": torch.ones(1)}
            assert codec.find_released(weights) is None
            assert type(codec).from_released(weights, Path("other.ckpt")) is None


@pytest.mark.parametrize("key", TELLING)
def test_published_weights_of_a_damaged_shape_are_one_error(codecs, tmp_path, key):
    weights = {key: torch.ones(2, 2)}
    with pytest.raises(ValueError, match=r"\d+ of them do not fit") as told:
        codecs[TELLING[key]].find_released(weights)
    assert "\n" not in str(told.value) and len(str(told.value)) < 400
    path = tmp_path / "ssf2020-mse-4-damaged.pth.tar"
    torch.save(weights, path)
    with pytest.raises(ValueError, match=rf"{path.name}: these are (the )?released"):
        load_codec(path)


def test_all_of_a_codecs_published_weights_but_one_shape_are_one_error(codecs):
    codec = codecs["ScaleSpaceFlow"]
    weights = dict(codec.network.state_dict())
    assert codec.find_released(weights).kind == "ssf2020"
    weights["res_encoder.0.weight"] = weights["res_encoder.0.weight"][..., :-1]
    with pytest.raises(ValueError, match=r"and 1 of them .*res_encoder\.0\.weight"):
        codec.find_released(weights)
