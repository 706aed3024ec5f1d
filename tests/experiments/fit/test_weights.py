"""Files that no run can start from are refused with the reason."""

import json

import pytest
import torch
from torch import nn

from experiments.fit.weights import init_from

NAN, INF = float("nan"), float("inf")


def codec():
    network = nn.Sequential(nn.Linear(2, 2))
    network.find_released = lambda weights: None
    return network


def right(**change):
    return {**codec().state_dict(), **change}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": 5}, "'state_dict' is of type int, not a state dict"),
        ({"state_dict": {5: torch.ones(1)}}, "'state_dict' has the key 5, which is "),
        (
            {"state_dict": {"codec.a": 5}},
            "'state_dict' has under 'codec.a' a value of type int",
        ),
        ({"state_dict": {}, "ema": [1]}, "'ema' is of type list"),
        (
            {"state_dict": {}, "ema": {"a": "b"}},
            "'ema' has under 'a' a value of type str",
        ),
        ({5: torch.ones(1)}, "has the key 5"),
        (
            {"0.weight": [1.0]},
            "has under '0.weight' a value of type list, not a tensor",
        ),
        ([torch.ones(1)], "holds a list, not a state dict"),
        (right(**{"0.bias": torch.tensor([1.0, NAN])}), "0.bias holds numbers that"),
        (right(**{"0.weight": torch.full((2, 2), INF)}), "0.weight holds numbers that"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, content, message):
    path = tmp_path / "other.ckpt"
    torch.save(content, path)
    network = codec()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=f"^--init_from {path}: ?.*{message}"):
        init_from(network, path)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def test_whole_numbers_and_what_does_not_fit_need_not_be_finite(tmp_path):
    path = tmp_path / "right.ckpt"
    torch.save(right(other=torch.tensor(NAN), **{"0.bias": torch.tensor([1, 2])}), path)
    network = codec()
    assert "2 of 2 weights loaded" in init_from(network, path)
    assert network.state_dict()["0.bias"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"some text", "is not a checkpoint: it begins with b'some tex'"),
        (b"", "is not a checkpoint: it is empty"),
        (
            b"PK\x03\x04 cut",
            r"was cut, or has changed since it was written \(BadZipFile: ",
        ),
    ],
)
def test_a_file_of_another_kind_is_called_that(tmp_path, content, message):
    path = tmp_path / "other.ckpt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        init_from(codec(), path)


@pytest.mark.parametrize("header", [5, [], {"a": 5}])
def test_a_safetensors_header_of_another_kind_is_refused(tmp_path, header):
    text = json.dumps(header).encode()
    path = tmp_path / "other.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ValueError, match=r"not a whole \.safetensors file"):
        init_from(codec(), path)


def test_a_folder_is_its_newest_checkpoint_or_has_none(tmp_path):
    with pytest.raises(ValueError, match=f"--init_from {tmp_path} is a folder without"):
        init_from(codec(), tmp_path)
    last = tmp_path / "run" / "stage" / "last.ckpt"
    last.parent.mkdir(parents=True)
    torch.save(codec().state_dict(), last)
    for folder in (tmp_path / "run", last.parent):
        assert init_from(codec(), folder).startswith(f"init_from {last}: ")
    with pytest.raises(ValueError, match="there is no such file"):
        init_from(codec(), tmp_path / "no.ckpt")
