"""A recipe is data: which runs, which measurements, and the table they make.

Recipes of the papers are YAML files below ``recipes/``, by codec and number; a file of
one's own has the same keys. ``README.md`` beside this module explains them.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import yaml

from datamodules.texts import read_text
from experiments.cli.command import nearest
from experiments.results.typed_json import STRICT, ResultError, read_typed

RECIPES = Path(__file__).with_name("recipes")

MEASURES = ("evaluate", "anchor", "profile", "propagation", "stream", "results")
"""What a row's measurement may be; ``results`` are files that another program made."""

OF_A_RUN = ("evaluate", "profile", "propagation", "stream")
"""Those that need a run of the recipe; ``profile`` may have configurations instead."""

POINTS = ("rate", "qp", "quality")
"""Options that choose points of a curve, and no other curve."""

VARIABLE = re.compile(r"\$\{(\w+)\}")

Options = dict[str, Any]
"""Options of a command by their names, without dashes: a list is several values, true
an option that has none, false and null leave it out."""


@dataclass(frozen=True)
class Fork:
    """Where a run leaves another one.

    Attributes:
        run: Name of the other, in the same recipe.
        stage: Its last stage that both share. The other may have more stages before,
            and freeze parts that this one lacks.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    run: str
    stage: str


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        config: Configurations in layers, as ``fit --config`` takes them.
        options: Further options of ``fit``, by dotted name.
        fork: Where it leaves another run though their models differ: in parts that
            stages before do not train. Equal runs share stages without being told.
        rehearse: Options of ``fit`` that a rehearsal has besides.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    config: list[str]
    options: Options = field(default_factory=dict)
    fork: Fork | None = None
    rehearse: Options = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """What one command measures.

    Attributes:
        command: One of ``MEASURES``.
        of: The run, the anchor's codec, the file of ``results``, or for ``profile``
            also configurations, joined by blanks. Weights that others trained stand for
            a run by their file: a path with a slash, or a ``${VARIABLE}``.
        name: What result files and figures call it.
        options: Of the command, over those of the recipe's protocol.
        rehearse: Options that replace some of them in a rehearsal; ``of`` replaces the
            codec of an anchor that needs a program of its own, and a file of weights by
            a run. Null leaves it out of a rehearsal.
        supply: What to supply, and where, before this can be measured; empty if the
            suite needs nothing but the data.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    command: str
    of: str
    name: str
    options: Options = field(default_factory=dict)
    rehearse: Options | None = field(default_factory=dict)
    supply: str = ""

    @property
    def of_weights(self) -> bool:
        """Whether it is of a file of weights, in place of a run."""
        coded = self.command in OF_A_RUN and self.command != "profile"
        return coded and _is_file(self.of)


