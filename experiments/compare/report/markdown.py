"""``report.md``: the tables, and links to the figures."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from experiments.compare.comparison import Comparison
from experiments.compare.report.bd_tables import (
    fixed_rates_table,
    flags_table,
    headline_table,
    metrics_table,
    papers_table,
    pools_table,
    quality_table,
    sequences_table,
)
from experiments.compare.report.condition_tables import (
    codec_table,
    differences_table,
    measurement_tables,
)
from experiments.compare.report.measured_tables import (
    paper_rows_table,
    temporal_table,
)
from experiments.results.drawing.figures import Stems
from experiments.results.drawing.names import FileNames
from experiments.results.drawing.tables import escape, metric_name, to_markdown
from experiments.results.result import Result

WARNING = (
    "These files were not measured under the same protocol, and whoever made this "
    "report allowed that: read every number with the differences below in mind."
)


def make_markdown(
    comparison: Comparison,
    results: Sequence[Result],
    plots: Stems,
    strips: Stems,
    scales: Stems,
    names: FileNames,
) -> str:
    """Return the report's text.

    RD figures are by set and metric, strips and figures of scales by set and sequence.
    """
    blocks = [f"# {escape('Comparison with ' + comparison.anchor)}"]
    if comparison.differences:
        blocks += [f"> **{WARNING}**", to_markdown(differences_table(comparison))]
    blocks += ["\n".join(f"* {escape(note)}" for note in comparison.notes)]
    blocks.append(to_markdown(headline_table(comparison)))
    for (name, metric), stems in plots.items():
        if metric == comparison.headline:
            first = next(iter(stems.values()))
            blocks.append(f"![{escape(name)}]({names.link(first)}.png)")
    tables = [
        papers_table(comparison),
        paper_rows_table(comparison),
        sequences_table(comparison),
        metrics_table(comparison),
        quality_table(comparison),
        pools_table(comparison),
        temporal_table(comparison),
        fixed_rates_table(comparison, comparison.headline),
        flags_table(comparison),
    ]
    blocks += map(to_markdown, tables)
    blocks += ["## Figures", "\n".join(_figure_links(plots, strips, scales, names))]
    for what, stem in next(iter(scales.values()), {}).items():
        blocks.append(f"![{what}]({names.link(stem)}.png)")
    blocks += map(to_markdown, measurement_tables(comparison, results))
    blocks += ["## Codecs"]
    blocks += [to_markdown(codec_table(result), level=3) for result in results]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _figure_links(
    plots: Stems, strips: Stems, scales: Stems, names: FileNames
) -> Iterator[str]:
    def links(title: str, stems: Mapping[str, Path]) -> str:
        linked = ", ".join(
            f"{what} [PNG]({names.link(stem)}.png) [SVG]({names.link(stem)}.svg)"
            for what, stem in stems.items()
        )
        return f"* {escape(title)}: {linked}"

    for (name, metric), stems in plots.items():
        yield links(f"{name}, {metric_name(metric)}", stems)
    for place in dict.fromkeys([*strips, *scales]):
        yield links("/".join(place), strips.get(place, {}) | scales.get(place, {}))
