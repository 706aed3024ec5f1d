"""Files of ``torch.save``: what was written, or an error that says what is wrong."""

import os
import pickle
import random

import pytest
import torch

from callbacks.checkpoints import AtomicCheckpointIO
from lightning_modules import UI2C, load_codec
from lightning_modules.saved_file import Blank, UntrustedFileError, read_saved

CONTENT = {"a": torch.arange(50, dtype=torch.float32), "b": {"c": [1, "two", 3.0]}}


class Evil:
    def __reduce__(self):
        return os.system, ("touch harm",)


def test_a_flipped_bit_changes_nothing_or_is_an_error(tmp_path):
    path = tmp_path / "saved.ckpt"
    torch.save(CONTENT, path)
    whole = path.read_bytes()
    refused = 0
    chosen = random.Random(0).sample(range(8 * len(whole)), 400)
    # Each bit of the tensor among them.
    start = whole.index(CONTENT["a"].numpy().tobytes())
    tensor = range(8 * start, 8 * (start + 200))
    # And of what the archive's directory says of its record: its attributes, say.
    entry = whole.rindex(b"saved/data/0") - 46
    directory = range(8 * entry, 8 * (entry + 46))
    for bit in [*chosen, *tensor, *directory]:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = read_saved(path, mmap=False)
        except ValueError:
            refused += 1
            continue
        assert bit not in tensor
        assert torch.equal(found["a"], CONTENT["a"]) and found["b"] == CONTENT["b"]
    assert refused > len(tensor)


def test_files_that_torch_save_did_not_write_and_cut_ones_are_named(tmp_path):
    path = tmp_path / "saved.ckpt"
    torch.save(CONTENT, path)
    whole = path.read_bytes()
    for content, reason in (
        (b"", "is not a checkpoint: it is empty"),
        (b"a note", "is not a checkpoint: it begins with b'a note'"),
        (b"\x80 a note", "is a damaged checkpoint, or none"),
        (whole[: len(whole) // 2], "was cut, or has changed"),
        (whole[:-1], "was cut, or has changed"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^{reason}"):
            read_saved(path)


def test_a_file_from_before_archives_is_read(tmp_path):
    torch.save(CONTENT, tmp_path / "old", _use_new_zipfile_serialization=False)
    assert torch.equal(read_saved(tmp_path / "old")["a"], CONTENT["a"])


@pytest.mark.parametrize("new", [True, False, None])
def test_python_objects_are_called_so_and_not_run(tmp_path, monkeypatch, new):
    monkeypatch.chdir(tmp_path)
    if new is None:
        (tmp_path / "evil").write_bytes(pickle.dumps(Evil(), protocol=2))
    else:
        torch.save({"a": Evil()}, "evil", _use_new_zipfile_serialization=new)
    with pytest.raises(UntrustedFileError, match=r"objects \(posix\.system\) besides"):
        read_saved("evil")
    assert not (tmp_path / "harm").exists()


class Options:
    def __setstate__(self, state):
        raise AssertionError("nothing of the object is run")


class Table(dict):
    pass


def test_objects_are_blanks_if_asked_for(tmp_path):
    path = tmp_path / "training.ckpt"
    options = Options()
    options.lr = 1
    torch.save({**CONTENT, "options": [options, path]}, path)
    with pytest.raises(UntrustedFileError, match=r"Options\) besides"):
        read_saved(path)
    found = read_saved(path, mmap=False, blanks=True)
    assert [type(each) for each in found.pop("options")] == [Blank, Blank]
    assert torch.equal(found["a"], CONTENT["a"]) and found["b"] == CONTENT["b"]


@pytest.mark.parametrize("found", [Evil(), Table(a=1)], ids=["program", "a dict's"])
def test_blanks_are_no_way_round_the_refusal(tmp_path, monkeypatch, found):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": found}, "evil")
    with pytest.raises(UntrustedFileError, match=r"system|Table"):
        read_saved("evil", blanks=True)
    assert not (tmp_path / "harm").exists()


# Whatever loads a checkpoint


@pytest.fixture
def saved(lively_module, tmp_path):
    """A checkpoint of UI2C as ``fit`` writes it, without a Trainer's state."""
    module = lively_module("UI2C")
    checkpoint = {
        "state_dict": module.state_dict(),
        "hyper_parameters": dict(module.hparams),
        "pytorch-lightning_version": "2.0.0",
    }
    module.on_save_checkpoint(checkpoint)
    path = tmp_path / "last.ckpt"
    torch.save(checkpoint, path)
    return path


@pytest.mark.parametrize(
    "load",
    [load_codec, UI2C.load_from_checkpoint, AtomicCheckpointIO().load_checkpoint],
)
def test_each_way_to_load_refuses_a_changed_byte(saved, load):
    load(saved)
    content = bytearray(saved.read_bytes())
    content[len(content) // 2] ^= 1
    saved.write_bytes(content)
    message = rf"^{saved} was cut, or has changed .*Bad CRC-32.*restore it"
    with pytest.raises(ValueError, match=message):
        load(saved)


def set_entry(*keys):
    """Return a change: the last of ``keys`` is the value at the others; none drops."""

    def change(checkpoint):
        *way, name, value = keys
        for key in way:
            checkpoint = checkpoint[key]
        if value is None:
            del checkpoint[name]
        else:
            checkpoint[name] = value

    return change


TABLE = {"cdf": torch.zeros(2, 5), "length": torch.ones(2), "offset": torch.ones(2)}

UNFIT = {
    "unknown argument": set_entry("codec", "architecture", "nope", 1),
    "argument of another type": set_entry("codec", "architecture", "size", ["tiny"]),
    "argument of another value": set_entry("codec", "architecture", "size", "huge"),
    "architecture of another type": set_entry("codec", "architecture", [1]),
    "no architecture": set_entry("codec", "architecture", None),
    "no tables": set_entry("codec", "tables", {}),
    "no entry of tables": set_entry("codec", "tables", None),
    "one table less": set_entry("codec", "tables", "y", None),
    "broken table": set_entry("codec", "tables", "y", TABLE),
    "table of another type": set_entry("codec", "tables", "y", 3),
    "weights of another type": set_entry("state_dict", "codec.q", "text"),
    "averaged weights of another type": set_entry("ema", 3),
    "averaged weights of another name": set_entry("ema", {"nope": torch.ones(1)}),
    "no weights": set_entry("state_dict", {}),
    "training of another type": set_entry("codec", "training", 3),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_checkpoint_that_does_not_fit_is_one_error(saved, name):
    checkpoint = torch.load(saved, weights_only=True)
    UNFIT[name](checkpoint)
    torch.save(checkpoint, saved)
    message = rf"^{saved} does not fit UI2C as this version has it \(.+\): use the"
    with pytest.raises(ValueError, match=message) as caught:
        load_codec(saved)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_weights_of_another_shape_are_one_error(saved):
    checkpoint = torch.load(saved, weights_only=True)
    for key, value in checkpoint["state_dict"].items():
        checkpoint["state_dict"][key] = torch.cat([value.flatten(), torch.ones(1)])
    torch.save(checkpoint, saved)
    for load in (load_codec, UI2C.load_from_checkpoint):
        with pytest.raises(ValueError, match=rf"^{saved} does not fit UI2C .*shape"):
            load(saved)
