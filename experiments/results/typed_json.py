"""JSON files whose values are what a dataclass's annotations say, checked once."""

import json
from functools import cache
from pathlib import Path
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

# Characters of a wrong value that a message shows.
SHOWN = 60


class ResultError(ValueError):
    """A file is no result that can be used."""


def read_json(path: Path) -> Any:
    """Return a file's parsed content.

    Raises:
        ResultError: It cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultError(f"{path} cannot be read as JSON: {error}") from error


def read_typed(
    kind: type[T],
    values: Any,
    path: Path,
    *,
    place: str = "",
    unknown: Literal["forbid", "ignore"] = "forbid",
) -> T:
    """Turn parsed JSON into a dataclass, and what it holds into theirs.

    Nothing is converted but whole numbers to float and text to fractions and paths.

    Args:
        kind: A dataclass; bounds of ``annotated_types`` in its annotations hold too.
        values: What was parsed.
        path: Where from, for messages.
        place: Of the values in that file.
        unknown: What becomes of keys that the dataclass does not have.

    Raises:
        ResultError: A value is missing, unknown, not finite or of another type.
    """
    from pydantic import ValidationError

    # Only as JSON, which knows no dataclasses and no fractions, are types strict and
    # these still made.
    try:
        text, is_finite = json.dumps([values], allow_nan=False), True
    except ValueError:
        text, is_finite = json.dumps([values]), False
    # mypy takes the hash of a class for that of its instances.
    adapter = _adapter(kind, unknown)  # type: ignore[arg-type]
    try:
        (typed,) = adapter.validate_json(text)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        more = f", and {len(errors) - 1} more like it" if len(errors) > 1 else ""
        raise damaged(path, _describe(place, errors[0]) + more) from error
    if not is_finite:
        where = place or "one of its values"
        raise damaged(path, f"{where} is NaN or infinite, it must be a finite number")
    return typed


def damaged(path: Path | None, reason: str) -> ResultError:
    """Return the error that says what is wrong with a file's values."""
    return ResultError(f"{path} is a damaged file: {reason}")


@cache
def _adapter(
    kind: type[T], unknown: Literal["forbid", "ignore"]
) -> "TypeAdapter[tuple[T]]":
    from pydantic import ConfigDict, TypeAdapter

    config = ConfigDict(extra=unknown, strict=True, allow_inf_nan=False)
    # A dataclass cannot be given a configuration; what holds one can.
    holder: Any = GenericAlias(tuple, (kind,))
    return TypeAdapter(holder, config=config)


def _describe(place: str, error: Any) -> str:
    """Say where a value is, what it is, and what is allowed."""
    for key in error["loc"][1:]:
        place += f"[{key}]" if isinstance(key, int) else f".{key}"
    place = place.removeprefix(".") or "its content"
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "unexpected_keyword_argument":
        return f"{place} is unknown"
    value = repr(error["input"])
    if len(value) > SHOWN:
        value = f"{value[:SHOWN]}…"
    return f"{place} is {value}: {error['msg']}"
