"""Layers of options: rows by name, data for all rows, and errors of one line."""

import pytest
import yaml

from experiments.cli.configs import CONFIGS
from experiments.fit.options import build_parser, instantiate, plain
from experiments.fit.run import schedule as rows_of

UI2C = f"--config={CONFIGS / 'ui2c.yaml'}"
DHVC = f"--config={CONFIGS / 'dhvc.yaml'}"
REHEARSAL = f"--config={CONFIGS / 'rehearsal.yaml'}"
DIVIDED = CONFIGS / "ablations" / "ui2c" / "divided.yaml"


@pytest.fixture(scope="module")
def parser():
    return build_parser()


@pytest.fixture
def parse(parser):
    """Return the plain options of a command line."""
    return lambda *arguments: plain(parser, parser.parse_args(list(arguments)))


@pytest.fixture
def refusal(parser, only_error):
    """Return the one line that a command line ends with."""

    def read(*arguments):
        with pytest.raises(SystemExit) as end:
            parser.parse_args(list(arguments))
        assert end.value.code == 2
        return only_error()

    return read


@pytest.fixture
def layer(tmp_path):
    """Write a layer and return the option that reads it."""

    def write(**options):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.yaml"
        path.write_text(yaml.safe_dump(options))
        return f"--config={path}"

    return write


@pytest.fixture
def base(schedule, layer):
    return layer(**schedule)


def test_the_command_line_changes_single_rows_and_all(parse, base, schedule):
    expected = parse(base)
    for row in expected["stages"]:
        row["batch_size"] = 8
    expected["stages"][0] |= {"lr": 1e-3, "precision": "bf16-mixed"}
    expected["stages"][1] |= {"batch_size": 4, "weights": {"rate": 0.5}}
    rows = ["--stages.first.lr", "1e-3", "--stages.first.precision=bf16-mixed"]
    rows.append("--stages.first.clip_norm=null")
    rows += ["--stages.second.weights.rate=0.5", "--stages.second.batch_size", "4"]
    # A single row is meant where both name it, and the order is no matter.
    assert parse(*rows, base, "--stages.all.batch_size", "8") == expected


def test_a_later_layer_changes_rows_by_name(parse, base, layer):
    expected = parse(base)
    expected["stages"][0] |= {"lr": 0.01, "data": {"stride": 2, "flip": False}}
    expected["stages"][1] |= {"steps": 7}
    changes = {"first": {"lr": 0.01, "data": {"stride": 2}}, "second": {"steps": 7}}
    later = layer(stages={"first": {"data": {"flip": False}}})
    assert parse(base, layer(stages=changes), later) == expected


def test_what_a_run_stores_is_a_schedule_again(parse, base, layer):
    stored = parse(base, "--stages.first.lr=0.01")
    assert isinstance(stored["stages"], list)
    assert parse(layer(**stored)) == stored


def test_a_row_whose_name_has_a_dot_can_be_changed(parse, schedule, layer):
    names = ("a", "a.b")
    stages = [{**schedule["stages"][0], "name": name} for name in names]
    rows = parse(layer(**{**schedule, "stages": stages}), "--stages.a.b.lr=1")["stages"]
    assert [row["lr"] for row in rows] == [1e-4, 1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--stages.lr", "1e-3"],
            "--stages.lr does not name a row: give --stages.all.lr for every row, "
            "or --stages.NAME.lr, where NAME is one of first, second",
        ),
        (
            ["--stages.frist.lr=1"],
            "no row 'frist' (did you mean first?); there are",
        ),
        (
            ["--stages.first.stepz=1"],
            "first: a row has no 'stepz' (did you mean steps?)",
        ),
        (["--stages.first.lr=fast"], "lr: expected float. Got value: fast"),
        (["--stages.first=3"], "--stages.first is 3, it must be fields"),
        (["--stages.first.lr"], "--stages.first.lr: expected a value"),
        (["--stages.first.lr", "--seed=1"], "--stages.first.lr: expected a value"),
    ],
)
def test_a_row_that_is_not_there_is_one_line(refusal, base, options, message):
    assert message in refusal(base, *options)


def test_a_layer_of_rows_needs_a_schedule_before_it(refusal, base, layer, schedule):
    rows = layer(stages={"first": {"lr": 1.0}})
    line = refusal(rows, base)
    assert "first changes rows of a schedule, but no layer before it has one" in line
    taken = [{**schedule["stages"][0], "name": "all"}]
    line = refusal(layer(**{**schedule, "stages": taken}), "--stages.all.lr=1")
    assert "a row is called 'all', which stands for every row" in line


