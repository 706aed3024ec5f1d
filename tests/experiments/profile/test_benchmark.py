"""The benchmark: its parts fail, hang and die apart, and what was measured stays."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import experiments
from experiments.profile.benchmark import (
    command,
    data,
    gpu_tests,
    loader_memory,
    training,
)
from experiments.profile.benchmark.codecs import base_configs, rows
from experiments.profile.benchmark.command import PARTS, main
from experiments.profile.benchmark.figures import Figure, Settings
from experiments.profile.benchmark.part import Outcome
from experiments.profile.benchmark.report import Report
from experiments.profile.benchmark.watched_fit import Stopwatch
from experiments.results.origin import versions

ROOT = Path(experiments.__path__[0]).parent

TOYS = {
    "good": "yield Figure('bytes', 3, 'bytes', 'at most 4', str(settings.form))",
    "bad": "yield Figure('first', 1.5, 's')\n    raise ValueError('no such\\nthing')",
    "bug": "yield Figure('first', 1.5, 's')\n    return 1 / 0",
    "nan": "yield Figure('error', float('nan'), 'dB')\n    yield Figure('one', 1, 's')",
    "half": "yield Figure('one', None, 's', error='not here')",
    "dead": "yield Figure('first', 2, 's')\n    os._exit(7)",
    "slow": "yield Figure('first', 2, 's')\n    sleep()",
}


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Run toy parts; returns the exit code and the report."""
    for name, body in TOYS.items():
        (tmp_path / f"toy_{name}.py").write_text(
            "import os, subprocess\n"
            "from experiments.profile.benchmark.figures import Figure\n"
            "def sleep():\n"
            f"    process = subprocess.Popen(['sleep', '600'])\n"
            f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(process.pid))\n"
            "    process.wait()\n"
            f"def measure(settings):\n    {body}\n"
        )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(command, "LEAST", 0.1)
    for name in TOYS:
        monkeypatch.setitem(PARTS, name, f"toy_{name}")
    output = tmp_path / "out" / "b.json"

    def run(*arguments):
        code = main(["--form=small", "--device=cpu", f"--output={output}", *arguments])
        return code, json.loads(output.read_text())

    return run


def test_a_part_that_fails_is_named_and_the_others_still_run(bench, capsys, tmp_path):
    code, report = bench("--parts", "bad", "bug", "half", "dead", "good")
    assert code == 1
    assert report["unfinished"] == []
    errors = [outcome["error"] for outcome in report["outcomes"]]
    assert errors[0] == "no such thing"
    assert errors[1] == "ZeroDivisionError: division by zero"
    assert errors[2] == errors[4] == ""
    assert errors[3] == "its process ended with exit code 7: it said nothing"
    counts = [len(outcome["figures"]) for outcome in report["outcomes"]]
    assert counts == [1, 1, 1, 1, 1]
    page = (tmp_path / "out" / "b.md").read_text()
    assert "| bytes | 3 | bytes | at most 4 | small |" in page
    assert "* **failed**: no such thing" in page
    assert "* **failed**: one: not here" in page
    assert f"| torch | {versions()['torch']} |" in page
    captured = capsys.readouterr()
    assert "failed: dead: its process ended with exit code 7" in captured.err
    assert "are left for all" in captured.err
    assert "bytes" in captured.out


def test_a_figure_that_is_no_number_is_a_failure_and_no_end(bench):
    code, report = bench("--parts", "nan", "good")
    figures = report["outcomes"][0]["figures"]
    assert [figure["value"] for figure in figures] == [None, 1]
    assert figures[0]["error"] == "it is nan, which is no number"
    assert (code, report["unfinished"]) == (1, [])


