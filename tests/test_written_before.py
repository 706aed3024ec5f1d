"""Files of an earlier version are read and gone on with: ``written_before/README.md``.

Commands are run by their names alone, as a user does, whatever lies behind them.
"""

import csv
import json
import lzma
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import yaml

import lightning_modules
from lightning_modules import load_codec

BEFORE = Path(__file__).parent / "written_before"
DECODED = {
    name: digest
    for line in (BEFORE / "decoded.sha256").read_text().splitlines()
    for digest, name in [line.split(maxsplit=1)]
}
RUNS = sorted(path.parent.name for path in BEFORE.glob("*/fit.yaml"))
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules.*")

ALIKE = ("--lpips", "none", "--threads", "1", "--pictures")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Unpack the files once."""
    folder = tmp_path_factory.mktemp("before") / "written_before"
    shutil.copytree(BEFORE, folder)
    for packed in folder.glob("*/first/last.ckpt.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    return folder


@pytest.fixture
def before(original, tmp_path, monkeypatch):
    """Return a folder ``written_before`` that a test may change, beside which it is."""
    shutil.copytree(original, tmp_path / "written_before", copy_function=link)
    monkeypatch.chdir(tmp_path)
    return Path("written_before")


def link(source, target):
    """Share the large files, which nobody writes in place."""
    if source.endswith(".ckpt"):
        Path(target).hardlink_to(source)
    else:
        shutil.copyfile(source, target)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run ``python -m experiments.NAME`` in this process; return what it prints."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            runpy.run_module(f"experiments.{name}", run_name="__main__")
        printed = capsys.readouterr()
        assert not end.value.code, printed.err
        return printed

    return run


def read(path):
    return json.loads(path.read_text())


def scalars(path):
    with path.open(newline="") as file:
        return {
            (row["step"], row["stage"], row["name"]): float(row["value"])
            for row in csv.DictReader(file)
            if row["name"] not in ("train/frames_per_second", "train/data_wait")
        }


def nearly(value):
    """Expect nested values, numbers as another processor may round them."""
    if isinstance(value, dict):
        return {key: nearly(each) for key, each in value.items()}
    if isinstance(value, list):
        return [nearly(each) for each in value]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return pytest.approx(value, rel=1e-6, abs=1e-9) if number else value


@pytest.mark.parametrize("name", DECODED)
def test_a_bitstream_decodes_to_its_frames(before, run, name):
    folder, *options = name.split()
    checkpoint = before / folder / "first" / "last.ckpt"
    stream = before / folder / "clip.lvc"
    printed = run("decode", stream, "--checkpoint", checkpoint, "--hash", *options)
    assert printed.out.split()[-1] == DECODED[name]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_where_it_stopped(before, run, name):
    folder = before / name
    config = ("--config", folder / "fit.yaml", "--runs_dir", before, "--run", name)
    stopped = scalars(folder / "metrics.csv")
    run("fit", *config)
    found, whole = (scalars(folder / f"{n}.csv") for n in ("metrics", "whole"))
    assert {key: found[key] for key in stopped} == stopped
    # Other processors round otherwise, and Adam's first steps are of a gradient's sign.
    # Figures that there were not yet may come on top.
    known = {key: value for key, value in found.items() if key in whole}
    assert known == pytest.approx(whole, rel=1e-3, abs=1e-3)
    assert (folder / "second" / "last.ckpt").is_file()


@pytest.mark.parametrize("name", RUNS)
def test_a_module_is_built_of_a_checkpoint_and_its_arguments(before, name):
    config = yaml.safe_load((before / name / "config.yaml").read_text())["model"]
    codec = getattr(lightning_modules, config["class_path"].rpartition(".")[2])
    path = before / name / "first" / "last.ckpt"
    with pytest.raises(ValueError, match="written before checkpoints held"):
        codec.load_from_checkpoint(path)
    module = codec.load_from_checkpoint(path, **config["init_args"])
    assert module.codec.eval().fingerprint() == load_codec(path).fingerprint()


@pytest.mark.parametrize(
    ("name", "command", "options"),
    [
        ("ui2c", "evaluate", "--checkpoint written_before/ui2c/first/last.ckpt"),
        (
            "dhvc",
            "evaluate",
            "--checkpoint written_before/dhvc_parallel/first/last.ckpt "
            "--rate 512 1024 --scales 1 3",
        ),
        ("x264", "anchor", "--codec x264 --qp 20 27 35 43 51"),
    ],
    ids=["ui2c", "dhvc", "x264"],
)
def test_a_finished_measurement_is_not_repeated(before, run, name, command, options):
    output = before / "measured" / f"{name}.json"
    written = read(output)
    clips = ("--sequences", before / "clips")
    printed = run(command, *options.split(), *ALIKE, *clips, "--output", output)
    count = len({point["rate"] for point in written["sequences"][0]["points"]})
    assert f"{count} of {count} points are there already" in printed.err
    assert read(output) == written


def test_an_unfinished_measurement_goes_on(before, run):
    output = before / "measured" / "unfinished.json"
    (part,) = output.with_suffix(".parts").glob("*.json")
    (kept,) = read(part)["sequences"][0]["points"]
    checkpoint = before / "ui2c" / "first" / "last.ckpt"
    printed = run(
        "evaluate",
        *("--checkpoint", checkpoint, "--estimate", "--rate", 21, 42, *ALIKE),
        *("--sequences", before / "clips", "--output", output),
    )
    assert "1 of 2 points are there already" in printed.err
    points = {p["rate"]: p for p in read(output)["sequences"][0]["points"]}
    assert points.keys() == {21.0, 42.0} and points[21.0] == kept
    assert points[42.0].keys() == kept.keys()
    assert points[42.0]["per_frame"].keys() == kept["per_frame"].keys()
    assert not part.exists()


def test_results_give_the_same_bd_rates(before, run):
    measured = before / "measured"
    files = [measured / f"{name}.json" for name in ("ui2c", "dhvc", "x264", "x265")]
    options = ("--anchor", "x264", "--metric", "psnr_yuv", "--output", "report")
    run("compare", *files, *options)
    whole = {**read(measured / "bd.json"), "paper_rows": []}
    assert read(Path("report") / "bd.json") == nearly(whole)


def test_what_dcvcs_tools_read_is_written_and_read_as_before(before, run):
    measured = before / "measured"
    written = measured / "x265.dcvc.json"
    run("results.exchange", measured / "x265.json", "again.json")
    assert read(Path("again.json")) == read(written)
    options = ("--metric", "psnr_yuv_unrounded", "--allow", "unstated", "definitions")
    files = (written, measured / "x264.json")
    printed = run("compare", *files, "--anchor", "x264", *options)
    assert "-4.54" in printed.out


def test_propagation_is_shown_again(before, run):
    report = before / "measured" / "propagation.json"
    printed = run("propagation", "--overlay", report, "--output", "shown")
    assert "DualDomain" in printed.out and "30.9" in printed.out
    assert (Path("shown") / "propagation.md").is_file()


def test_a_stream_with_losses_is_as_before(before, run):
    written = read(before / "measured" / "stream.json")
    run(
        *("stream", before / "clips" / "clip.y4m", "--output", "stream"),
        *("--checkpoint", before / "dhvc_parallel" / "first" / "last.ckpt"),
        *("--rate", 1024, "--lose", "3:2", "--echo_delay", 2, "none"),
        *("--dtype", "float64", "--device", "cpu", "--parity", 0),
    )
    found = read(Path("stream") / "stream.json")
    # What protects the first scale did not cost anything yet.
    assert found["options"].pop("parity") == 0
    for part in found["runs"]:
        for values in (part["mean"], *part["frames"]):
            assert values.pop("parity_bits") == 0
    # Nor was the depth of raw video read from a file's name.
    assert written["options"].pop("depth") == 8 and not found["options"].pop("depth")
    # And the instruction set was the machine's.
    assert found["options"].pop("isa") == "avx2"
    for name in ("codec", "video", "notes", "options", "runs"):
        assert found[name] == nearly(written[name]), name
