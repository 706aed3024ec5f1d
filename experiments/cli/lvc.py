"""``lvc COMMAND ...``: every command by its name, from any folder."""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from experiments.cli.command import nearest

COMMANDS = {
    "fit": ("experiments.fit.command", "Train a codec, or go on with a run."),
    "encode": ("experiments.encode", "Code a video into a bitstream file."),
    "decode": ("experiments.decode", "Turn a bitstream file back into video."),
    "export": (
        "experiments.fit.export.command",
        "Write a trained codec into one small file.",
    ),
    "prepare": (
        "experiments.prepare.command",
        "Decode videos once into a store that training reads fast.",
    ),
    "evaluate": (
        "experiments.evaluate.command",
        "Measure a trained codec on test sequences, by real bitstreams.",
    ),
    "anchor": (
        "experiments.anchor.command",
        "Measure another codec (x265, VTM, ...) on the same sequences.",
    ),
    "compare": (
        "experiments.compare.command",
        "Compute BD-rates of result files and write a report.",
    ),
    "paper": (
        "experiments.paper.command",
        "Make a paper's table: train, measure, compare; or one's own.",
    ),
    "profile": (
        "experiments.profile.command",
        "Count a codec's parameters and MACs, and time it.",
    ),
    "benchmark": (
        "experiments.profile.benchmark.command",
        "Measure this machine: training, coding, determinism.",
    ),
    "stream": (
        "experiments.stream.command",
        "Send a video over a channel that loses packets.",
    ),
    "propagation": (
        "experiments.propagation.command",
        "Find how far one frame's errors reach.",
    ),
    "exchange": (
        "experiments.results.exchange",
        "Write results, or test sequences, for other suites' tools.",
    ),
}
"""Module and purpose of each command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that is named first, and return its exit code.

    Without one it lists them all.
    """
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview())
        return 0
    if name == "--models":
        # Only here: whoever reads the list of commands does not wait for it.
        from experiments.cli.models import main as list_models

        return list_models()
    if name == "--version":
        print(title())
        return 0
    if name not in COMMANDS:
        print(
            f"error: there is no command {name!r}{nearest(name, COMMANDS)}; choose "
            f"from {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    code: int = import_module(COMMANDS[name][0]).main(rest)
    return code


def overview() -> str:
    """Return every command with its purpose."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join(
        [
            f"{title()}: train, evaluate and ablate learned video codecs",
            "",
            "usage: lvc COMMAND ... | --models | --version",
            "",
            *lines,
            "",
            "lvc COMMAND --help shows a command's options; python -m "
            "experiments.COMMAND is the same",
            "(of benchmark: experiments.profile.benchmark, of export: "
            "experiments.fit.export, of exchange: experiments.results.exchange).",
            "lvc --models lists the trained models that ship, for --checkpoint NAME.",
        ]
    )


def title() -> str:
    """Return the suite's name and version."""
    try:
        return f"lvc {version('learned-video-codecs')}"
    except PackageNotFoundError:
        return "lvc (not installed)"


if __name__ == "__main__":
    raise SystemExit(main())
