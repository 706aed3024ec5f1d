"""A codec alone in one file: the same network, and not one byte of it may change."""

import json
import stat
from shutil import copyfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from lightning_modules import CODECS, load_codec, read_checkpoint
from lightning_modules.exported import (
    CARD,
    DIGEST,
    DTYPES,
    FREQUENCIES,
    TABLES,
    _digest,
    _metadata,
    read_card,
    round_weights,
    write_exported,
)

GIVEN = {
    "DHVC": {"lmbda_range": (300, 900)},
    "UI2C": {"lmbda_range": (2.0, 99.0)},
    "VideoVAE": {"backbone": "lean_vae", "lpips": "random"},
}


@pytest.fixture(scope="module")
def saved(lively_module, save_checkpoint, tmp_path_factory):
    """A checkpoint of UI2C, and its codec."""
    path = tmp_path_factory.mktemp("saved") / "last.ckpt"
    save_checkpoint(lively_module("UI2C"), path)
    return path


@pytest.fixture(scope="module")
def written(saved):
    return export(saved, saved.with_name("half.safetensors"), torch.float16)


@pytest.fixture
def exported(written, tmp_path):
    """A copy that a test may change."""
    return copyfile(written, tmp_path / "out.safetensors")


def export(checkpoint, path, dtype, **told):
    codec = load_codec(checkpoint)
    round_weights(codec, dtype)
    write_exported(path, codec, dtype, **told)
    return path


@pytest.mark.parametrize("name", CODECS)
def test_any_codec_is_the_same_after_it_was_rounded_and_read_again(
    lively_module, save_checkpoint, tmp_path, name
):
    module = lively_module(name, **GIVEN.get(name, {}))
    checkpoint = save_checkpoint(module, tmp_path / "last.ckpt")
    codec = load_codec(checkpoint)
    round_weights(codec, torch.float16)
    path = tmp_path / "out.safetensors"
    card = write_exported(path, codec, torch.float16, data="clips", licence="CC0")
    assert read_card(path) == card
    assert (card.codec, card.data, card.licence) == (name, "clips", "CC0")
    loaded = load_codec(path)
    assert loaded.fingerprint() == codec.fingerprint()
    assert loaded.fingerprint() != load_codec(checkpoint).fingerprint()
    assert loaded.shown_name == name and loaded.trained_with.keys() == (
        codec.trained_with.keys()
    )
    assert card.fingerprints.keys() == set(DTYPES)
    for dtype, own in (
        ("float32", loaded),
        ("bfloat16", load_codec(path, dtype=torch.bfloat16)),
    ):
        assert own.fingerprint().hex() == card.fingerprints[dtype]
    again = type(module).load_from_checkpoint(path)
    assert again.codec.fingerprint() == codec.fingerprint()
    assert list(again.hparams) == list(module.hparams)


def test_a_file_says_how_its_codec_codes_best(lively_module, save_checkpoint, tmp_path):
    checkpoint = save_checkpoint(lively_module("UI2C"), tmp_path / "last.ckpt")
    codec = load_codec(checkpoint)
    plain = tmp_path / "plain.safetensors"
    assert write_exported(plain, codec, torch.float32).coding == {}
    codec.configure(refresh=8)
    path = tmp_path / "out.safetensors"
    assert write_exported(path, codec, torch.float32).coding == {"refresh": 8}
    loaded = load_codec(path)
    assert loaded.coding.refresh == 8
    assert loaded.fingerprint() == load_codec(plain).fingerprint()
    # Whoever codes may say otherwise.
    loaded.configure(refresh=0)
    assert loaded.coding == load_codec(plain).coding


def test_a_card_of_before_says_nothing_of_coding(exported):
    card = json.loads(_metadata(exported)[CARD])
    del card["coding"]
    tensors = load_file(exported)
    text = json.dumps(card)
    metadata = {"format": "pt", CARD: text, DIGEST: _digest(text, tensors)}
    exported.write_bytes(save(tensors, metadata))
    assert read_card(exported).coding == {}
    load_codec(exported)


def test_float32_is_the_checkpoints_codec_and_float16_half_of_it(
    saved, written, tmp_path
):
    path = export(saved, tmp_path / "out.safetensors", torch.float32)
    codec = load_codec(saved)
    assert load_codec(path).fingerprint() == codec.fingerprint()
    assert written.stat().st_size < 0.65 * path.stat().st_size
    assert read_card(path).parameters == sum(p.numel() for p in codec.parameters())
    # Others may read it, as of any file.
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(saved.stat().st_mode)


