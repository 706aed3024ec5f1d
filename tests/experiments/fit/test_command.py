"""``python -m experiments.fit``: every shipped configuration, and what can go wrong."""

import csv
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from callbacks.guards import StepGuard
from experiments.cli.configs import CONFIGS
from experiments.fit.command import main
from experiments.fit.run_folder import RunFolder
from experiments.fit.summary import summary
from experiments.paper.recipe import read_recipe, shipped_recipes
from lightning_modules import load_codec
from lightning_modules.stages import Stage
from lightning_modules.ui2c.module import UI2C

CODECS = sorted(
    set(CONFIGS.glob("*.yaml")) - {CONFIGS / "base.yaml", CONFIGS / "rehearsal.yaml"}
)
REHEARSED = {
    config
    for path in shipped_recipes().values()
    if not (recipe := read_recipe(path)).heavy
    for run in recipe.runs.values()
    for config in run.config
}
"""What tests of tables train and measure: their rehearsals have these."""

SHIPPED = [[codec] for codec in CODECS] + [
    [codec, ablation]
    for codec in CODECS
    for ablation in sorted((CONFIGS / "ablations" / codec.stem).glob("*.yaml"))
    if f"ablations/{codec.stem}/{ablation.stem}" not in REHEARSED
]


SHRINK = [
    "--shrink.total_steps=11",
    "--shrink.min_steps=1",
    "--shrink.frames=3",
    "--shrink.crop=32",
    "--shrink.batch_size=2",
]


def rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [
            (int(row["step"]), row["stage"], row["name"], float(row["value"]))
            for row in csv.DictReader(file)
        ]


def curve(run, name):
    return [row[3] for row in rows(run) if row[2] == name]


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def equal(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) for key in one
    )


@pytest.fixture(scope="module")
def finished(two_stages, tmp_path_factory):
    """A run of both stages, which tests copy to go on with it."""
    folder = tmp_path_factory.mktemp("finished")
    assert two_stages(folder, "--run=run") == 0
    return folder / "run"


@pytest.fixture
def copied(finished, tmp_path):
    """Its copy in a folder of runs of the test's own."""
    return shutil.copytree(finished, tmp_path / "run")


# Every shipped configuration


@pytest.mark.parametrize(
    "files", SHIPPED, ids=lambda files: "-".join(path.stem for path in files)
)
def test_a_shipped_configuration_trains_through_all_its_rows(
    fit_options, files, tmp_path, capsys
):
    ablation = len(files) > 1
    layers = [f"--config={path}" for path in (*files, CONFIGS / "rehearsal.yaml")]
    # The codec's own configuration validates; an ablation here only trains.
    options = [*SHRINK, *fit_options, *(["--data.val_clips=0"] if ablation else [])]
    if "lpips" in yaml.safe_load(files[0].read_text())["model"]["init_args"]:
        options.append("--model.lpips=random")
        if ablation and files[1].stem != "full_3d":
            options.append("--model.backbone=lean_vae")
    assert main([*layers, f"--runs_dir={tmp_path}", "--run=run", *options]) == 0
    said = capsys.readouterr().out.split("\nrun run: ")[1]
    run = tmp_path / "run"
    schedules = [yaml.safe_load(path.read_text()).get("stages") for path in files]
    names = [row["name"] for row in [rows for rows in schedules if rows][-1]]
    for name in names:
        assert (run / name / "last.ckpt").is_file()
        assert re.search(rf"{name} (\d+)/\1\b", said)
    codec = load_codec(run / names[-1] / "last.ckpt")
    frames = torch.rand(3, 3, 40, 56)
    packets = list(codec.compress(frames, codec.rate_knob.points[0]))
    assert len(list(codec.decompress(packets, 40, 56))) == 3
    assert f"folder: {run}" in said
    if not ablation:
        load_codec(run / name / "best.ckpt")
        for word in ("PSNR", "estimated bpp", "real bpp"):
            assert word in said
    last = run / names[-1] / "last.ckpt"
    for command in ("encode", "decode", "fit"):
        assert re.search(rf"python -m experiments\.{command} .*{last}", said)


