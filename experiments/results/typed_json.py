"""JSON files of this suite: one head for all kinds, and values that are checked once.

A file's content is a dataclass. Its annotations say what each value is, with bounds of
``annotated_types``; pydantic reads them as its ``__pydantic_config__`` says.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from datamodules.paths import reason_of
from datamodules.whole_files import whole_or_nothing

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, TypeAdapter
    from pydantic_core import CoreSchema

T = TypeVar("T")

STRICT: Any = {"strict": True, "extra": "forbid", "allow_inf_nan": False}
"""Configuration of a file's dataclass, which holds for those in it too.

Nothing is converted but whole numbers to float and text to fractions and paths.
"""

# Characters of a wrong value that a message shows.
SHOWN = 60


class ResultError(ValueError):
    """A file is no result that can be used."""


@dataclass(frozen=True)
class FileKind:
    """A kind of file: ``{"schema": ..., "version": ..., and its values}``.

    Attributes:
        name: What it is called in messages and in its schema.
        version: Of what its values mean.
    """

    name: str
    version: int = 1

    @property
    def schema(self) -> str:
        """What tells the kind in a file."""
        return f"learned-video-codecs/{self.name}"

    def save(self, values: Mapping[str, Any], path: Path) -> None:
        """Write a file, whole or not at all, and its folder.

        Raises:
            ValueError: A value is NaN or infinite, which is no JSON and no result.
        """
        data = {"schema": self.schema, "version": self.version, **values}
        text = json.dumps(data, indent=1, allow_nan=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_or_nothing(path) as temporary:
            temporary.write_text(text + "\n")

    def values(self, data: Any, path: Path) -> dict[str, Any]:
        """Return what stands in a file's parsed content below its head.

        Raises:
            ResultError: It is another kind of file, or of another version.
        """
        if not isinstance(data, dict) or data.get("schema") != self.schema:
            raise ResultError(
                f"{path} is no {self.name} file (its schema is not {self.schema})"
            )
        if data.get("version") != self.version:
            raise ResultError(
                f"{path} is version {data.get('version')} of the {self.name} file, "
                f"this suite reads version {self.version}"
            )
        return {k: v for k, v in data.items() if k not in ("schema", "version")}


class Holding:
    """What a dictionary holds at least, beside its type in ``Annotated``.

    Args:
        needed: Types of the keys that it must have.
        known: Types of keys that it may have; whatever else it holds stays as it is.
    """

    def __init__(
        self, needed: Mapping[str, Any], known: Mapping[str, Any] | None = None
    ) -> None:
        self._types = {**needed, **(known or {})}
        self._needed = set(needed)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: "GetCoreSchemaHandler"
    ) -> "CoreSchema":
        """Return what pydantic checks a dictionary with."""
        from pydantic_core.core_schema import (
            no_info_wrap_validator_function,
            typed_dict_field,
            typed_dict_schema,
        )

        fields = {
            name: typed_dict_field(
                handler.generate_schema(kind), required=name in self._needed
            )
            for name, kind in self._types.items()
        }
        checked = typed_dict_schema(fields, config=STRICT, extra_behavior="allow")

        def check(values: Any, checks: Callable[[Any], Any]) -> Any:
            checks(values)
            # As they are: the keys keep their order.
            return values

        return no_info_wrap_validator_function(check, checked)


def read_json(path: Path) -> Any:
    """Return a file's parsed content.

    Raises:
        ResultError: It is not there, cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ResultError(f"{path} does not exist") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = reason_of(error)
        raise ResultError(f"{path} cannot be read as JSON: {reason}") from error


def read_typed(kind: type[T], values: Any, path: Path) -> T:
    """Turn parsed JSON into a dataclass that has a ``__pydantic_config__``.

    Raises:
        ResultError: A value is missing, unknown, not finite or of another type.
    """
    from pydantic import ValidationError

    try:
        # Only as JSON, which knows no dataclasses and no fractions, are types strict
        # and these still made. mypy takes the hash of a class for its instances'.
        typed = _adapter(kind).validate_json(json.dumps(values))  # type: ignore[arg-type]
        json.dumps(values, allow_nan=False)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        more = f", and {len(errors) - 1} more like it" if len(errors) > 1 else ""
        raise damaged(path, _describe(errors[0]) + more) from error
    except ValueError as error:
        reason = "one of its values is NaN or infinite, it must be a finite number"
        raise damaged(path, reason) from error
    return typed


def damaged(path: Path | None, reason: str) -> ResultError:
    """Return the error that says what is wrong with a file's values."""
    return ResultError(f"{path} is a damaged file: {reason}")


@cache
def _adapter(kind: type[T]) -> "TypeAdapter[T]":
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _describe(error: Any) -> str:
    """Say where a value is, what it is, and what is allowed."""
    keys = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in error["loc"])
    place = "".join(keys).removeprefix(".") or "its content"
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "unexpected_keyword_argument":
        return f"{place} is unknown"
    value = repr(error["input"])
    if len(value) > SHOWN:
        value = f"{value[:SHOWN]}…"
    return f"{place} is {value}: {error['msg']}"