def test_tables_belong_to_the_rounded_weights(saved):
    codec = load_codec(saved)
    # Of weights that do not change, those of the machine that trained stay.
    stored = codec.tables
    round_weights(codec, torch.float32)
    assert codec.tables is stored
    round_weights(codec, torch.float16)
    built = codec.build_tables()
    assert {n: t.to_bytes() for n, t in codec.tables.items()} == {
        n: t.to_bytes() for n, t in built.items()
    }
    assert any(stored[n].to_bytes() != t.to_bytes() for n, t in built.items())


def test_bounds_are_no_weights_and_keep_their_digits(exported):
    held = load_file(exported)
    codec = load_codec(exported)
    parameters = {name for name, _ in codec.named_parameters()}
    assert all(held[name].dtype == torch.float16 for name in parameters)
    buffers = codec.state_dict().keys() - parameters
    assert all(held[name].dtype != torch.float16 for name in buffers)


def test_tables_take_no_more_room_than_they_use(exported):
    held, tables = load_file(exported), load_codec(exported).tables
    for name, own in tables.items():
        frequencies = held[f"{TABLES}/{name}/{FREQUENCIES}"]
        assert len(frequencies) == own.length.sum() - len(own.length)
    assert any(len(set(own.length.tolist())) > 1 for own in tables.values())


@pytest.mark.parametrize("value", [1e6, float("nan")])
def test_weights_that_a_dtype_cannot_hold_are_refused(saved, value):
    codec = load_codec(saved)
    name, parameter = list(codec.named_parameters())[3]
    parameter.data[0] = value
    with pytest.raises(ValueError, match=rf"number of {name} is .* float16: choose"):
        round_weights(codec, torch.float16)


def test_a_changed_byte_and_a_cut_file_are_named(exported):
    whole = exported.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for place in (start, (start + len(whole)) // 2, len(whole) - 1):
        changed = bytearray(whole)
        changed[place] ^= 1
        exported.write_bytes(changed)
        with pytest.raises(ValueError, match=rf"^{exported} has changed since it was"):
            load_codec(exported)
    exported.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=rf"^{exported} was cut, or is damaged"):
        load_codec(exported)
    exported.write_bytes(whole[: start // 2])
    with pytest.raises(ValueError, match=rf"^{exported} is not a whole"):
        load_codec(exported)


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("codec", "DHVC", "has changed since"),
        ("codec", None, r"damaged card \(KeyError: 'codec'\)"),
        ("fingerprints", None, r"damaged card \(KeyError: 'fingerprints'\)"),
    ],
)
def test_a_changed_card_is_named(exported, entry, value, said):
    with safe_open(exported, "pt") as file:
        metadata = file.metadata()
    card = json.loads(metadata[CARD]) | {entry: value}
    if value is None:
        del card[entry]
    save_file(load_file(exported), exported, {**metadata, CARD: json.dumps(card)})
    with pytest.raises(ValueError, match=rf"^{exported} .*{said}"):
        load_codec(exported)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"\x80" * 30, b"{}" * 9, b"\2" + b"\0" * 7 + b"[]"]
)
def test_other_files_have_no_card(tmp_path, saved, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    assert read_card(path) is None
    assert read_card(saved) is None
    save_file({"weight": torch.ones(2)}, path, {"format": "pt"})
    assert read_card(path) is None


def test_what_json_cannot_hold_is_refused(saved, tmp_path):
    codec = load_codec(saved)
    codec.trained_with = {"loss": torch.ones(1)}
    with pytest.raises(ValueError, match=r"UI2C does not fit a card \(.*Tensor"):
        write_exported(tmp_path / "out", codec, torch.float32)


def test_averaged_weights_are_exported(saved, tmp_path):
    checkpoint = torch.load(saved, weights_only=True)
    name = "network.encoder_down.weight"
    mean = checkpoint["state_dict"][f"codec.{name}"] * 0.5
    path = tmp_path / "averaged.ckpt"
    torch.save({**checkpoint, "ema": {name: mean}}, path)
    export(path, tmp_path / "out.safetensors", torch.float32)
    held = read_checkpoint(tmp_path / "out.safetensors")
    assert torch.equal(held["state_dict"][f"codec.{name}"], mean)
    assert "optimizer_states" not in held