def test_every_codec_has_a_configuration():
    import lightning_modules

    classes = {
        yaml.safe_load(path.read_text())["model"]["class_path"] for path in CODECS
    }
    assert classes == set(lightning_modules.CODECS)


# The main job


def test_without_arguments_it_rehearses_and_then_has_nothing_to_do(
    fit_options, tmp_path, capsys
):
    arguments = [f"--runs_dir={tmp_path}", *SHRINK, *fit_options]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    run = tmp_path / "ui2c-rehearsal"
    files = sorted(path for path in run.rglob("*") if path.suffix in (".ckpt", ".csv"))
    before = [(path, path.stat().st_mtime_ns, path.read_bytes()) for path in files]
    assert main(arguments) == 0
    again = capsys.readouterr().out
    after = [(path, path.stat().st_mtime_ns, path.read_bytes()) for path in files]
    assert after == before
    assert again.startswith("\nrun ui2c-rehearsal: ")
    assert first.endswith(again)


def test_only_the_suite_speaks(two_stages, tmp_path, caplog, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr("experiments.fit.loggers.choice.why_offline", lambda: "no key")
    assert two_stages(tmp_path, "--logger=auto") == 0
    said = [r.message for r in caplog.records if r.name.startswith("lightning")]
    assert said == ["W&B logs offline: no key"]


# Forks


def test_a_run_forks_from_anothers_stage_as_that_one_went_on(
    two_stages, finished, tmp_path, capsys
):
    first = finished / "first" / "last.ckpt"
    fork = [f"--init_from={first}", "--from_stage=second"]
    assert two_stages(tmp_path, "--run=fork", *fork) == 0
    said = capsys.readouterr().out
    total = len(weights(first))
    assert f"init_from {first}: {total} of {total} weights loaded" in said
    assert not (tmp_path / "fork" / "first").exists()
    runs = [run / "second" / "last.ckpt" for run in (finished, tmp_path / "fork")]
    assert equal(*(weights(path) for path in runs))
    assert [row[0] for row in rows(tmp_path / "fork") if row[2] == "train/loss"] == [
        1,
        2,
        3,
    ]
    assert "run fork: second 3/3 steps" in said


def test_weights_of_another_shape_are_reported_and_left_out(
    only_error, two_stages, finished, tmp_path, capsys
):
    last = finished / "second" / "last.ckpt"
    single = ["--run=single", "--model.init_args.frames_per_unit=1"]
    single.append(f"--init_from={last}")
    assert two_stages(tmp_path, *single) == 2
    message = r"error: init_from .* that is \d+\.\d%, less than 50% of the weights: .*"
    assert re.match(f"{message} --init_from_min_share 0 trains", only_error())
    assert not (tmp_path / "single").exists()
    assert two_stages(tmp_path, *single, "--init_from_min_share=0.01") == 0
    said = capsys.readouterr().out
    assert re.search(r"init_from .*: \d+ of \d+ weights loaded", said)
    assert re.search(r"\d+ shape differs: network\.\S+ \(.*\) instead of \(", said)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"codec.other": torch.ones(1)}}, "0 of .* nothing matches"),
        ({"other": torch.ones(1)}, "1 unexpected: other; nothing matches"),
        (None, "there is no such file"),
        ("not a checkpoint", "not a checkpoint"),
    ],
)
def test_weights_that_do_not_match_at_all_are_refused(
    only_error, two_stages, tmp_path, content, message
):
    path = tmp_path / "other.ckpt"
    if isinstance(content, str):
        path.write_text(content)
    elif content:
        torch.save(content, path)
    assert two_stages(tmp_path, f"--init_from={path}") == 2
    assert re.search(f"^error: .*{message}", only_error())
    assert not (tmp_path / "schedule").exists()


# Options that change


