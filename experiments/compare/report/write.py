"""A comparison as a report: Markdown, figures and one page."""

from collections.abc import Sequence
from pathlib import Path

from datamodules.whole_files import whole_or_nothing
from experiments.compare.comparison import Comparison
from experiments.compare.report.markdown import make_markdown
from experiments.compare.report.page import make_page
from experiments.compare.report.plots import write_plots
from experiments.compare.report.scales import write_scale_figures
from experiments.compare.report.strips import write_strips
from experiments.drawing.looks import choose_looks
from experiments.drawing.names import FileNames
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
    output.mkdir(parents=True, exist_ok=True)
    names = FileNames(output)
    scales = write_scale_figures(comparison, results, names)
    results = [r.with_scales(comparison.scales).only(comparison.sets) for r in results]
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
