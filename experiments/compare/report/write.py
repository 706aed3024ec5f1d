"""A comparison as a report: Markdown, figures and one page."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from datamodules.whole_files import whole_or_nothing
from experiments.compare.comparison import Comparison
from experiments.compare.report.markdown import make_markdown
from experiments.compare.report.page import make_page
from experiments.compare.report.plots import rd_figures
from experiments.compare.report.scales import scale_figures
from experiments.compare.report.strips import strip_figures
from experiments.results.drawing.figures import (
    NamedFigure,
    Stems,
    figure_style,
    save_figure,
)
from experiments.results.drawing.names import FileNames
from experiments.results.result import Result


def write_report(
    comparison: Comparison, results: Sequence[Result], output: Path
) -> list[Path]:
    """Write ``report.md``, ``report.html`` and the figures they show.

    RD curves go to ``plots/<set>/``, strips per frame to ``strips/<set>/``, figures of
    scales to ``scales/<set>/``, each as PNG and SVG. What lies in the folder already
    under other names stays. Results are in the order of every table; pictures are read
    from beside their files.

    Returns:
        Every file written, ``report.md`` and ``report.html`` last: when they are there,
        all is.

    Raises:
        OSError: A file cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    names = FileNames(output)
    written: list[Path] = []

    def save(figures: Iterable[NamedFigure], folder: str) -> Stems:
        stems: Stems = {}
        with figure_style():
            # One after the other: all of them together would fill the memory.
            for each in figures:
                stem = names.stem(folder, each.place[0], each.file)
                written.extend(save_figure(each.figure, stem))
                stems.setdefault(each.place, {})[each.what] = stem
        return stems

    scales = save(scale_figures(comparison, results), "scales")
    results = [r.with_scales(comparison.scales).only(comparison.sets) for r in results]
    plots = save(rd_figures(comparison), "plots")
    strips = save(strip_figures(comparison, results), "strips")
    texts = {
        "report.md": make_markdown(comparison, results, plots, strips, scales, names),
        "report.html": make_page(comparison, results, scales),
    }
    for name, text in texts.items():
        with whole_or_nothing(output / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        written.append(output / name)
    return written