def test_a_run_that_has_begun_keeps_what_defines_it(
    schedule, only_error, two_stages, copied, tmp_path
):
    other = ["--seed=1", "--model.init_args.weight_decay=0.5"]
    assert two_stages(tmp_path, "--run=run", *other) == 2
    line = only_error()
    assert "model.init_args.weight_decay: 0.01 -> 0.5" in line
    assert "seed: 0 -> 1" in line
    assert "--init_from" in line
    stages = [{**schedule["stages"][0], "lr": 1e-3}, schedule["stages"][1]]
    assert two_stages(tmp_path, "--run=run", stages=stages) == 2
    assert "options (stages.first.lr: 0.0001 -> 0.001): give the old" in only_error()


def test_a_run_from_before_an_option_was_has_its_default(
    only_error, two_stages, copied, tmp_path
):
    path = copied / "config.yaml"
    before = yaml.safe_load(path.read_text())
    assert before["model"]["init_args"].pop("lpips") == "alex"
    for row in before["stages"]:
        del row["checkpoint_activations"]
    path.write_text(yaml.safe_dump(before))
    assert two_stages(tmp_path, "--run=run", "--model.lpips=vgg") == 2
    assert "model.init_args.lpips: 'alex' -> 'vgg'" in only_error()
    # An argument of the codec that there is no more, and that changed nothing.
    before["model"]["init_args"]["refresh"] = 0
    path.write_text(yaml.safe_dump(before))
    assert two_stages(tmp_path, "--run=run") == 0
    # One that did change something.
    before["model"]["init_args"]["refresh"] = 4
    path.write_text(yaml.safe_dump(before))
    assert two_stages(tmp_path, "--run=run") == 2
    assert "model.init_args.refresh: 4 -> None" in only_error()
    del before["model"]["init_args"]["refresh"]
    # An option that there is no more.
    path.write_text(yaml.safe_dump({**before, "gone": 3}))
    assert two_stages(tmp_path, "--run=run") == 2
    assert "gone: 3 -> None" in only_error()
    path.write_text(yaml.safe_dump(before))
    assert two_stages(tmp_path, "--run=run") == 0


def test_where_it_runs_may_change(two_stages, copied, tmp_path):
    shutil.rmtree(copied / "second")
    free = ["--data.workers=1", "--logger=none", "--trainer.devices=1"]
    free += ["--trainer.log_every_n_steps=2", "--trainer.save_every_n_steps=1"]
    assert two_stages(tmp_path, "--run=run", *free) == 0
    assert (copied / "second" / "last.ckpt").exists()


def test_a_run_that_got_nowhere_may_begin_otherwise(only_error, two_stages, tmp_path):
    assert two_stages(tmp_path, "--run=run", "--data.root=nowhere") == 2
    assert "'synthetic' has no root" in only_error()
    assert two_stages(tmp_path, "--run=run", "--seed=1") == 0


# Steps


def test_steps_with_a_gradient_that_is_not_finite_are_skipped(
    two_stages, tmp_path, monkeypatch
):
    original = UI2C.terms

    def terms(self, draw, out):
        scale = float("nan") if bad(self) else 1.0
        return {name: term * scale for name, term in original(self, draw, out).items()}

    def bad(module):
        return module.training and module.run_step in (2, 3)

    monkeypatch.setattr(UI2C, "terms", terms)
    assert two_stages(tmp_path, "--run=run") == 0
    assert curve(tmp_path / "run", "train/skipped_steps") == [0, 0, 1, 2, 2]
    for stage in ("first", "second"):
        for weight in weights(tmp_path / "run" / stage / "last.ckpt").values():
            assert torch.isfinite(weight).all()