@dataclass(frozen=True)
class Column:
    """One column of a table of one's own.

    Attributes:
        quantity: As of :class:`~experiments.compare.papers.PaperColumn`.
        title: Its head.
        set: Test set, where it is of one.
        metric: Of a ``bd_rate``, or of a value at ``rate``.
        rate: Of values at one rate point.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    quantity: str
    title: str
    set: str | None = None
    metric: str | None = None
    rate: float | None = None


@dataclass(frozen=True)
class Recipe:
    """One table or figure.

    Attributes:
        name: ``codec/table3``, or the stem of a file of one's own.
        path: Its file.
        title: What it shows.
        paper: Stem of the file in ``experiments/compare/papers`` that has its printed
            cells, or empty.
        table: Number of the table there, or empty.
        sequences: What ``--sequences`` gets: specs with ``${VARIABLE}`` for folders.
        protocol: Options that ``evaluate`` and ``anchor`` share; those that only one
            of them knows (``rate``, ``qp``) the other is not given.
        runs: By name.
        rows: By label, in the table's order: what is measured for it.
        columns: Of a table that no paper printed.
        published: Printed cells by row label, where no file in ``compare/papers`` has
            them.
        anchor: Label of the row that BD-rates are against.
        metrics: Of BD-rates and plots.
        compare: Further options of ``compare``; null for no comparison.
        figures: Drawings beyond those of ``compare``: names in
            ``experiments.paper.figures.FIGURES`` with their arguments.
        note: What the reader must know besides.
        supply: What cannot be made here: by row label, what to supply and where.
        rehearse: Options of the protocol that are smaller in a rehearsal.
        heavy: Whether its rehearsal takes so long that tests leave it out.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    path: Path
    title: str
    paper: str = ""
    table: str = ""
    sequences: list[str] = field(default_factory=list)
    protocol: Options = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    rows: dict[str, list[Measurement]] = field(default_factory=dict)
    columns: list[Column] = field(default_factory=list)
    published: dict[str, list[str]] = field(default_factory=dict)
    anchor: str = ""
    metrics: list[str] = field(default_factory=list)
    compare: Options | None = field(default_factory=dict)
    figures: dict[str, Options] = field(default_factory=dict)
    note: str = ""
    supply: dict[str, str] = field(default_factory=dict)
    rehearse: Options = field(default_factory=dict)
    heavy: bool = False

    @cached_property
    def measurements(self) -> tuple[Measurement, ...]:
        """Every measurement once, in the order of the rows."""
        every = [m for row in self.rows.values() for m in row]
        return tuple({(m.command, m.name, m.of): m for m in every}.values())

    def variables(self) -> list[str]:
        """Return the environment variables that its sequences and options name."""
        texts = [*self.sequences, *map(str, _leaves(self.protocol))]
        texts += [str(leaf) for m in self.measurements for leaf in _leaves(m.options)]
        texts += [m.of for m in self.measurements]
        texts += [str(leaf) for r in self.runs.values() for leaf in _leaves(r.options)]
        return sorted({name for text in texts for name in VARIABLE.findall(text)})


def shipped_recipes() -> dict[str, Path]:
    """Return the suite's own recipes by name, as ``codec/table3``."""
    paths = sorted(RECIPES.rglob("*.yaml"), key=_by_number)
    return {p.relative_to(RECIPES).with_suffix("").as_posix(): p for p in paths}


def find_recipe(words: list[str]) -> Path:
    """Return the file that words on the command line mean.

    Args:
        words: A path of one's own, or the name of one of the suite's in one word
            (``ui2c/table3``) or two (``ui2c table3``).

    Raises:
        ValueError: There is no such recipe; it names the nearest.
    """
    shipped = shipped_recipes()
    name = "/".join(words)
    if name in shipped:
        return shipped[name]
    if len(words) == 1 and Path(words[0]).is_file():
        return Path(words[0])
    raise ValueError(
        f"there is no recipe {' '.join(words)!r}{nearest(name, shipped)}: neither a "
        "file nor one of the suite's, which the command lists without arguments"
    )


def read_recipe(path: Path) -> Recipe:
    """Read a recipe's file.

    Raises:
        ValueError: A key or a value is wrong; it names the file, the key, and what is
            allowed.
    """
    try:
        values = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, UnicodeError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a recipe is a mapping with title, runs and rows")
    given = dict(values)
    for key in ("name", "path"):
        if key in given:
            raise ValueError(f"{path}: {key} is unknown: the file itself says it")
    runs = given.get("runs")
    for run in runs.values() if isinstance(runs, dict) else ():
        if isinstance(run, dict) and isinstance(run.get("config"), str):
            run["config"] = run["config"].split()
    rows = given.get("rows")
    if not isinstance(rows, dict) or not rows:
        raise ValueError(
            f"{path}: rows is {rows!r}: it must be labels with measurements"
        )
    given["rows"] = {
        label: [_measurement(each, f"{path}: rows.{label}") for each in _listed(row)]
        for label, row in rows.items()
    }
    inside = path.is_relative_to(RECIPES)
    name = path.relative_to(RECIPES).with_suffix("").as_posix() if inside else path.stem
    try:
        recipe = read_typed(Recipe, {**given, "name": name, "path": str(path)}, path)
    except ResultError as error:
        text = str(error).replace("is a damaged file", "is no recipe")
        raise ValueError(text) from error
    _check(recipe)
    return recipe


