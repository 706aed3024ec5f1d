"""The packages of the suite that lie beside each other, and what hides one."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

NEIGHBOURS = ("lightning_modules", "datamodules", "callbacks")


def check_neighbours() -> None:
    """Refuse to go on where a package of another's is found in place of one of ours.

    ``python -m`` looks into the working directory first, and what lies there would be
    imported without a word.

    Raises:
        SystemExit: With code 2, after one line, where a command is starting.
        ImportError: Anywhere else.
    """
    for name, found in _hidden():
        message = (
            f"{found} hides the suite's own package {name}: rename it, "
            "start in another folder, or use the command lvc, which is not affected"
        )
        # While Python looks for what -m names, the first argument is -m.
        if sys.argv[:1] == ["-m"] or Path(sys.argv[0]).name == "lvc":
            print(f"error: {message}", file=sys.stderr)
            raise SystemExit(2)
        raise ImportError(message)


def _hidden() -> Iterator[tuple[str, Path]]:
    own = Path(__file__).parents[2]
    for name in NEIGHBOURS:
        spec = find_spec(name)
        if spec and spec.origin and not Path(spec.origin).is_relative_to(own / name):
            path = Path(spec.origin)
            yield name, path.parent if path.name == "__init__.py" else path
