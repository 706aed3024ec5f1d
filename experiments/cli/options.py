"""A command line: a dataclass describes the options of a command.

Each field is one option of that name; its type says how many values it takes and of
which kind; the class's docstring holds its help. Nothing heavy is imported before it is
used, so that ``--help`` is instant.
"""

import re
from argparse import (
    SUPPRESS,
    Action,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
    RawDescriptionHelpFormatter,
)
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, Field, field, fields
from fractions import Fraction
from types import NoneType
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from docstring_parser import Docstring, DocstringStyle
from docstring_parser import parse as parse_docstring

from experiments.cli.command import called_as, nearest

T = TypeVar("T")


def option(
    default: Any = MISSING,
    *,
    metavar: str | None = None,
    read: Callable[[str], Any] | None = None,
    nargs: str | None = None,
    repeated: bool = False,
    choices: Iterable[str] | None = None,
    positional: bool = False,
    one_of: str | None = None,
    needed: bool = False,
    shows: Callable[[], str] | None = None,
    also: Callable[[], Iterable[type]] | None = None,
) -> Any:
    """Return a field of an options dataclass; see :func:`parse`.

    Args:
        default: Value where it is not given; without one the option is required.
        metavar: Placeholder of its value in the help.
        read: Turns text into a value where the field's type does not.
        nargs: As argparse has it, where the field's type does not say it.
        repeated: Whether each of several values stands behind a name of its own; the
            default is ``None``, or none.
        choices: The values that it can have, where the field's type does not say them.
        positional: Whether it is given by its place, without its name.
        one_of: Name of a group of options of which only one can be given.
        needed: Whether one of that group must be given.
        shows: Makes a text; giving the option prints it and ends the command.
        also: Gives dataclasses whose fields are options too, in place of this one; its
            value is a dict of those that were given.
    """
    told = {"metavar": metavar, "type": read, "nargs": nargs, "choices": choices}
    told["action"] = "append" if repeated else None
    place = {"positional": positional, "one_of": one_of, "needed": needed}
    other = {"told": told, "shows": shows, "also": also}
    return field(default=default, metadata={**other, **place})


def parse(
    options: type[T], command: str, argv: Sequence[str] | None = None, epilog: str = ""
) -> T:
    """Return the options that a command line gives.

    Args:
        options: Their dataclass. Its docstring describes the command and, below
            ``Attributes``, each option that it adds to those of its base classes. A
            ``tuple[X, ...]`` takes several values, a ``bool`` none, and a ``Literal``
            one of those that it lists.
        command: Name of the command.
        argv: The arguments; those of this process if ``None``.
        epilog: Shown below the options, as it is.

    Raises:
        SystemExit: With code 2 after a line that names the wrong argument; with 0
            after ``--help`` and options that show a text.
        ValueError: The dataclass refuses a value.
    """
    given = vars(make_parser(options, command, epilog).parse_args(argv))
    for each in fields(options):  # type: ignore[arg-type]
        if also := each.metadata.get("also"):
            given[each.name] = _take_given(given, also())
    lists = {name: tuple(v) for name, v in given.items() if isinstance(v, list)}
    return options(**{**given, **lists})


def make_parser(options: type, command: str, epilog: str = "") -> ArgumentParser:
    """Return the parser of an options dataclass; see :func:`parse`."""
    parser = _Parser(
        prog=called_as(command),
        description=_docs(options).description,
        epilog=epilog.rstrip(),
        formatter_class=RawDescriptionHelpFormatter,
    )
    texts = field_texts(options)
    hints = get_type_hints(options)
    groups: dict[str, Any] = {}
    # Those of the command itself before those that it shares with others.
    own = [n for parent in options.__mro__[:-1] for n in parent.__annotations__]
    for each in sorted(fields(options), key=lambda each: own.index(each.name)):
        if also := each.metadata.get("also"):
            _add_given(parser, also())
            continue
        place: Any = parser
        if name := each.metadata.get("one_of"):
            if name not in groups:
                groups[name] = parser.add_mutually_exclusive_group()
            place = groups[name]
            place.required |= each.metadata["needed"]
        flag = each.name if each.metadata.get("positional") else f"--{each.name}"
        place.add_argument(flag, **_argument(each, hints[each.name], texts[each.name]))
    return parser