def _measurement(given: Any, place: str) -> dict[str, Any]:
    """Return the fields of ``{evaluate: RUN, name: ..., OPTION: ...}``."""
    if not isinstance(given, dict):
        raise ValueError(f"{place} is {given!r}: it must be as {{evaluate: RUN}}")
    commands = [key for key in given if key in MEASURES]
    if len(commands) != 1:
        raise ValueError(f"{place} must have one of {', '.join(MEASURES)}: {given}")
    (command,) = commands
    of = given[command]
    of = " ".join(of) if isinstance(of, list) else str(of)
    options = {k: v for k, v in given.items() if k not in (command, *_OWN)}
    told = {"command": command, "of": of, "options": options}
    own = {key: given[key] for key in _OWN if key in given}
    return {"name": _name(of, options), **told, **own}


_OWN = ("name", "rehearse", "supply")


def _name(of: str, options: Mapping[str, Any]) -> str:
    """Return a name that tells what differs from the plain measurement."""
    words = [of.rpartition("/")[2].removesuffix(".json")]
    for key, value in options.items():
        if key in POINTS:
            continue
        words.append(key if value is True else f"{key} {_text(value)}")
    return " ".join(words)


def _check(recipe: Recipe) -> None:
    """Raise ``ValueError`` if names in a recipe lead nowhere."""
    path, runs = recipe.path, recipe.runs
    for name, run in runs.items():
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(
                f"{path}: runs.{name}: a run's name has letters, digits, _ - ."
            )
        if run.fork and run.fork.run not in runs:
            hint = nearest(run.fork.run, runs)
            raise ValueError(
                f"{path}: runs.{name}.fork.run {run.fork.run!r} is no run{hint}; "
                f"there are {', '.join(runs)}"
            )
    for label, row in recipe.rows.items():
        for each in row:
            _check_of(each, recipe, f"{path}: rows.{label}")
            if each.command == "stream" and "video" not in each.options:
                raise ValueError(f"{path}: rows.{label}: stream needs a video")
    if recipe.anchor and recipe.anchor not in recipe.rows:
        raise ValueError(
            f"{path}: anchor {recipe.anchor!r} is no row"
            f"{nearest(recipe.anchor, recipe.rows)}; there are {', '.join(recipe.rows)}"
        )
    if wrong := [label for label in recipe.published if label not in recipe.rows]:
        raise ValueError(f"{path}: published.{wrong[0]} is no row of the recipe")
    measured: dict[tuple[str, str], Measurement] = {}
    for each in (m for row in recipe.rows.values() for m in row):
        first = measured.setdefault((each.command, each.name), each)
        # Models of a rate each are one curve; not all of them are rehearsed.
        same = replace(each, of=first.of, rehearse=first.rehearse) == first
        again = each.of == first.of and each != first
        if not same or again:
            raise ValueError(
                f"{path}: two measurements of {each.command} are called {each.name!r}: "
                "give one another name"
            )


def _check_of(each: Measurement, recipe: Recipe, place: str) -> None:
    """Raise ``ValueError`` if a measurement is of a run that is none."""
    if each.command not in OF_A_RUN:
        return
    named = [] if each.of_weights or each.command == "profile" else [each.of]
    if each.of_weights and "of" in (each.rehearse or {}):
        named.append((each.rehearse or {})["of"])
    for of in named:
        if of not in recipe.runs:
            raise ValueError(
                f"{place}: {each.command} of {of!r}, which is no run"
                f"{nearest(of, recipe.runs)}; there are {', '.join(recipe.runs)}"
            )


def _is_file(of: str) -> bool:
    return "/" in of or bool(VARIABLE.search(of))


def with_variables(text: str) -> str:
    """Put the values of environment variables into a text.

    Raises:
        ValueError: One is not set.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ValueError(f"set the variable {found[1]}, which {text} names")
        return os.environ[found[1]]

    return VARIABLE.sub(value, text)


def arguments(options: Mapping[str, Any]) -> list[str]:
    """Return options as a command line has them."""
    words: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        words.append(f"--{name}")
        if value is not True:
            words += [_text(each) for each in _listed(value)]
    return words


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for each in value.values() for leaf in _leaves(each)]
    if isinstance(value, list):
        return [leaf for each in value for leaf in _leaves(each)]
    return [value]


def _by_number(path: Path) -> tuple[Any, ...]:
    """Sort ``table2`` before ``table10``."""
    parts = re.split(r"(\d+)", path.relative_to(RECIPES).as_posix())
    return tuple(int(p) if p.isdigit() else p for p in parts)
