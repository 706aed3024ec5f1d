"""Layers of options: YAML files, then the command line; rows of ``stages`` by name.

A layer that lists ``stages`` gives a schedule. One that maps names to fields changes
rows of the schedule before it, and so does ``--stages.NAME.FIELD VALUE``::

    stages:
      pairs_1: {lr: 1.0e-3}
      all: {batch_size: 2}
"""

import json
import re
from argparse import _HelpAction
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any, NoReturn

import yaml
from jsonargparse import (
    ActionConfigFile,
    ArgumentError,
    ArgumentParser,
    Namespace,
    get_loader,
)

import lightning_modules
from datamodules.texts import encoding_of, read_text
from experiments.cli.command import called_as, nearest
from experiments.cli.configs import (
    describe_configs,
    find_config,
    merged,
    shipped_configs,
)
from experiments.cli.options import field_texts
from lightning_modules.stages import Stage

ALL = "all"
"""Stands for every row."""

COMMAND_LINE = "<command line>"
"""Begins the last layer: what the command line says of rows, as JSON."""

FIELDS = tuple(field.name for field in fields(Stage))


class Layer(ActionConfigFile):
    """``--config``: a layer that may change rows of the layers before it."""

    def __call__(
        self,
        parser: Any,
        cfg: Any,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Put a layer on what was read before it."""
        rows = [_plain(row) for row in cfg.get("stages") or []]
        if values.startswith(COMMAND_LINE):
            said = json.loads(values.removeprefix(COMMAND_LINE))
            try:
                rows = without_data(rows, said["data"])
                rows = change_rows(rows, said["rows"], "--stages.")
            except ValueError as error:
                parser.error(str(error))
            if rows:
                super().__call__(parser, cfg, json.dumps({"stages": rows}))
                cfg[self.dest].pop()
            return
        try:
            values = find_config(values)
            layer = _read(values)
            if not parser.describe_only:
                _check_codec(layer.get("model"), cfg.get("model"), values)
            named = isinstance(layer.get("stages"), dict)
            if named:
                layer["stages"] = change_rows(rows, layer["stages"], f"{values}: ")
            # The parser's own reading knows no UTF-16.
            if named or (layer and _has_mark(Path(values))):
                super().__call__(parser, cfg, json.dumps(layer))
                cfg[self.dest][-1] = values
                return
        except ValueError as error:
            parser.error(str(error))
        super().__call__(parser, cfg, values, option_string)


class ListConfigs(_HelpAction):
    """``--list_configs``: show the suite's own configuration files, and end."""

    def __call__(self, parser: Any, *_: Any) -> None:
        """Show them."""
        print(describe_configs())
        parser.exit()


class LayeredParser(ArgumentParser):
    """A parser whose errors are one line, and whose options reach single rows."""

    describe_only = False
    """Whether it is to load no codec."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Parsers that show a part of the help are made without it.
        own = {"prog": called_as("fit"), "allow_abbrev": False}
        super().__init__(*args, **{**own, **kwargs})

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, *more: Any, **kwargs: Any
    ) -> Namespace:
        """Parse arguments; those of rows and of data come last, wherever they stand."""
        try:
            if "--stages.help" in (args or ()):
                print(describe_rows())
                self.exit()
            rest, rows, data = split_arguments(args or ())
            for option, value in pairwise([*rest, ""]):
                name, equals, given = option.partition("=")
                if name == "--model" and re.fullmatch(r"\w+", given or value):
                    check_name(given if equals else value, "--model")
        except ValueError as error:
            self.error(str(error))
        if rows or data:
            said = json.dumps({"rows": rows, "data": data})
            rest.append(f"--config={COMMAND_LINE}{said}")
        # It would show the layers before it alone.
        rest.sort(key=lambda text: text.partition("=")[0] == "--print_config")
        return super().parse_args(rest, *more, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line and exit with code 2, or raise ``ArgumentError``."""
        if not self.exit_on_error:
            super().error(message, ex)
        self.exit(2, f"error: {one_line(message, self)}\n")


def split_arguments(
    args: Sequence[str],
) -> tuple[list[str], dict[str, Any], list[str]]:
    """Split a command line.

    Returns:
        The arguments that say nothing of single rows; the values of those that do, by
        ``NAME.FIELD``; and the names of the options of the data that are given.

    Raises:
        ValueError: An option of a row has no value.
    """
    rest: list[str] = []
    rows: dict[str, Any] = {}
    data: list[str] = []
    waiting = list(args)
    while waiting:
        text = waiting.pop(0)
        option, equals, value = text.partition("=")
        name = option.removeprefix("--stages.")
        if name != option:
            if not equals:
                if not waiting or waiting[0].startswith("--"):
                    raise ValueError(f"{option}: expected a value")
                value = waiting.pop(0)
            rows[name] = _value(value)
            continue
        if option.startswith("--data."):
            data.append(option.removeprefix("--data."))
        elif option == "--data":
            data += _read(value if equals else "".join(waiting[:1]))
        rest.append(text)
    return rest, rows, data


def change_rows(
    rows: list[dict[str, Any]], changes: Mapping[str, Any], source: str
) -> list[dict[str, Any]]:
    """Return a schedule with changes to rows that they name.

    Args:
        rows: The schedule.
        changes: By name of a row, or by ``all``, which comes before single names:
            fields and their values; or by ``NAME.FIELD`` one value. A field that is a
            mapping, as ``data`` is, keeps what a change does not name.
        source: Stands before a change's name in messages.

    Raises:
        ValueError: A row or a field has no such name, a value has another type than its
            field, or there is no schedule.
    """
    if not changes:
        return rows
    if not rows:
        raise ValueError(
            f"{source}{next(iter(changes))} changes rows of a schedule, but no layer "
            "before it has one: put it after the codec's file"
        )
    names = [row["name"] for row in rows]
    if ALL in names:
        raise ValueError(
            f"{source}{next(iter(changes))}: a row is called {ALL!r}, which stands for "
            "every row: rename it"
        )
    changed = {name: dict(row) for name, row in zip(names, rows, strict=True)}
    for key in sorted(changes, key=lambda key: not _is_of(key, ALL)):
        name = max((n for n in (ALL, *names) if _is_of(key, n)), key=len, default=None)
        if name is None:
            raise ValueError(_unknown_row(source, str(key), names))
        value = changes[key]
        for part in reversed(key[len(name) + 1 :].split(".")):
            value = {part: value} if part else value
        if not isinstance(value, dict):
            raise ValueError(
                f"{source}{key} is {value!r}, it must be fields and their values"
            )
        if wrong := [field for field in value if field not in FIELDS]:
            raise ValueError(
                f"{source}{name}: a row has no {wrong[0]!r}{nearest(wrong[0], FIELDS)}"
                f"; it has {', '.join(FIELDS)}"
            )
        for each in names if name == ALL else [name]:
            changed[each] = merged(changed[each], value)
            _check_types(changed[each], f"{source}{name}")
    return list(changed.values())


def without_data(
    rows: list[dict[str, Any]], given: Iterable[str]
) -> list[dict[str, Any]]:
    """Return rows without data of their own where the command line says which."""
    told = set(given)
    return [
        {**row, "data": {k: v for k, v in row["data"].items() if k not in told}}
        if row.get("data")
        else row
        for row in rows
    ]


def describe_rows() -> str:
    """Return how rows are changed, and what each field of one is."""
    lines = [
        "A row of the schedule is one Trainer.fit. By its name, on the command line:",
        f"  --stages.NAME.FIELD VALUE, or --stages.{ALL}.FIELD VALUE for every row;",
        "or in a later --config:",
        "  stages: {NAME: {FIELD: VALUE}}",
        "",
        "fields:",
    ]
    texts = field_texts(Stage)
    # Without the name.
    for each in fields(Stage)[1:]:
        default = "" if each.default is MISSING else f", default: {each.default}"
        kind = str(each.type).removeprefix("typing.")
        if type(each.type) is type:
            kind = each.type.__name__
        text = f"{texts[each.name]} (type: {kind}{default})"
        lines.append(f"  --stages.NAME.{each.name}")
        lines.append(fill(text, 79, initial_indent=" " * 8, subsequent_indent=" " * 8))
    return "\n".join(lines)


def one_line(message: str, parser: ArgumentParser) -> str:
    """Return a parser's message as one line, with the nearest name that there is."""
    known = [f"--{key}" for key in parser.get_defaults().keys()]
    if unknown := re.match(r"unrecognized arguments: (--[\w.]+)", message):
        return f"{message}{_meant(unknown[1], known)}; --help lists all"
    if unknown := re.match(r"unrecognized arguments: ([^-]\S*)", message):
        is_config = unknown[1] in shipped_configs()
        hint = f" (did you mean --config {unknown[1]}?)" if is_config else ""
        return f"{message}{hint}; every value belongs to an option; --help lists all"
    row = r"^Parser key \"stages\":.*?'[\w.]+Stage':"
    message = re.sub(row, "stages:", message, flags=re.DOTALL)
    top = re.match(r'Parser key "([\w.]+)"', message)
    inner = re.search(
        r"Problem with given class_path '([\w.]+)':(.*?)"
        r"(?:\n\s*- Expected a <class 'NoneType'>|\nGiven value type|$)",
        message,
        re.DOTALL,
    )
    if inner and top:
        text = " ".join(inner[2].split())
        if option := re.search(r"Option '([^']+)' is not accepted", text):
            names = parameters(_load(inner[1]))
            return _wrong_option(f"--{top[1]}: ", inner[1], option[1], names)
        message = re.sub(r'^Parser key "([\w.]+)":', rf"{top[1]}.\1:", text)
    message = re.sub(
        r"Does not validate against any of the Union subtypes\s+Subtypes: \[(.*?)\]\n"
        r".*Given value: (.*)",
        lambda found: f"expected {_kinds(found[1])}. Got value: {found[2]}",
        message,
        flags=re.DOTALL,
    )
    message = re.split(r"\n\s*Given value type", message)[0]
    message = re.sub(r"Expected a typing\.Literal\[(.*?)\]\.", r"choose \1.", message)
    message = re.sub(r"Expected a <class 'tuple'>\.", "expected [A,B].", message)
    message = re.sub(r"Expected a <class '(\w+)'>\.", r"expected \1.", message)
    message = re.sub(r'Parser key "([\w.]+)":', r"\1:", message)
    return " ".join(message.split())


def _kinds(types: str) -> str:
    """Return the names of types, as the parser lists them, in a reader's words."""
    for pattern, name in (
        (r"<class 'NoneType'>", "null"),
        (r"<class '([\w.]+)'>", r"\1"),
        (r"typing\.Literal\[(.*?)\]", r"\1"),
    ):
        types = re.sub(pattern, name, types)
    return " or ".join(types.split(", "))


@cache
def parameters(kind: type) -> list[str]:
    """Return the arguments of a class, also those that it hands on."""
    added = ArgumentParser().add_class_arguments(kind, fail_untyped=False)
    return [name for name in added if "." not in name]


def check_name(name: str, source: str) -> None:
    """Raise ``ValueError`` if a codec's name is none; a dotted one may be anything."""
    names = lightning_modules.CODECS
    if "." not in name and name not in names:
        raise ValueError(
            f"{source}: there is no codec {name!r}{nearest(name, names)}; choose from "
            f"{', '.join(names)}"
        )


def _check_codec(model: Any, before: Any, source: str) -> None:
    """Raise ``ValueError`` if a layer's ``model`` does not fit the layers before."""
    if isinstance(model, str):
        model = {"class_path": model}
    if not isinstance(model, dict) or not model:
        return
    path = model.get("class_path")
    arguments = model.get("init_args", {})
    if path is None:
        path = before.get("class_path") if isinstance(before, Namespace) else None
        if path is None:
            raise ValueError(
                f"{source} changes options of a codec and names none, so it layers on "
                "a codec: put it after the --config of that codec"
            )
        if "init_args" not in model:
            arguments = model
    elif isinstance(path, str):
        check_name(path, source)
    name = str(path).rpartition(".")[2]
    if name not in lightning_modules.CODECS or not isinstance(arguments, dict):
        return
    names = parameters(_load(name))
    for argument in arguments:
        if argument not in names:
            raise ValueError(_wrong_option(f"{source}: ", name, argument, names))


def _wrong_option(source: str, kind: str, option: str, names: list[str]) -> str:
    name = kind.rpartition(".")[2]
    hint = nearest(option, names)
    if not hint and name in lightning_modules.CODECS:
        others = [n for n in lightning_modules.CODECS if n != name]
        having = [n for n in others if option in parameters(_load(n))]
        if having:
            hint = (
                f" (that is one of {', '.join(having)}: an ablation of another codec?)"
            )
    listed = ", ".join(names)
    return f"{source}{name} has no option {option!r}{hint}; it has {listed}"


def _meant(option: str, known: list[str]) -> str:
    """Return a question for the option that was meant, as of one without its group."""
    last = option.lstrip("-").rpartition(".")[2]
    same = [each for each in known if each.rpartition(".")[2] == last]
    if not same and last in FIELDS:
        same = [f"--stages.{ALL}.{last}"]
    # Other trainers count in these; here each row has steps of its own.
    if not same and last in ("max_steps", "max_epochs", "epochs"):
        same = ["--shrink.total_steps"]
    return f" (did you mean {same[0]}?)" if same else nearest(option, known)


def _load(name: str) -> type:
    module, _, last = name.rpartition(".")
    kind: type = getattr(import_module(module or "lightning_modules"), last)
    return kind


def _read(text: str) -> dict[str, Any]:
    """Return a layer as plain values; nothing for what the parser will refuse."""
    try:
        path = Path(text)
        layer = get_loader("yaml")(read_text(path) if path.is_file() else text)
    except (OSError, UnicodeError, yaml.YAMLError):
        return {}
    return layer if isinstance(layer, dict) else {}


def _has_mark(path: Path) -> bool:
    return path.is_file() and encoding_of(path) != "utf-8"


def _unknown_row(source: str, key: str, names: list[str]) -> str:
    field = key.partition(".")[0]
    if field in FIELDS:
        return (
            f"{source}{key} does not name a row: give {source}{ALL}.{key} for every "
            f"row, or {source}NAME.{key}, where NAME is one of {', '.join(names)}"
        )
    row = key.rpartition(".")[0] or key
    return (
        f"{source}{key}: there is no row {row!r}{nearest(row, names)}; there are "
        f"{', '.join(names)}, and {ALL} for every row"
    )


def _is_of(key: Any, name: str) -> bool:
    return key == name or str(key).startswith(f"{name}.")


def _check_types(row: dict[str, Any], place: str) -> None:
    """Raise ``ValueError`` if a value is not of its field's type."""
    parser = _row_parser()
    try:
        parser.parse_object(row)
    except ArgumentError as error:
        message = one_line(error.message, parser)
        raise ValueError(f"{place}: {message}") from error


@cache
def _row_parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Stage, fail_untyped=False)
    return parser


def _plain(row: Namespace) -> dict[str, Any]:
    fields: dict[str, Any] = row.get("init_args", row).as_dict()
    return fields


def _value(text: str) -> Any:
    try:
        return get_loader("yaml")(text)
    except yaml.YAMLError:
        return text
