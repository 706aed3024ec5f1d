"""A run's name that tells values of its options: ``ui2c-{model.lmbda}``."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.cli.command import nearest
from experiments.fit.layers import ALL
from experiments.results.drawing.names import safe_name

FIELD = re.compile(r"\{([^{}]*)\}")


def with_values(name: str, options: Mapping[str, Any]) -> str:
    """Return a name with the value of each option in braces.

    Trials that share a command line but for their values each have a name of their own
    by it, and the same values go on with the same run.

    Args:
        name: As ``ui2c-{model.lmbda}-{stages.pairs_1.lr}``.
        options: All of the run, as plain values.

    Raises:
        ValueError: There is no such option.
    """
    known = dict(_values(options)) if FIELD.search(name) else {}

    def value(found: re.Match[str]) -> str:
        if found[1] not in known:
            raise ValueError(
                f"--run {name}: there is no option {found[1]!r} to name it by"
                f"{nearest(found[1], known)}"
            )
        value = known[found[1]]
        values = value if isinstance(value, list) else [value]
        return "-".join(safe_name(str(each)) for each in values)

    return FIELD.sub(value, name)


def _values(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Give every value by its dotted name on the command line."""
    for key, value in options.items():
        if key == "stages":
            # Rows that all were given one value have it in the first, too.
            rows = value or []
            for row in [{**row, "name": ALL} for row in rows[:1]] + rows:
                place = f"stages.{row['name']}"
                yield from ((f"{place}.{k}", v) for k, v in _values(row))
        elif isinstance(value, Mapping):
            inner = {**value, **(value.get("init_args") or {})}
            yield from ((f"{key}.{name}", v) for name, v in _values(inner))
        else:
            yield key, value
