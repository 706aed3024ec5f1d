"""A comparison as a report: Markdown, figures, one page, and tables in W&B."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.compare.comparison import Comparison
from experiments.results.result import Result


def write_report(
    comparison: Comparison, results: Sequence[Result], output: Path
) -> list[Path]:
    """Write ``report.md``, ``report.html`` and the figures they show.

    RD curves go to ``plots/<set>/``, strips per frame to ``strips/<set>/``, figures of
    scales to ``scales/<set>/``, each as PNG and SVG. What lies in the folder already
    under other names stays.

    Args:
        comparison: What was compared.
        results: The anchor's result and the others', in the order of every table;
            pictures are read from beside their files.
        output: The folder, made if need be.

    Returns:
        Every file written, ``report.md`` and ``report.html`` last: when they are there,
        all is.

    Raises:
        OSError: A file cannot be written.
    """
    from datamodules.whole_files import whole_or_nothing
    from experiments.compare.report.markdown import make_markdown
    from experiments.compare.report.page import make_page
    from experiments.compare.report.plots import write_plots
    from experiments.compare.report.scales import write_scale_figures
    from experiments.compare.report.strips import write_strips
    from experiments.drawing.looks import choose_looks
    from experiments.drawing.names import FileNames

    output.mkdir(parents=True, exist_ok=True)
    names = FileNames(output)
    scales = write_scale_figures(comparison, results, names)
    results = [_compared(result, comparison) for result in results]
    looks = choose_looks([result.name for result in results], comparison.anchor)
    plots = write_plots(comparison, looks, names)
    strips = write_strips(comparison, results, looks, names)
    stems = [stem for own in plots.values() for stem in own.values()]
    stems += strips.values()
    stems += [stem for own in scales.values() for stem in own.values()]
    written = [
        stem.with_name(f"{stem.name}{s}") for stem in stems for s in (".png", ".svg")
    ]
    texts = {
        "report.md": make_markdown(comparison, results, plots, strips, scales, names),
        "report.html": make_page(comparison, results, looks, scales),
    }
    for name, text in texts.items():
        with whole_or_nothing(output / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written.append(output / name)
    return written


def _compared(result: Result, comparison: Comparison) -> Result:
    """Return a result without the sequences and points that were not compared."""
    result = result.with_scales(comparison.scales)
    kept = [s for s in result.sequences if s.name in comparison.sets.get(s.set, ())]
    return replace(result, sequences=kept)


def log_to_wandb(comparison: Comparison, results: Sequence[Result], run: str) -> None:
    """Log tables, RD plots and BD-rates to W&B, online or offline as ``fit`` does.

    The run's summary gets ``eval/<set>/bdrate_<metric>_vs_<anchor>`` in %, the means of
    the set's sequences (set ``all``: of all sets); if several codecs were compared,
    ``eval/<set>/<codec>/bdrate_...``.

    Args:
        comparison: What was compared.
        results: The anchor's result and the others'.
        run: A run's folder that ``fit`` made, or its name below ``runs/``: its W&B run
            is gone on with; or the name of a new one.

    Raises:
        ValueError: ``run`` is neither a folder of a run nor a plain name.
    """
    from experiments.compare.report.wandb_log import log_comparison

    log_comparison(comparison, [_compared(r, comparison) for r in results], run)
