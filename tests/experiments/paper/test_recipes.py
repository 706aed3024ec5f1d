"""The suite's recipes: all that the papers have, and commands understand each line."""

from collections import Counter
from functools import cache
from importlib import import_module

import pytest

from experiments.cli.options import parse
from experiments.compare.papers import load_tables
from experiments.paper import plan as planning
from experiments.paper import training
from experiments.paper.figures import FIGURES
from experiments.paper.finish import fill, printed_table
from experiments.paper.recipe import read_recipe, shipped_recipes
from experiments.paper.values import QUANTITIES, Measured

RECIPES = shipped_recipes()

ASKED = {
    "ui2c": "table1 table2 table3 figure1 figure4 figure5 figure6",
    "dhvc": "table2 table3 figure3 figure7 figure8_15 figure9 figure10_16_19 "
    "figure11_20 figure12 figure13_22 figure21",
    "video_vae": "table1 table2 figure5_8 figure7",
    "dual_domain": "ablations propagation",
}
"""Tables and figures that the suite promises to make, by their papers' numbers."""

OPTIONS = {
    "evaluate": "EvaluateOptions",
    "anchor": "AnchorOptions",
    "profile": "ProfileOptions",
    "propagation": "PropagationOptions",
    "stream": "StreamOptions",
    "paper": "PaperOptions",
}

MODULES = {
    "evaluate": "experiments.evaluate.command",
    "anchor": "experiments.anchor.command",
    "profile": "experiments.profile.command",
    "propagation": "experiments.propagation.options",
    "stream": "experiments.stream.options",
    "paper": "experiments.paper.options",
}


@cache
def read(name):
    return read_recipe(RECIPES[name])


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """Return the plan of each recipe, with all variables set."""
    parsed = {}

    def once(name, run, layers, rehearsed):
        key = repr((run.config, run.options))
        if key not in parsed:
            parsed[key] = parse_run(name, run, layers, rehearsed)
        return parsed[key]

    with pytest.MonkeyPatch.context() as patch:
        parse_run = training._parsed
        patch.setattr(training, "_parsed", once)
        for name in RECIPES:
            for variable in read(name).variables():
                patch.setenv(variable, "/somewhere")
        output = tmp_path_factory.mktemp("papers")
        return {
            name: planning.make_plan(read(name), output / name.partition("/")[0])
            for name in RECIPES
        }


def test_every_table_and_figure_has_a_recipe():
    asked = {f"{codec}/{n}" for codec, own in ASKED.items() for n in own.split()}
    assert asked == RECIPES.keys()


def test_every_printed_table_of_the_papers_is_one_of_them():
    used = [printed_table(read(n).paper, read(n).table) for n in RECIPES]
    assert [t.source for t in load_tables() if t not in used] == []


@pytest.mark.parametrize("name", RECIPES)
def test_commands_understand_every_line(name, plans):
    for job in plans[name].jobs:
        if job.command == "fit":
            continue
        module = import_module(MODULES[job.command])
        words = list(job.arguments)
        if "--checkpoint" in words:
            # Must be there: any file is, until it is read.
            words[words.index("--checkpoint") + 1] = __file__
        try:
            parse(getattr(module, OPTIONS[job.command]), job.command, words)
        except SystemExit:
            pytest.fail(f"{job.command} does not know: {job.shown()}")


def test_fit_understands_a_run_that_forks(plans):
    from experiments.fit.options import build_parser

    jobs = [j for p in plans.values() for j in p.jobs if "--init_from" in j.arguments]
    options = build_parser().parse_args(list(jobs[0].arguments))
    assert options.init_from and options.from_stage in {s.name for s in options.stages}


@pytest.mark.parametrize("name", RECIPES)
def test_labels_figures_and_columns_are_known(name):
    recipe = read(name)
    if recipe.table:
        printed = printed_table(recipe.paper, recipe.table).rows.keys()
        assert printed <= recipe.rows.keys()
        assert recipe.rows.keys() - printed <= {recipe.anchor}
    else:
        assert recipe.columns and not recipe.paper
    assert recipe.figures.keys() <= FIGURES.keys()
    for told in recipe.figures.values():
        named = [*told.get("rows", ()), *([told["row"]] if "row" in told else [])]
        assert recipe.rows.keys() >= set(named)
    for column in recipe.columns:
        known = {"bd_rate", "mean", *QUANTITIES}
        assert column.quantity in known or ":" in column.quantity
    assert recipe.note.strip()
    assert all(recipe.rows.get(label) == [] or label for label in recipe.supply)
    empty = [label for label, row in recipe.rows.items() if not row]
    assert set(empty) <= recipe.supply.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_no_stage_is_trained_twice_and_nothing_in_vain(name, plans):
    plan = plans[name]
    pieces = plan.training.pieces
    trained = Counter((piece.run, stage) for piece in pieces for stage in piece.stages)
    assert set(trained.values()) <= {1}
    assert trained.keys() == {s for own in plan.training.stages.values() for s in own}
    assert plan.training.stages.keys() == read(name).runs.keys()


@pytest.mark.parametrize("codec", ASKED)
def test_a_run_is_the_same_in_all_recipes_of_its_codec(codec, plans):
    """They share its folder: its options, and the stages that it takes from others."""
    told, taken = {}, {}
    for name in (n for n in RECIPES if n.startswith(f"{codec}/")):
        for run, own in read(name).runs.items():
            assert told.setdefault(run, own) == own, (name, run)
        for run, stages in plans[name].training.stages.items():
            own = stages if stages[0][0] != run else ()
            assert taken.setdefault(run, own) == own, (name, run)
    distinct = {repr((own.config, own.options)) for own in told.values()}
    assert len(distinct) == len(told)


def test_what_forks_freeze_alone_is_in_one_model_only(plans):
    """A fork may share a stage that freezes more, if the other model lacks that."""
    from lightning_modules.dual_domain.codec import DualDomainCodec

    def module(base, path):
        small = {"size": "tiny", "z_prior": "scalar"}
        return dict(DualDomainCodec(**{**base, **small}).named_modules()).get(path)

    compared = 0
    for name, recipe in ((n, read(n)) for n in RECIPES):
        schedules = {
            run: training._parsed(run, own, [], False)
            for run, own in recipe.runs.items()
            if name == "dual_domain/ablations" and (own.fork or run == "dual_domain")
        }
        for run, own in schedules.items():
            fork = recipe.runs[run].fork
            other = schedules[fork.run] if fork else own
            rows = {row["name"]: row for row in other.rows}
            taken = plans[name].training.stages[run]
            for row in own.rows[: sum(owner != run for owner, _ in taken)]:
                mine, theirs = set(row["frozen"]), set(rows[row["name"]]["frozen"])
                for path, lacks in (
                    *((path, other) for path in mine - theirs),
                    *((path, own) for path in theirs - mine),
                ):
                    arguments = dict(lacks.base["model"]["init_args"])
                    for key in ("distortion", "initial", "lpips", "weight_decay"):
                        arguments.pop(key, None)
                    assert module(arguments, path) is None, (run, path)
                    compared += 1
    assert compared


def test_a_row_that_cannot_be_made_says_what_to_supply(plans):
    plan = plans["ui2c/table2"]
    rows = {label: Measured() for label in plan.recipe.rows}
    cells = {line.label: line.cells for line in fill(plan, rows, None).lines}
    assert "not in this suite" in cells["DCVC-DC"][0].reason
    assert cells["DCVC-RT"][0].reason == "not measured yet"
