"""A file that is no checkpoint of the suite goes to the codecs' ``from_released``."""

import pytest
import torch

from lightning_modules import codec_class, load_codec


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
