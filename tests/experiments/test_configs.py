"""``--config``: the suite's own files by name, one's own by their paths."""

from pathlib import Path

import pytest
import yaml

from experiments.cli.configs import CONFIGS, find_config, shipped_configs
from experiments.fit.command import main as fit
from experiments.profile.command import build_codec
from experiments.profile.command import main as profile

DIVIDED = CONFIGS / "ablations" / "ui2c" / "divided.yaml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["ui2c", "ablations/ui2c/divided"])
@pytest.mark.parametrize("before", ["", "experiments/configs/"])
@pytest.mark.parametrize("after", ["", ".yaml"])
def test_the_suites_own_are_found_from_any_folder(name, before, after, capsys):
    assert find_config(before + name + after) == str(CONFIGS / f"{name}.yaml")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", ["ui2c.yaml", "ui2c"])
def test_ones_own_file_counts_and_a_note_says_so(elsewhere, text, capsys, monkeypatch):
    (elsewhere / "ui2c.yaml").touch()
    assert find_config(text) == "ui2c.yaml"
    note = f"note: --config {text} is the file {elsewhere / 'ui2c.yaml'}; the suite's"
    assert capsys.readouterr().err.startswith(note)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert find_config(text) == "ui2c.yaml"
    assert capsys.readouterr().err == ""


def test_the_same_file_by_its_path_needs_no_note(monkeypatch, capsys):
    monkeypatch.chdir(CONFIGS.parents[1])
    for path in ("experiments/configs/ui2c.yaml", str(DIVIDED)):
        assert find_config(path) == path
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ui2c.yml", "(did you mean ui2c?)"),
        ("dhcv", "(did you mean dhvc?)"),
        ("UI2C", "(did you mean ui2c?)"),
        ("/data/no_hybrid.yaml", "(did you mean ablations/ui2c/no_hybrid_reference?)"),
        ("divided", "(did you mean ablations/ui2c/divided?)"),
        ("xyz", "configuration of the suite of that name; --list_configs"),
        ("folder", "--config folder: that is a folder; name a file in it"),
    ],
)
def test_what_is_not_there_names_what_is_near(elsewhere, text, message):
    (elsewhere / "folder").mkdir()
    with pytest.raises(ValueError, match="--config") as error:
        find_config(text)
    assert message in str(error.value)


def test_text_that_is_yaml_is_given_back():
    for text in ("{seed: 3}", "seed: 3\n"):
        assert find_config(text) == text


@pytest.mark.parametrize("command", [fit, profile])
def test_all_are_listed_but_the_one_that_is_always_read(command, capsys):
    with pytest.raises(SystemExit) as end:
        command(["--list_configs"])
    shown = capsys.readouterr().out.splitlines()
    assert end.value.code == 0
    names = [line.strip() for line in shown if line[2:3] not in ("", " ")]
    assert set(names) >= shipped_configs().keys() - {"base"}
    assert "base" not in names and all(len(line) <= 88 for line in shown)


def test_profile_takes_a_name(capsys):
    codec = build_codec(["ui2c", "rehearsal"])
    assert codec.shown_name == "UI2C"
    with pytest.raises(SystemExit) as end:
        profile(["--config", "scale_space_flwo"])
    assert end.value.code == 2
    assert "(did you mean scale_space_flow?)" in capsys.readouterr().err


def test_a_run_that_is_named_by_names_is_called_as_by_files(elsewhere, fit_options):
    names = ["--config=ui2c", "--config=ablations/ui2c/divided", "--config=rehearsal"]
    tiny = ["--shrink.total_steps=11", "--shrink.min_steps=1", "--shrink.crop=32"]
    tiny += ["--shrink.frames=3", "--shrink.batch_size=1", "--data.val_clips=0"]
    end = ["--to_stage", yaml.safe_load(DIVIDED.read_text())["stages"][0]["name"]]
    assert fit([*names, *fit_options, *tiny, *end]) == 0
    assert Path("runs/ui2c-divided-rehearsal/config.yaml").is_file()