def test_a_run_can_end_with_a_stage_and_go_on_later(
    two_stages, finished, tmp_path, capsys
):
    assert two_stages(tmp_path, "--run=run", "--to_stage=first") == 0
    said = capsys.readouterr()
    assert "run run: first 2/2 steps" in said.out
    assert said.err.count("data: synthetic") == 1
    assert not (tmp_path / "run" / "second").exists()
    assert two_stages(tmp_path, "--run=run") == 0
    last = Path("second", "last.ckpt")
    assert equal(weights(finished / last), weights(tmp_path / "run" / last))
    order = ["--run=other", "--from_stage=second", "--to_stage=first"]
    assert two_stages(tmp_path, *order) == 2
    assert "comes before" in capsys.readouterr().err


def test_the_summary_takes_the_newest_rows_and_no_torn_one(tmp_path):
    rows = "step,stage,name,value\n1,a,val/psnr,20.0\n2,a,val/psnr,21.5\n3,a,val/ps"
    (tmp_path / "metrics.csv").write_text(rows)
    text = summary(RunFolder(tmp_path), [Stage("a", 3, 1)], None, None, 1.0)
    assert "PSNR 21.50 dB" in text and "a 0/3" in text


def test_too_many_of_them_end_the_run(two_stages, tmp_path, monkeypatch, capsys):
    original = UI2C.terms

    def terms(self, draw, out):
        return {
            name: term * torch.nan for name, term in original(self, draw, out).items()
        }

    monkeypatch.setattr(UI2C, "terms", terms)
    assert two_stages(tmp_path, "--run=run", "--trainer.max_bad_steps=1") == 1
    lines = capsys.readouterr().err.splitlines()
    assert any("2 steps in a row" in s and "not finite" in s for s in lines)


@pytest.mark.parametrize("unroll", ["clip", "unit"])
def test_accumulated_batches_give_the_same_curve(
    schedule, two_stages, tmp_path, unroll
):
    row = {"batch_size": 4, "steps": 5, "lr": 1e-3, "unroll": unroll}
    stages = [{**schedule["stages"][1], **row}]
    assert two_stages(tmp_path, "--run=whole", stages=stages) == 0
    halves = "--trainer.accumulate_grad_batches=2"
    assert two_stages(tmp_path, "--run=halves", halves, stages=stages) == 0
    runs = [tmp_path / name for name in ("whole", "halves")]
    for name in (
        "train/loss",
        "train/bpp",
        "train/psnr",
        "train/grad_norm",
        "val/loss",
    ):
        ours, theirs = (curve(run, name) for run in runs)
        # Of clips, of which one is of one unit only.
        clips = 3 if unroll == "unit" and name != "train/grad_norm" else 5
        assert len(ours) == (1 if name == "val/loss" else clips)
        assert theirs == pytest.approx(ours, rel=1e-4)


def test_a_stage_may_clip_the_gradient_to_a_norm_of_its_own(
    schedule, two_stages, tmp_path, monkeypatch
):
    norms = []
    monkeypatch.setattr(
        "experiments.fit.run.StepGuard",
        lambda norm, *more: norms.append(norm) or StepGuard(norm, *more),
    )
    stages = [{**schedule["stages"][0], "clip_norm": 0.1}, schedule["stages"][1]]
    assert two_stages(tmp_path, "--run=run", stages=stages) == 0
    assert norms == [0.1, 0.2]


def test_divided_models_train_one_after_the_other(schedule, two_stages, tmp_path):
    image = {"options": {"lmbda_range": [10, 2048]}, "data": {"val_frames": 1}}
    stages = [
        {**schedule["stages"][0], "frames": 1, "trainable": ["intra"], **image},
        {**schedule["stages"][1], "frames": 3, "frozen": ["intra"], "unroll": "unit"},
    ]
    divided = ["frames_per_unit=1", "divided=true", "hybrid_references=false"]
    options = [f"--model.init_args.{each}" for each in divided]
    assert two_stages(tmp_path, "--run=run", *options, stages=stages) == 0
    first, second = (
        weights(tmp_path / "run" / stage / "last.ckpt") for stage in ("first", "second")
    )
    moved = {key for key in first if not torch.equal(first[key], second[key])}
    assert moved and not [key for key in moved if key.startswith("codec.intra.")]
    # Only intra trained before.
    torch.manual_seed(0)
    start = UI2C(size="tiny", frames_per_unit=1, divided=True).state_dict()
    kept = {key for key in first if torch.equal(first[key], start[key])}
    assert {key for key in first if "network" in key} <= kept
    assert not all(key in kept for key in first if key.startswith("codec.intra."))