class _Parser(ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2."""
        hint = ""
        if message.startswith("unrecognized arguments: --"):
            given = message.split()[2].partition("=")[0]
            hint = f"{nearest(given, self._option_string_actions)}; --help lists all"
        message = " ".join(message.split())
        # Before the list, which may be long.
        if found := re.fullmatch(r"(.*: invalid choice: '(.*)') \((.*)\)", message):
            known = re.findall(r"[\w.+-]+", found[3].removeprefix("choose from "))
            message = f"{found[1]}{nearest(found[2], known)}"
            hint = f"; choose from {', '.join(known)}"
        self.exit(2, f"error: {message}{hint}\n")


def _take_given(given: dict[str, Any], kinds: Iterable[type]) -> dict[str, Any]:
    """Take what was given of the fields of dataclasses out of a parser's values."""
    names = {each.name for kind in kinds for each in fields(kind)}
    return {name: given.pop(name) for name in sorted(names & given.keys())}


def _add_given(parser: ArgumentParser, kinds: Iterable[type]) -> None:
    """Add the fields of dataclasses that leave no trace where they are not given."""
    added: set[str] = set()
    for kind in kinds:
        texts = field_texts(kind)
        hints = get_type_hints(kind)
        for each in fields(kind):
            if each.name not in added:
                told = _argument(each, hints[each.name], texts[each.name])
                if hints[each.name] is bool:
                    told = {"help": told["help"], "type": _switch, "metavar": "on|off"}
                parser.add_argument(f"--{each.name}", **{**told, "default": SUPPRESS})
                added.add(each.name)


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise ArgumentTypeError(f"{text!r} is neither on nor off")
    return text == "on"


def field_texts(options: type) -> dict[str, str]:
    """Return what docstrings say of each field, those of base classes too."""
    return {
        entry.arg_name: " ".join((entry.description or "").split())
        for parent in reversed(options.__mro__)
        for entry in _docs(parent).params
    }


def _docs(documented: type) -> Docstring:
    return parse_docstring(documented.__doc__ or "", DocstringStyle.GOOGLE)


def _argument(each: "Field[Any]", hint: Any, text: str) -> dict[str, Any]:
    """Return what argparse needs to know of a field."""
    told = {k: v for k, v in each.metadata.get("told", {}).items() if v is not None}
    default = each.default
    if default is MISSING and each.default_factory is not MISSING:
        default = each.default_factory()
    if default is MISSING:
        if not each.metadata.get("positional"):
            told["required"] = True
    else:
        told["default"] = default
        values = default if isinstance(default, tuple) else (default,)
        shown = [str(value) for value in values if not isinstance(value, bool | None)]
        if shown and "default" not in text:
            text = f"{text.removesuffix('.')} (default: {' '.join(shown)})."
    told["help"] = " ".join(text.split()).replace("%", "%%")
    if shows := each.metadata.get("shows"):
        told |= {"action": _Show, "nargs": 0, "const": shows}
        return told
    # X | None: the X.
    kinds = [kind for kind in get_args(hint) if kind is not NoneType]
    if NoneType in get_args(hint):
        (hint,) = kinds
        kinds = list(get_args(hint))
    if hint is bool:
        return {"action": "store_true", "help": told["help"]}
    if get_origin(hint) is tuple and kinds[-1] is Ellipsis:
        if "action" not in told:
            told.setdefault("nargs", "+")
        hint = kinds[0]
    if get_origin(hint) is Literal:
        told.setdefault("choices", get_args(hint))
        hint = str
    told.setdefault("type", hint)
    return told


class _Show(Action):
    """Print a text and exit, whatever else is missing."""

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        make: Any = self.const
        print(make())
        parser.exit()


def parse_size(text: str) -> tuple[int, int]:
    """Turn ``416x240`` (width x height) into (height, width)."""
    width, times, height = text.partition("x")
    if not (times and width.isdecimal() and height.isdecimal()):
        raise ArgumentTypeError(f"{text!r} is no size such as 1920x1080")
    return int(height), int(width)


def parse_fps(text: str) -> Fraction:
    """Turn ``25``, ``29.97`` or ``30000/1001`` into an exact rate."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ArgumentTypeError(
            f"{text!r} is no frame rate such as 25, 29.97 or 30000/1001"
        ) from None
