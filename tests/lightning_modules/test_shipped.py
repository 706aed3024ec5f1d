"""Models that ship: by name, whole, and with a word on where they come from."""

import json
from pathlib import Path
from shutil import copyfile

import pytest
import torch
import yaml

from lightning_modules import UI2C, load_codec, shipped
from lightning_modules.exported import round_weights, write_exported
from lightning_modules.shipped import find_model, model_of, shipped_cards


@pytest.fixture(scope="module")
def model(lively_module, save_checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "last.ckpt"
    codec = load_codec(save_checkpoint(lively_module("UI2C"), path))
    round_weights(codec, torch.float16)
    told = {"data": "synthetic clips", "licence": "none needed"}
    write_exported(path.with_name("model"), codec, torch.float16, **told)
    return path.with_name("model")


@pytest.fixture
def weights(model, tmp_path, monkeypatch):
    """A folder in place of the package's, with one model, complete."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setattr(shipped, "WEIGHTS", folder)
    copyfile(model, folder / "tiny-ui2c.safetensors")
    config = {"model": {"class_path": "lightning_modules.UI2C"}, "stages": []}
    (folder / "tiny-ui2c.yaml").write_text(yaml.safe_dump(config))
    return folder


def faults(folder):
    """Find what a shipped model must have and lacks."""
    found = []
    for name, card in shipped_cards().items():
        config = folder / f"{name}.yaml"
        if "." in name or name != name.lower():
            found.append(f"{name}: no lower-case name without a dot")
        if not (card.data and card.licence):
            found.append(f"{name}: data or licence is not named")
        if not config.is_file():
            found.append(f"{name}: no {config.name}")
        elif not {"model", "stages"} <= yaml.safe_load(config.read_text()).keys():
            found.append(f"{name}: {config.name} is no configuration")
        codec = load_codec(folder / f"{name}.safetensors")
        if codec.fingerprint().hex() != card.fingerprints["float32"]:
            found.append(f"{name}: not the codec that was exported")
        results = folder / f"{name}.json"
        if results.is_file():
            coded_with = json.loads(results.read_text())["codec"]["fingerprint"]
            if coded_with != codec.fingerprint().hex():
                found.append(f"{name}: {results.name} is of another codec")
    return found


def test_what_ships_is_complete():
    assert faults(shipped.WEIGHTS) == []


def test_what_is_incomplete_is_seen(weights):
    assert faults(weights) == []
    results = weights / "tiny-ui2c.json"
    results.write_text('{"codec": {"fingerprint": "0123456789abcdef"}}')
    assert faults(weights) == ["tiny-ui2c: tiny-ui2c.json is of another codec"]
    results.unlink()
    (weights / "tiny-ui2c.yaml").write_text("seed: 0")
    assert faults(weights) == ["tiny-ui2c: tiny-ui2c.yaml is no configuration"]
    (weights / "tiny-ui2c.yaml").rename(weights / "other.yaml")
    assert faults(weights) == ["tiny-ui2c: no tiny-ui2c.yaml"]


def test_a_name_is_its_file_in_python(weights, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    codec = load_codec("tiny-ui2c")
    module = UI2C.load_from_checkpoint("tiny-ui2c")
    assert module.codec.fingerprint() == codec.fingerprint()
    # A file of the user's comes first.
    assert find_model("tiny-ui2c") == weights / "tiny-ui2c.safetensors"
    Path("tiny-ui2c").touch()
    assert find_model("tiny-ui2c") == Path("tiny-ui2c")
    with pytest.raises(ValueError, match=r"^tiny-ui2c is not a checkpoint: it is emp"):
        load_codec("tiny-ui2c")


@pytest.mark.parametrize("path", ["tiny-ui2c.ckpt", "runs/tiny-ui2c", "/tiny-ui2c"])
def test_what_has_a_folder_or_a_suffix_is_no_name(weights, path):
    assert find_model(path) == Path(path)


def test_an_unknown_name_is_one_error_with_those_that_ship(weights):
    with pytest.raises(ValueError, match=r"\(did you mean tiny-ui2c\?\); models that"):
        load_codec("Tiny-UI2")
    with pytest.raises(ValueError, match=r"model of that name; models that ship: tiny"):
        load_codec("nothing")
    (weights / "tiny-ui2c.safetensors").unlink()
    with pytest.raises(ValueError, match="name; no model ships; else give the path"):
        load_codec("tiny-ui2c")


def test_a_stream_names_its_model_in_any_dtype(weights):
    codec = load_codec("tiny-ui2c", dtype=torch.bfloat16)
    assert model_of("UI2CCodec", codec.fingerprint(), "bfloat16") == "tiny-ui2c"
    assert model_of("UI2CCodec", codec.fingerprint(), "float32") is None
    assert model_of("DHVCCodec", codec.fingerprint(), "bfloat16") is None


def test_a_damaged_package_is_named(weights):
    (weights / "tiny-ui2c.safetensors").write_bytes(b"a note")
    with pytest.raises(ValueError, match=r"tiny-ui2c\.safetensors is no file that"):
        shipped_cards()