# Mistakes


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"weights": {"distorsion": 2.0}},
            "'second' weighs .*'distorsion'.* there are",
        ),
        ({"trainable": ["network.encodr"]}, "'second' names .*'network.encodr'"),
        ({"frozen": ["netwrk"]}, "'second' names .*'netwrk'.*network"),
        ({"options": {"referenses": {}}}, "'referenses'.* unknown.*'references'"),
        ({"options": {"lmbda_range": [2, 1]}}, r"lmbda_range is \[2, 1\].*above 0"),
        ({"clip_norm": 0}, "'second': clip_norm is 0.* above 0"),
        ({"data": {"sorce": "folder"}}, "cannot change sorce .*can change source"),
        ({"data": {"root": "${NO_SUCH}"}}, "variable NO_SUCH is not set.*--data.root"),
        ({"batch_size": 3}, "'second': batch_size 3 .* 1 devices x 2 .*multiple of 2"),
    ],
)
def test_a_mistake_in_a_later_row_is_told_before_the_first(
    schedule, only_error, two_stages, tmp_path, row, message
):
    stages = [schedule["stages"][0], {**schedule["stages"][1], **row}]
    options = ["--trainer.accumulate_grad_batches=2"] if "batch_size" in row else []
    assert two_stages(tmp_path, "--run=run", *options, stages=stages) == 2
    assert re.search(f"^error: .*{message}", only_error())
    assert not (tmp_path / "run" / "first").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainer.clipnorm=1"], "trainer.clipnorm"),
        (["--model.init_args.sise=tiny"], "sise"),
        (["--model=UI3C"], "UI3C"),
        (["--config=nowhere.yaml"], "nowhere.yaml"),
        (["--logger=wandb"], "logger"),
    ],
)
def test_a_misspelt_option_is_named(two_stages, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as end:
        two_stages(tmp_path, *options)
    assert end.value.code == 2
    assert message in capsys.readouterr().err.split("error:")[-1]


def test_a_misspelt_field_of_a_row_is_named(schedule, two_stages, tmp_path, capsys):
    stages = [{**schedule["stages"][0], "stepz": 3}]
    with pytest.raises(SystemExit) as end:
        two_stages(tmp_path, stages=stages)
    assert end.value.code == 2
    assert "stepz" in capsys.readouterr().err.split("error:")[-1]


def test_an_unknown_stage_lists_those_there_are(only_error, two_stages, tmp_path):
    assert two_stages(tmp_path, "--from_stage=third") == 2
    line = only_error()
    assert "--from_stage 'third' is no stage: choose from first, second" in line


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (None, "variable VIMEO90K is not set"),
        (
            "nowhere",
            "nowhere' does not exist; it should be a directory with `sequences/`",
        ),
        ("empty", "looked for sequences/ in .*empty"),
    ],
)
def test_missing_data_is_named(only_error, tmp_path, monkeypatch, root, message):
    monkeypatch.delenv("VIMEO90K", raising=False)
    monkeypatch.setenv("LONG_CLIPS", str(tmp_path))
    (tmp_path / "empty").mkdir()
    if root:
        monkeypatch.setenv("VIMEO90K", str(tmp_path / root))
    config = [f"--config={CONFIGS / 'ui2c.yaml'}", "--model.init_args.size=tiny"]
    arguments = [*config, f"--runs_dir={tmp_path}", "--logger=csv"]
    assert main([*arguments, "--trainer.accelerator=cpu"]) == 2
    assert re.search(message, only_error())