def test_data_on_the_command_line_holds_for_every_row(parse, monkeypatch):
    monkeypatch.setenv("LONG_CLIPS", "/long")
    own = parse(UI2C)["stages"]
    assert sum(bool(row["data"]) for row in own) == 8
    given = ["--data.source", "folder", "--data.root=/mine"]
    rows = parse(*given, UI2C)["stages"]
    assert [row["data"] for row in rows[:6]] == [{}] * 6
    assert [row["data"] for row in rows[6:]] == [
        {"val_clips": 22, "val_frames": 96}
    ] * 5
    rows = parse(UI2C, "--data", "{root: /mine}", "--stages.clip_8.data.root=/its")[
        "stages"
    ]
    assert rows[3]["data"] == {"source": "folder", "root": "/its"}
    assert rows[4]["data"] == {"source": "folder"}


def test_one_option_makes_a_short_run_of_any_schedule(parser):
    arguments = [UI2C, "--model.size=tiny", "--shrink.total_steps", "200"]
    stages, first = rows_of(instantiate(parser, parser.parse_args(arguments)))
    assert (len(stages), first) == (11, 0)
    assert 200 <= sum(stage.steps for stage in stages) <= 310


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            [f"--config={DIVIDED}"],
            "divided.yaml changes options of a codec and "
            "names none, so it layers on a codec: put it",
        ),
        ([REHEARSAL, UI2C], "rehearsal.yaml changes options of a codec and names none"),
        (
            [DHVC, f"--config={DIVIDED}"],
            "divided.yaml: DHVC has no option "
            "'frames_per_unit' (that is one of UI2C, VideoVAE: an ablation of another ",
        ),
        (
            [UI2C, "--model.lmbda_rnge=[1,2]"],
            "UI2C has no option 'lmbda_rnge' (did you mean lmbda_range?)",
        ),
        (
            [UI2C, "--model.size", "large"],
            "model.size: choose 'paper', 'small', 's",
        ),
        (
            ["--model", "UI3C"],
            "no codec 'UI3C' (did you mean UI2C?); choose fr",
        ),
        ([UI2C, "--model", "ui2c"], "no codec 'ui2c' (did you mean UI2C?); choose"),
        ([UI2C, "--model.lmbda_range", "1,2"], "lmbda_range: expected [A,B]. Got"),
        ([UI2C, "--trainer.devces=2"], "devces=2 (did you mean --trainer.devices?)"),
        ([UI2C, "--devices=2"], "--devices=2 (did you mean --trainer.devices?)"),
        ([UI2C, "--lr=1"], "--lr=1 (did you mean --stages.all.lr?)"),
        ([UI2C, "--max_steps=1"], "--max_steps=1 (did you mean --shrink.total_steps?)"),
        (
            [UI2C, "--trainer.devices=x"],
            "devices: expected int or 'auto'. Got value: x",
        ),
        ([UI2C, "--stages.pairs_1.lr=x"], "--stages.pairs_1: lr: expected float. Got"),
        ([UI2C, "--stages.all.precision=3"], "precision: expected str or null. Got"),
        # A beginning would not be known for data of every row.
        ([UI2C, "--data.roo=x"], "--data.roo=x (did you mean --data.root?)"),
        (
            [UI2C, "--shrink.total_step=2"],
            "'total_step' (did you mean total_steps?)",
        ),
        (["ui2c"], "arguments: ui2c (did you mean --config ui2c?); every value"),
        ([UI2C, "word"], "arguments: word; every value belongs to an option; --help"),
        (["--config=ui2c.yml"], "(did you mean ui2c?); --list_configs shows"),
    ],
)
def test_what_fits_nothing_is_one_line_with_the_nearest_name(refusal, options, message):
    assert message in refusal(*options)


def test_a_layer_of_an_unknown_codec_names_those_there_are(refusal, layer):
    line = refusal(layer(model={"class_path": "UI2D", "init_args": {"size": "tiny"}}))
    assert "there is no codec 'UI2D' (did you mean UI2C?); choose from " in line


def test_what_is_printed_has_every_layer(parser, base, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["--print_config", base, "--stages.first.lr=0.25"])
    shown = yaml.safe_load(capsys.readouterr().out)
    assert [row["lr"] for row in shown["stages"]] == [0.25, 1e-4]
