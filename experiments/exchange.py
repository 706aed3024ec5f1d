"""Results for other suites' tools: ``python -m experiments.exchange RESULT OUT``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.whole_files import whole_or_nothing
from experiments.cli import check_paths, option, parse, run_command
from experiments.results.dcvc import to_dcvc
from experiments.results.load import load_any

EPILOG = """\
examples:
  python -m experiments.exchange results/ui2c.json ui2c.dcvc.json

OUT can be given to compare_bd_rate.py of microsoft/DCVC, beside its anchors. RESULT is
a result of evaluate or anchor, or a file of DCVC's or CompressAI's.
"""


@dataclass(frozen=True, kw_only=True)
class ExchangeOptions:
    """Write a result file in the format of DCVC's tools.

    Attributes:
        result: File to read.
        output: File to write.
    """

    result: Path = option(metavar="RESULT", positional=True)
    output: Path = option(metavar="OUT", positional=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(lambda: export(parse(ExchangeOptions, "exchange", argv, EPILOG)))


def export(options: ExchangeOptions) -> None:
    """Write ``options.result`` as DCVC's JSON to ``options.output``.

    Raises:
        ValueError: The file cannot be read, or lacks what DCVC's format needs.
    """
    check_paths(options.result, options.output)
    data = to_dcvc(load_any(options.result).with_scales(None))
    count = sum(
        len(rates) for sequences in data.values() for rates in sequences.values()
    )
    if not count:
        raise ValueError(
            f"{options.result} has no point to export (of codecs with scales, only "
            "points with all of them are)"
        )
    with whole_or_nothing(options.output) as temporary:
        temporary.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
    print(
        f"{options.output}: {count} points in DCVC's format, PSNR of unrounded output"
    )


if __name__ == "__main__":
    raise SystemExit(main())
