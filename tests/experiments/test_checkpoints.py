"""``--checkpoint``: a file, the folder of a stage or a run, or a model that ships."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from experiments import decode, encode
from experiments.bitstreams.options import DecodeOptions, EncodeOptions
from experiments.cli import lvc
from experiments.cli.checkpoints import find_checkpoint
from experiments.cli.options import parse
from experiments.evaluate.command import EvaluateOptions
from experiments.fit.export import command as export
from experiments.fit.weights import init_from
from experiments.profile import command as profile
from experiments.profile.command import ProfileOptions
from experiments.propagation.options import PropagationOptions
from experiments.stream.options import StreamOptions
from lightning_modules import load_codec, shipped


@pytest.fixture
def run(tmp_path):
    """A run of three stages, of which two have begun."""
    path = tmp_path / "runs" / "mine"
    for stage in ("second", "first"):
        (path / stage).mkdir(parents=True)
        (path / stage / "last.ckpt").touch()
        (path / stage / "best.ckpt").touch()
    stages = [{"name": name} for name in ("first", "second", "third")]
    (path / "config.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (path / "wandb").mkdir()
    return path


def test_a_runs_folder_is_its_last_stage_that_has_begun(run):
    assert find_checkpoint(run) == run / "second" / "last.ckpt"
    # By the schedule, not by name or time.
    (run / "third").mkdir()
    (run / "first" / "last.ckpt").touch()
    assert find_checkpoint(run) == run / "second" / "last.ckpt"
    assert find_checkpoint(run / "first") == run / "first" / "last.ckpt"


def test_what_is_no_folder_is_given_back(run):
    for path in (run / "first" / "best.ckpt", run / "nowhere.ckpt"):
        assert find_checkpoint(path) == path


@pytest.mark.parametrize("content", [None, "", "[]", "stages: 3", "{", "stages: [1]"])
def test_without_a_schedule_one_stage_is_clear_and_two_are_not(run, content):
    (run / "config.yaml").unlink()
    if content is not None:
        (run / "config.yaml").write_text(content)
    message = f"which of its stages is the last: name one of {run / 'first'}, "
    with pytest.raises(ValueError, match=message):
        find_checkpoint(run)
    (run / "first" / "last.ckpt").unlink()
    assert find_checkpoint(run) == run / "second" / "last.ckpt"


def test_a_folder_without_a_checkpoint_is_refused(run):
    with pytest.raises(ValueError, match=r"wandb is a folder without a checkpoint: ne"):
        find_checkpoint(run / "wandb")
    for last in run.glob("*/last.ckpt"):
        last.unlink()
    best = run / "first" / "best.ckpt"
    with pytest.raises(ValueError, match=f"; name a file, such as {best}"):
        find_checkpoint(run)


COMMANDS = {
    "encode": (EncodeOptions, ["in", "out", "--rate=1"]),
    "decode": (DecodeOptions, ["in", "out"]),
    "evaluate": (EvaluateOptions, ["--sequences=a", "--output=a.json"]),
    "stream": (StreamOptions, ["in", "--rate=1", "--output=o", "--lose=5:4"]),
    "propagation": (PropagationOptions, ["--sequences=a", "--output=o"]),
    "profile": (ProfileOptions, []),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_a_folder_and_says_which_file_it_is(run, command, capsys):
    kind, arguments = COMMANDS[command]
    given = parse(kind, command, [*arguments, f"--checkpoint={run}"])
    assert given.checkpoint == run / "second" / "last.ckpt"
    assert capsys.readouterr().err == f"checkpoint: {given.checkpoint}\n"
    given = parse(kind, command, [*arguments, f"--checkpoint={given.checkpoint}"])
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit) as end:
        parse(kind, command, [*arguments, f"--checkpoint={run / 'wandb'}"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"error: argument --checkpoint: {Path(run, 'wandb')} is a fo"
    )


# Models that ship


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """A folder with the file that ``export`` makes of a checkpoint."""
    path = tmp_path_factory.mktemp("exported") / "tiny-codec.safetensors"
    told = ["--dtype=float16", "--data=clips", "--licence=CC0"]
    assert export.main([str(checkpoint("ui2c")), str(path), *told]) == 0
    return path


@pytest.fixture
def ships(exported, monkeypatch):
    """The same folder in place of the package's."""
    monkeypatch.setattr(shipped, "WEIGHTS", exported.parent)
    return exported


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_a_name_and_says_which_file_it_is(ships, command, capsys):
    kind, arguments = COMMANDS[command]
    given = parse(kind, command, [*arguments, "--checkpoint=tiny-codec"])
    assert given.checkpoint == ships
    assert capsys.readouterr().err == f"checkpoint: {ships}\n"
    with pytest.raises(SystemExit) as end:
        parse(kind, command, [*arguments, "--checkpoint=tiny-codex"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: argument --checkpoint: there is neither a file tiny")
    assert "(did you mean tiny-codec?); models that ship: tiny-codec" in line


@pytest.mark.parametrize("of", ["a file", "a folder"])
def test_a_path_of_a_models_name_comes_first_and_is_said(
    ships, run, monkeypatch, capsys, of
):
    monkeypatch.chdir(run.parent)
    own = Path("tiny-codec")
    own.touch() if of == "a file" else run.rename(own)
    found = find_checkpoint(own)
    assert found == (own if of == "a file" else own / "second" / "last.ckpt")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: tiny-codec is {own.absolute()}; the suite's own mod")


def test_names_are_resolved_and_listed_without_torch(ships):
    program = (
        "import sys\nfrom pathlib import Path\nfrom lightning_modules import shipped\n"
        f"shipped.WEIGHTS = Path({str(ships.parent)!r})\n"
        "from experiments.cli.checkpoints import checkpoint_option\n"
        "checkpoint_option('tiny-codec')\n"
        "from experiments.cli.lvc import main\nassert main(['--models']) == 0\n"
        "heavy = {'torch', 'lightning', 'numpy', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    root = Path(shipped.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, name, codec, data = done.stdout.splitlines()
    assert first.startswith("--checkpoint and --init_from take these by name")
    assert name == "  tiny-codec" and "M parameters as float16, " in codec
    assert data.strip() == "trained on clips (licence: CC0)"


def test_without_a_model_the_list_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path)
    assert lvc.main(["--models"]) == 0
    assert capsys.readouterr().out.startswith("no trained model ships with this ver")
    (tmp_path / "tiny.safetensors").write_bytes(b"a note")
    assert lvc.main(["--models"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "is no file that export wrote" in line


def test_a_stream_finds_its_model_and_another_checkpoint_names_it(
    ships, checkpoint, make_video, tmp_path, capsys, only_error
):
    stream, common = str(tmp_path / "v.lvc"), ["--device=cpu"]
    source, named = str(make_video(2)), ["--checkpoint=tiny-codec", *common]
    assert encode.main([source, stream, *named, "--rate=21"]) == 0
    digests = []
    for more in ([], ["--checkpoint=tiny-codec"], [f"--checkpoint={ships}"]):
        capsys.readouterr()
        assert decode.main([stream, "--hash", *common, *more]) == 0
        digests.append(capsys.readouterr().out.splitlines()[-1])
    assert len(set(digests)) == 1
    for other, said in (("ui2c", " has "), ("dhvc", " is of DHVC: ")):
        given = ["--hash", *common, f"--checkpoint={checkpoint(other)}"]
        assert decode.main([stream, *given]) == 2
        line = only_error()
        assert f"{checkpoint(other)}{said}" in line
        end = "it was the shipped model tiny-codec: give --checkpoint tiny-codec"
        assert line.endswith(end)


def test_a_stream_of_no_model_needs_a_checkpoint(
    checkpoint, make_video, tmp_path, only_error
):
    stream, path = str(tmp_path / "v.lvc"), f"--checkpoint={checkpoint('ui2c')}"
    common = [path, "--rate=21", "--device=cpu"]
    assert encode.main([str(make_video(2)), stream, *common]) == 0
    assert decode.main([stream, str(tmp_path / "v.y4m")]) == 2
    line = only_error()
    assert line.startswith(f"error: {stream} was encoded with UI2C of the weights ")
    assert line.endswith(", which are no shipped model's: give --checkpoint")
    assert not (tmp_path / "v.y4m").exists()


def test_a_model_begins_a_run_and_is_profiled(ships, tmp_path, capsys):
    codec = load_codec("tiny-codec")
    other = type(codec)(**codec.architecture)
    report = init_from(other, "tiny-codec", 1.0)
    count = len(codec.state_dict())
    assert report == f"init_from {ships}: {count} of {count} weights loaded"
    for name, weight in codec.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name])
    with pytest.raises(ValueError, match=r"^--init_from there is neither .*did you"):
        init_from(other, "tiny-codex")
    output = tmp_path / "profile.json"
    size = ["--height=64", "--width=64", f"--output={output}"]
    assert profile.main(["--checkpoint=tiny-codec", *size]) == 0
    assert json.loads(output.read_text())["parameters"] == sum(
        each.numel() for each in codec.parameters()
    )


def test_a_changed_file_begins_no_run(exported, tmp_path):
    changed = bytearray(exported.read_bytes())
    changed[-1] ^= 1
    path = tmp_path / "x.safetensors"
    path.write_bytes(changed)
    codec = load_codec(exported)
    with pytest.raises(ValueError, match=f"^--init_from {path} has changed since it"):
        init_from(codec, path)
