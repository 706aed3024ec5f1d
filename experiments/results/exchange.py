"""Files for other suites' tools: ``lvc exchange RESULT OUT``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.whole_files import whole_or_nothing
from experiments.cli.command import check_paths, run_command
from experiments.cli.options import option, parse
from experiments.cli.progress import track
from experiments.results.dcvc import to_dcvc
from experiments.results.load import load_any

EPILOG = """\
examples:
  python -m experiments.results.exchange results/ui2c.json ui2c.dcvc.json
  python -m experiments.results.exchange patterns=/data/CLIC2020 motion/

RESULT is a result of evaluate or anchor, or a file of DCVC's or CompressAI's; OUT can
be given to compare_bd_rate.py of microsoft/DCVC, beside its anchors.

patterns, patterns:N, patterns=DIR or patterns:N=DIR writes the motion patterns that
evaluate knows by that name into a folder OUT: PNG images, raw 4:2:0 (BT.709 full range)
and, for each, a configuration of DCVC's test program. evaluate --sequences
OUT/dcvc_png.json (or dcvc_yuv.json) reads the same frames back, under the names that
other programs report, so that compare puts their results beside ours.
"""


@dataclass(frozen=True, kw_only=True)
class ExchangeOptions:
    """Write a result file in the format of DCVC's tools, or motion patterns as files.

    Attributes:
        source: Result file to read, or patterns (also :N, =DIR).
        output: File to write; of patterns a new or empty folder.
    """

    source: str = option(metavar="RESULT", positional=True)
    output: Path = option(metavar="OUT", positional=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(
        lambda: export(parse(ExchangeOptions, "results.exchange", argv, EPILOG))
    )


def export(options: ExchangeOptions) -> None:
    """Write what ``options.source`` names to ``options.output``.

    Raises:
        ValueError: The file cannot be read, or lacks what DCVC's format needs; or
            there are no such patterns.
        OSError: Something stands in the way.
    """
    from datamodules.sequences.find import names_patterns

    if names_patterns(options.source):
        _export_patterns(options)
    else:
        _export_result(options)


def _export_patterns(options: ExchangeOptions) -> None:
    from datamodules.sequences.export import export_sequences
    from datamodules.sequences.find import find_sequences

    sequences = find_sequences([options.source])
    options.output.absolute().parent.mkdir(parents=True, exist_ok=True)
    configurations = export_sequences(
        sequences,
        options.output,
        lambda each: track(each, "writing", len(sequences)),
    )
    print(f"{options.output}: {len(sequences)} sequences, as PNG and as raw 4:2:0")
    for path in configurations:
        print(f"  --sequences {path}")


def _export_result(options: ExchangeOptions) -> None:
    source = Path(options.source)
    check_paths(source, options.output)
    data = to_dcvc(load_any(source).with_scales(None))
    count = sum(
        len(rates) for sequences in data.values() for rates in sequences.values()
    )
    if not count:
        raise ValueError(
            f"{source} has no point to export (of codecs with scales, only points "
            "with all of them are)"
        )
    with whole_or_nothing(options.output) as temporary:
        temporary.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")
    print(
        f"{options.output}: {count} points in DCVC's format, PSNR of unrounded output"
    )


if __name__ == "__main__":
    raise SystemExit(main())
