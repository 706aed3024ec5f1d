"""Compare result files: ``python -m experiments.compare FILES --anchor NAME ...``."""

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from callbacks.metrics.table import METRICS
from experiments.cli import check_folder, run_command
from experiments.compare.comparison import Comparison, Row

EPILOG = """\
examples:
  python -m experiments.compare results/*.json --anchor x265 --output report/
  python -m experiments.compare ui2c.json vtm_17.0.json --anchor vtm_17.0 \\
      --metric psnr_yuv_unrounded --allow unstated definitions --output report/
  python -m experiments.compare --papers

FILES are results of evaluate and anchor, or DCVC's or CompressAI's. Those that were
not measured alike are refused. Files of one name whose codecs differ in lambda only are
one curve. Negative BD-rates are bits saved. Of codecs with scales the points with all
of them are compared, unless --scales says otherwise.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(partial(compare, _parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.compare",
        description="Compute BD-rates of result files and write a report.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("files", metavar="FILES", type=Path, nargs="*", help="result files")
    add("--anchor", metavar="NAME", help="name of the result to compare with")
    add(
        "--output",
        metavar="DIR",
        type=Path,
        help="write report, plots, bd.json and bd.csv there (default: table only)",
    )
    add(
        "--method",
        choices=["pchip", "akima", "cubic"],
        default="pchip",
        help="interpolation between the points (default: pchip)",
    )
    add(
        "--metric",
        metavar="NAME",
        nargs="+",
        choices=METRICS,
        help="compare only these, and show them all (default: whatever two files "
        "share; the table shows psnr_yuv, or psnr_rgb)",
    )
    add("--sets", metavar="SET", nargs="+", help="only these test sets")
    add(
        "--allow",
        metavar="FIELD",
        nargs="+",
        default=[],
        help="go on though these fields differ; 'unstated': where a file does not say",
    )
    add(
        "--explain",
        action="store_true",
        help="say how large the differences between the files usually are",
    )
    add(
        "--at_bpp",
        metavar="BPP",
        type=float,
        nargs="+",
        default=[],
        help="also the quality of each set's mean curve at these rates",
    )
    add(
        "--scales",
        metavar="K",
        type=int,
        help="compare what the K coarsest scales give, as evaluate --scales measured "
        "it, instead of all scales",
    )
    add("--wandb", metavar="RUN", help="log tables and plots to this W&B run")
    add("--papers", action="store_true", help="print the papers' tables")
    return parser


def compare(options: argparse.Namespace) -> None:
    """Compare the files and show, write and log what comes out.

    Raises:
        ValueError: An option or a file is wrong, or the files were not measured alike.
    """
    from experiments.compare.assemble import compare_results
    from experiments.compare.terminal import print_comparison, print_tables
    from experiments.exchange import load_any
    from experiments.results.joining import join_results

    if options.papers:
        print_tables()
        if not options.files:
            return
    if not options.files or options.anchor is None:
        raise ValueError("give result files and --anchor NAME, or --papers")
    if options.output:
        check_folder(options.output)
    results = join_results([load_any(path) for path in options.files])
    allow = [name for text in options.allow for name in text.split(",") if name]
    comparison = compare_results(
        results,
        options.anchor,
        method=options.method,
        metrics=options.metric,
        sets=options.sets,
        allow=allow,
        explain=options.explain,
        scales=options.scales,
        at_bpp=options.at_bpp,
    )
    print_comparison(comparison, options.metric or [comparison.headline])
    by_name = {result.name: result for result in results}
    ordered = [by_name[name] for name in (comparison.anchor, *comparison.codecs)]
    if options.output:
        from experiments.compare.report.write import write_report

        options.output.mkdir(parents=True, exist_ok=True)
        written = [
            write_json(comparison, options.output / "bd.json"),
            write_csv(comparison.rows, options.output / "bd.csv"),
            *write_report(comparison, ordered, options.output),
        ]
        print(f"wrote {len(written)} files to {options.output}")
    if options.wandb:
        from experiments.compare.report.write import log_to_wandb

        log_to_wandb(comparison, ordered, options.wandb)


def write_json(comparison: Comparison, path: Path) -> Path:
    """Write a whole comparison as JSON, under its attributes' names."""
    from datamodules.whole_files import whole_or_nothing

    text = json.dumps(asdict(comparison), indent=1, allow_nan=False)
    with whole_or_nothing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def write_csv(rows: Sequence[Row], path: Path) -> Path:
    """Write one line per row; empty cells are numbers that could not be computed."""
    from datamodules.whole_files import whole_or_nothing

    parts = ("value", "low", "high", "overlap")
    header = ["codec", "metric", "kind", "set", "sequence"]
    header += [f"bd_{what}_{part}" for what in ("rate", "quality") for part in parts]
    with whole_or_nothing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*header, "flags"])
        for row in rows:
            numbers = [getattr(d, p) for d in (row.rate, row.quality) for p in parts]
            flags = "; ".join(f"{flag.kind}: {flag.text}" for flag in row.flags)
            keys = [row.codec, row.metric, row.kind, row.set, row.sequence]
            writer.writerow([*keys, *numbers, flags])
    return path
