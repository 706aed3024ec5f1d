"""Compare result files: ``python -m experiments.compare FILES --anchor NAME ...``."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from callbacks.metrics.table import METRICS
from datamodules.whole_files import whole_or_nothing
from experiments.cli.command import check_folder, run_command
from experiments.cli.options import option, parse
from experiments.compare.assemble import compare_results
from experiments.compare.comparison import BD_NUMBERS, Comparison, Method, Row
from experiments.compare.report.write import write_report
from experiments.compare.terminal import print_comparison, print_tables
from experiments.results.joining import join_results
from experiments.results.load import load_any
from experiments.results.result import Result
from experiments.results.set_means import add_set_means
from experiments.results.stated import Statements

EPILOG = """\
examples:
  python -m experiments.compare results/*.json --anchor x265 --output report/
  python -m experiments.compare ui2c.json vtm_17.0.json --anchor vtm_17.0 \\
      --metric psnr_yuv_unrounded --allow unstated definitions --output report/
  python -m experiments.compare ui2c.json ssf2020-mse-ans-vimeo.json --anchor UI2C \\
      --metric psnr_rgb --state set=uvg colour=rgb --allow unstated definitions
  python -m experiments.compare --papers

FILES are results of evaluate and anchor, or DCVC's or CompressAI's. Those that were
not measured alike are refused. Files of one name whose codecs differ in lambda only are
one curve. Of a file that has nothing but a set's mean, the mean of the others'
sequences is compared, each counting alike. Negative BD-rates are bits saved. Of codecs
with scales the points with all of them are compared, unless --scales says otherwise.
"""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Compute BD-rates of result files and write a report.

    Attributes:
        files: Result files.
        anchor: Name of the result to compare with.
        output: Write report, plots, bd.json and bd.csv there (default: table only).
        method: Interpolation between the points.
        metric: Compare only these, and show them all (default: whatever two files
            share; the table shows psnr_yuv, or psnr_rgb).
        sets: Only these test sets.
        state: What files of DCVC's or CompressAI's leave out, as FIELD=VALUE for all of
            them or NAME:FIELD=VALUE for one: set, size, fps, frames, colour,
            intra_period, rate and the other fields of the protocol.
        allow: Go on though these fields differ; 'unstated': where a file does not say.
        explain: Say how large the differences between the files usually are.
        at_bpp: Also the quality of each set's mean curve at these rates.
        scales: Compare what the K coarsest scales give, as evaluate --scales measured
            it, instead of all scales.
        wandb: Log tables and plots to this W&B run.
        papers: Print the papers' tables.
    """

    files: tuple[Path, ...] = option((), metavar="FILES", nargs="*", positional=True)
    anchor: str | None = option(None, metavar="NAME")
    output: Path | None = option(None, metavar="DIR")
    method: Method = "pchip"
    metric: tuple[str, ...] | None = option(None, metavar="NAME", choices=METRICS)
    sets: tuple[str, ...] | None = option(None, metavar="SET")
    state: tuple[str, ...] = option((), metavar="FIELD=VALUE")
    allow: tuple[str, ...] = option((), metavar="FIELD")
    explain: bool = False
    at_bpp: tuple[float, ...] = option((), metavar="BPP")
    scales: int | None = option(None, metavar="K")
    wandb: str | None = option(None, metavar="RUN")
    papers: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(lambda: compare(parse(CompareOptions, "compare", argv, EPILOG)))


def compare(options: CompareOptions) -> None:
    """Compare the files and show, write and log what comes out.

    Raises:
        ValueError: An option or a file is wrong, or the files were not measured alike.
    """
    if options.papers:
        print_tables()
        if not options.files:
            return
    if options.output:
        check_folder(options.output)
    comparison, results = compare_files(options)
    print_comparison(comparison, options.metric or [comparison.headline])
    if options.output:
        written = write_comparison(comparison, results, options.output)
        print(f"wrote {len(written)} files to {options.output}")
    if options.wandb:
        from experiments.compare.report.wandb_log import log_comparison

        log_comparison(comparison, results, options.wandb)


def compare_files(options: CompareOptions) -> tuple[Comparison, list[Result]]:
    """Compare result files.

    Returns:
        The comparison, and the results in its order: the anchor comes first.

    Raises:
        ValueError: An option or a file is wrong, or the files were not measured alike.
    """
    if not options.files or options.anchor is None:
        raise ValueError("give result files and --anchor NAME, or --papers")
    statements = Statements(options.state)
    loaded = [load_any(path, statements) for path in options.files]
    statements.check_names(loaded)
    results = add_set_means(join_results(loaded))
    comparison = compare_results(
        results,
        options.anchor,
        method=options.method,
        metrics=options.metric,
        sets=options.sets,
        allow=[name for text in options.allow for name in text.split(",") if name],
        explain=options.explain,
        scales=options.scales,
        at_bpp=options.at_bpp,
    )
    by_name = {result.name: result for result in results}
    return comparison, [by_name[name] for name in comparison.names]


def write_comparison(
    comparison: Comparison, results: Sequence[Result], folder: Path
) -> list[Path]:
    """Write report, plots, ``bd.json`` and ``bd.csv``; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        write_json(comparison, folder / "bd.json"),
        write_csv(comparison.rows, folder / "bd.csv"),
        *write_report(comparison, results, folder),
    ]


def write_json(comparison: Comparison, path: Path) -> Path:
    """Write a whole comparison as JSON, under its attributes' names."""
    text = json.dumps(asdict(comparison), indent=1, allow_nan=False)
    with whole_or_nothing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def write_csv(rows: Sequence[Row], path: Path) -> Path:
    """Write one line per row; empty cells are numbers that could not be computed."""
    header = ["codec", "metric", "kind", "set", "sequence", *BD_NUMBERS, "flags"]
    with whole_or_nothing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            keys = [row.codec, row.metric, row.kind, row.set, row.sequence]
            writer.writerow([*keys, *row.numbers(), row.caveats()])
    return path
