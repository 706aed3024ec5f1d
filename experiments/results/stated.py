"""What other suites' result files leave out, as the user states it."""

from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from experiments.cli.options import parse_fps, parse_size
from experiments.results.result import PROTOCOL_FIELDS, Result


def _one_of(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"{text!r} is none of {', '.join(names)}")
        return text

    return read


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("a value must follow the =")
    return text


def _size(text: str) -> tuple[int, int]:
    size = parse_size(text)
    if min(size) < 1:
        raise ValueError(f"{text!r} must be at least 1x1")
    return size


def _fps(text: str) -> Fraction:
    fps = parse_fps(text)
    if fps <= 0:
        raise ValueError(f"{text!r} must be above 0")
    return fps


def _at_least(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise ValueError(f"{text!r} is no whole number from {least}")
        return int(text)

    return read


def _intra_period(text: str) -> int:
    return -1 if text == "-1" else _at_least(1)(text)


_CONTENT: dict[str, Callable[[str], Any]] = {
    "set": _text,
    "size": _size,
    "fps": _fps,
    "frames": _at_least(1),
}
_READ: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(PROTOCOL_FIELDS, _text),
    "colour": _one_of("yuv420", "rgb"),
    "rate": _one_of("bitstream", "estimate"),
    "max_frames": _at_least(0),
    "intra_period": _intra_period,
    "yuv_as": _one_of("full709", "ffmpeg"),
    **_CONTENT,
}


class Statements:
    """Values for files that lack them.

    Args:
        texts: Each ``FIELD=VALUE``, for all files of other suites that lack it, or
            ``NAME:FIELD=VALUE`` for one, by its name or that of its file.

    Raises:
        ValueError: There is no such field, or it cannot have the value.
    """

    def __init__(self, texts: Sequence[str] = ()) -> None:
        self._for_all: dict[str, Any] = {}
        self._for_one: dict[str, dict[str, Any]] = {}
        for text in texts:
            key, equals, value = text.partition("=")
            name, _, field = key.rpartition(":")
            if not equals or field not in _READ:
                raise ValueError(
                    f"--state {text}: write FIELD=VALUE or NAME:FIELD=VALUE, where "
                    f"FIELD is one of {', '.join(_READ)}"
                )
            try:
                read = _READ[field](value)
            except (ValueError, ArgumentTypeError) as error:
                raise ValueError(f"--state {text}: {error}") from error
            own = self._for_one.setdefault(name, {}) if name else self._for_all
            own[field] = read

    def content(self, path: Path, name: str) -> dict[str, Any]:
        """Return ``set``, ``size``, ``fps`` and ``frames`` for a file, if stated."""
        given = {**self._for_all, **self._named(path, name)}
        return {field: given[field] for field in _CONTENT if field in given}

    def complete(self, result: Result, used: Sequence[str] = ()) -> Result:
        """Return an imported result with what is stated of it and it does not say.

        Args:
            result: As its file says it.
            used: What of :meth:`content` is in it already.

        Raises:
            ValueError: Something stated of just this file is said by it.
        """
        assert result.path is not None, "it was read from a file"
        named = self._named(result.path, result.name)
        given = {**self._for_all, **named}
        stated = {field: given[field] for field in used if field in given}
        values: dict[str, Any] = {}
        for field in [field for field in given if field not in stated]:
            said = getattr(result.protocol, field, "it")
            if said is None:
                stated[field] = values[field] = given[field]
            elif field in named and said != given[field]:
                raise ValueError(
                    f"--state {field}: {result.path} says {field} itself: leave it out"
                )
        if not stated:
            return result
        listed = ", ".join(f"{field} {_shown(stated[field])}" for field in stated)
        note = f"{result.codec.get('note', '')}; stated by the user: {listed}"
        return replace(
            result,
            codec={**result.codec, "note": note.removeprefix("; ")},
            protocol=replace(result.protocol, **values),
        )

    def check_names(self, results: Sequence[Result]) -> None:
        """Raise ``ValueError`` if something is stated of a file that is not there."""
        imported = [r for r in results if r.codec["kind"] == "imported" and r.path]
        known = {r.name for r in imported} | {r.path.stem for r in imported if r.path}
        if unknown := sorted(set(self._for_one) - known):
            raise ValueError(
                f"--state {unknown[0]}: no file of another suite is called so; there "
                f"are {', '.join(sorted(known)) or 'none'}"
            )

    def _named(self, path: Path, name: str) -> dict[str, Any]:
        return {**self._for_one.get(path.stem, {}), **self._for_one.get(name, {})}


def _shown(value: Any) -> str:
    return f"{value[1]}x{value[0]}" if isinstance(value, tuple) else str(value)
