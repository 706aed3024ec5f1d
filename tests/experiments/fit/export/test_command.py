"""``export``: a run, or a checkpoint of one, as one small file."""

import itertools

import pytest
import torch
import yaml

from experiments.fit.export.command import main
from lightning_modules import load_codec
from lightning_modules.codec import VideoCodec

LAST = "second/last.ckpt"


@pytest.fixture(scope="module")
def saved(lively_module, save_checkpoint, tmp_path_factory):
    """A checkpoint of UI2C; each is written once."""
    folder = tmp_path_factory.mktemp("saved")
    return save_checkpoint(lively_module("UI2C"), folder / "last.ckpt")


@pytest.fixture
def run(saved, tmp_path):
    """A run of one stage, with paths of its machine."""
    stage = tmp_path / "runs" / "mine" / "second"
    stage.mkdir(parents=True)
    (stage / "last.ckpt").write_bytes(saved.read_bytes())
    config = {
        "seed": 3,
        "run": "mine",
        "runs_dir": str(tmp_path),
        "model": {
            "class_path": "lightning_modules.UI2C",
            "init_args": {"size": "tiny"},
        },
        "data": {"source": "folder", "root": "videos", "flip": True, "workers": 8},
        "stages": [
            {"name": "first", "data": {"root": "/data/clips", "stride": 2}},
            {"name": "second", "data": {"root": "~/clips", "list_file": "a.txt"}},
        ],
        "trainer": {"devices": 8, "ema_decay": 0.9, "threads": 1},
        "tracking": {"project": "secret"},
    }
    text = yaml.safe_dump(config, sort_keys=False)
    (stage.parent / "config.yaml").write_text(text)
    return stage.parent


def test_a_run_is_a_small_file_and_its_configuration(run, tmp_path, capsys):
    out = tmp_path / "mine.safetensors"
    told = ["--data=Clips of ours", "--licence=CC0"]
    assert main([str(run), str(out), *told]) == 0
    codec, size = load_codec(out), out.stat().st_size
    assert codec.fingerprint() == load_codec(run / LAST).fingerprint()
    count = sum(each.numel() for each in codec.parameters())
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{out}: UI2C, {count} parameters as float32, {size / 1e6:.2f} MB, weights "
        f"{codec.fingerprint().hex()}",
        f"{tmp_path / 'mine.yaml'}: what it was trained with",
    ]
    text = (tmp_path / "mine.yaml").read_text()
    assert text.startswith(
        "# Trained on: Clips of ours.\n# Licence of that data: CC0.\n"
        "# These are the weights of stage second, last.\n\nseed: 3\n"
    )
    assert yaml.safe_load(text) == {
        "seed": 3,
        "model": {
            "class_path": "lightning_modules.UI2C",
            "init_args": {"size": "tiny"},
        },
        "data": {"source": "folder", "flip": True},
        "stages": [
            {"name": "first", "data": {"stride": 2}},
            {"name": "second", "data": {}},
        ],
        "trainer": {"ema_decay": 0.9},
    }


def test_a_lone_checkpoint_has_no_configuration(saved, tmp_path):
    out = tmp_path / "lone.safetensors"
    assert main([str(saved), str(out), "--dtype=float16"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    # What was exported can be exported once more, and stays the same.
    again = tmp_path / "again.safetensors"
    assert main([str(out), str(again), "--dtype=float16"]) == 0
    assert load_codec(again).fingerprint() == load_codec(out).fingerprint()


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.yaml"])
def test_a_file_that_exists_is_kept(run, tmp_path, only_error, name):
    (tmp_path / name).write_text("of mine")
    assert main([str(run / LAST), str(tmp_path / "mine.safetensors")]) == 2
    assert f"{tmp_path / name} exists: remove it, or choose" in only_error()
    assert (tmp_path / name).read_text() == "of mine"
    assert {path.name for path in tmp_path.iterdir()} == {name, "runs"}


def test_another_suffix_is_refused(run, tmp_path, only_error):
    assert main([str(run / LAST), str(tmp_path / "mine.ckpt")]) == 2
    assert f"called .safetensors, for example {tmp_path / 'mine.safe'}" in only_error()


def test_weights_beyond_float16_leave_nothing(run, tmp_path, only_error):
    path = run / LAST
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["codec.network.encoder_down.weight"] *= 1e9
    torch.save(checkpoint, path)
    assert (
        main([str(run / LAST), str(tmp_path / "a.safetensors"), "--dtype=float16"]) == 2
    )
    assert "not finite in float16: choose float32" in only_error()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_damaged_configuration_leaves_nothing(run, tmp_path, only_error):
    (run / "config.yaml").write_text("[")
    given = [str(run / LAST), str(tmp_path / "a.safetensors")]
    assert main(given) == 2
    assert f"{run / 'config.yaml'} does not say what was trained" in only_error()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_codec_that_would_not_be_the_same_is_not_written(
    run, tmp_path, only_error, monkeypatch
):
    count = itertools.count()
    monkeypatch.setattr(
        VideoCodec, "fingerprint", lambda codec: next(count).to_bytes(8, "big")
    )
    assert main([str(run / LAST), str(tmp_path / "a.safetensors")]) == 2
    assert "UI2C is not the same after it was read again" in only_error()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