@pytest.mark.parametrize("part", [data, loader_memory])
def test_what_reads_videos_is_left_out_where_nothing_can(part, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    (figure,) = part.measure(Settings(scratch=tmp_path))
    assert figure.note.startswith("left out: it needs the package av")


def test_a_part_that_hangs_is_stopped_with_all_that_it_started(bench, tmp_path):
    code, report = bench("--parts", "slow", "--minutes", "0.05")
    assert code == 1
    (outcome,) = report["outcomes"]
    assert outcome["error"] == "stopped after the 3 s that it had"
    assert [figure["value"] for figure in outcome["figures"]] == [2]
    state = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    for _ in range(50):
        if not state.exists() or state.read_text().split()[2] == "Z":
            break
        time.sleep(0.05)
    else:
        raise AssertionError("its child still runs")


def test_what_there_is_no_time_for_is_said_and_unfinished(bench, capsys, monkeypatch):
    monkeypatch.setattr(command, "LEAST", 2.0)
    code, report = bench("--parts", "good", "bad", "--minutes", "0.1")
    assert code == 0
    # A share of six seconds is less than the two that a part needs.
    assert report["unfinished"] == ["good", "bad"]
    assert "left out, for the 0:06 are over: good, bad" in capsys.readouterr().err


def test_a_command_that_is_stopped_keeps_what_it_has(bench, tmp_path, monkeypatch):
    def stop(name, module, settings):
        if name == "bad":
            raise KeyboardInterrupt
        return Outcome(name, 1.0, [Figure("bytes", 3, "bytes")])

    monkeypatch.setattr("experiments.profile.benchmark.part.run_part", stop)
    code, report = bench("--parts", "good", "bad", "half")
    assert code == 130
    assert [outcome["name"] for outcome in report["outcomes"]] == ["good"]
    assert report["unfinished"] == ["bad", "half"]
    assert "**Unfinished**: bad, half" in (tmp_path / "out" / "b.md").read_text()


def test_nothing_is_written_where_a_file_fails(tmp_path):
    report = Report("small", {"cpu": "x"})
    report.write(tmp_path / "b.json")
    before = (tmp_path / "b.json").read_bytes()
    report.outcomes.append(Outcome("a", 1.0, [Figure("x", float("nan"), "s")]))
    with pytest.raises(ValueError, match="JSON"):
        report.write(tmp_path / "b.json")
    assert (tmp_path / "b.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.json", "b.md"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--parts", "fti"], "choose from"),
        (["--output", "b.txt"], "must end in .json"),
        (["--minutes", "0"], "--minutes is 0.0"),
        (["--clips", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_wrong_options_are_one_line(arguments, named, capsys):
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert named in capsys.readouterr().err


def test_every_codec_has_a_heaviest_row():
    names = base_configs()
    assert len(names) >= 4
    for name in names:
        pixels = [r.frames * r.crop**2 * r.batch_size for r in rows(name)]
        assert pixels == sorted(pixels, reverse=True)


def test_a_row_that_does_not_fit_gives_way_to_the_next(tmp_path, monkeypatch):
    from experiments.profile.benchmark import fit

    tried = []

    def train(name, row, settings, seconds, *more):
        tried.append(row.name)
        if len(tried) < 3:
            raise training.MemoryRanOutError("no memory")
        return training.Timed(0.5, 2, 2**30, 0.25)

    monkeypatch.setattr(fit, "train", train)
    monkeypatch.setattr(fit, "base_configs", lambda: base_configs()[:1])
    monkeypatch.setattr(fit, "layers", lambda name, form: [name])
    monkeypatch.setattr(fit, "has_option", lambda name: False)
    settings = Settings(scratch=tmp_path, seconds=60)
    figures = list(fit.measure(settings))
    assert tried == [row.name for row in rows(base_configs()[0])][:3]
    assert [figure.value for figure in figures] == [2.0, 1.0, 25.0]
    monkeypatch.setattr(
        fit, "train", lambda *a: (_ for _ in ()).throw(ValueError("exit code 2: why"))
    )
    (failed,) = fit.measure(settings)
    assert failed.error == "exit code 2: why"


def test_a_step_is_the_mean_of_the_second_half(tmp_path, monkeypatch):
    clock = iter([0.0, 9.0, 10.0, 11.0, 11.5])
    ended = []
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(os, "_exit", ended.append)
    watch = Stopwatch(tmp_path / "t.json", 4, time.time() + 60)
    for _ in range(4):
        watch.step()
    assert ended == [0]
    found = json.loads((tmp_path / "t.json").read_text())
    assert (found["seconds"], found["steps"]) == (1.25, 2)


def test_waiting_for_data_is_read_from_the_runs_own_figures(tmp_path):
    path = tmp_path / "metrics.csv"
    assert training.data_wait(path) is None
    path.write_text("step,stage,name,value\n5,a,train/loss,1\n")
    assert training.data_wait(path) is None
    rows = "".join(
        f"{n},a,train/data_wait,{v}\n" for n, v in enumerate((0.9, 0.1, 0.3))
    )
    path.write_text(f"step,stage,name,value\n{rows}")
    assert training.data_wait(path) == pytest.approx(0.2)


def test_a_gpu_test_that_fails_is_named(tmp_path, monkeypatch):
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_toy.py").write_text(
        "import pytest\n@pytest.mark.gpu\ndef test_a():\n    assert 1 == 2\n"
        "@pytest.mark.gpu\ndef test_b():\n    pass\ndef test_c():\n    assert 0\n"
    )
    (tests / "test_other.py").write_text("import nothing_like_it\n")
    monkeypatch.setattr(gpu_tests, "ROOT", tmp_path)
    passed, failed = gpu_tests.measure(Settings(scratch=tmp_path))
    assert (passed.value, failed.value) == (1, 1)
    assert "test_toy::test_a: assert 1 == 2" in failed.error
    (tests / "test_toy.py").unlink()
    (none,) = gpu_tests.measure(Settings(scratch=tmp_path))
    assert "left out" in none.note and not none.error


LACKING = ("av", "decord", "compressai", "lpips", "piq", "imageio_ffmpeg")

TRAINS_AND_CODES = """
import sys
for name in {names}:
    sys.modules[name] = None
from pathlib import Path
from experiments.fit.command import main
from experiments.profile.benchmark import codecs, coding, determinism, fit, one_rank
from experiments.profile.benchmark.figures import Settings
from experiments.profile.benchmark.training import options_of
settings = Settings(scratch=Path({scratch!r}))
name = [n for n in codecs.base_configs() if codecs.rows(n)[0].unroll == "clip"][0]
row = codecs.rows(name)[-1]
options = options_of(name, row, settings)
assert main([*options, "--run=r", f"--stages.{{row.name}}.steps=2"]) == 0
needing, ways = [], []
for each in codecs.base_configs():
    try:
        codec = codecs.build(codecs.layers(each, "small"))
        usual = codec.coding
        ways += determinism.exact_ways(codec)
        assert codec.coding == usual
    except codecs.LackingError as error:
        assert "compressai" in codecs.left_out(each, error).note
        needing.append(each)
assert len(needing) <= 1, needing
# One codec can be told to decode alike everywhere.
assert ways
coding.base_configs = determinism.base_configs = lambda: [name]
figures = [*coding.measure(settings), *determinism.measure(settings)]
assert not [f for f in figures if f.error], figures
"""


def test_a_bare_machine_trains_codes_and_compares(tmp_path):
    program = TRAINS_AND_CODES.format(names=LACKING, scratch=str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_part_can_be_imported():
    for module in list(PARTS.values()):
        done = __import__(module, fromlist=["measure"])
        assert callable(done.measure)
