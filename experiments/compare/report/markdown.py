"""``report.md``: the tables, and links to the figures."""

from collections.abc import Mapping, Sequence
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
    bits_table,
    codec_table,
    cost_table,
    definitions_table,
    differences_table,
    protocol_table,
)
from experiments.drawing.names import FileNames
from experiments.drawing.tables import escape, metric_name, to_markdown
from experiments.results.result import Result

WARNING = (
    "These files were not measured under the same protocol, and whoever made this "
    "report allowed that: read every number with the differences below in mind."
)


def make_markdown(
    comparison: Comparison,
    results: Sequence[Result],
    plots: Mapping[tuple[str, str], Mapping[str, Path]],
    strips: Mapping[tuple[str, str], Path],
    scales: Mapping[tuple[str, str], Mapping[str, Path]],
    names: FileNames,
) -> str:
    """Return the report's text.

    Args:
        comparison: What was compared.
        results: All results, the anchor's too.
        plots: Stems of the RD figures by set and metric, then by what they show.
        strips: Stems of the strips by set and sequence.
        scales: Stems of the figures of scales by set and sequence, then by what they
            show.
        names: Knows the report's folder.
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
        sequences_table(comparison),
        metrics_table(comparison),
        quality_table(comparison),
        pools_table(comparison),
        fixed_rates_table(comparison, comparison.headline),
        flags_table(comparison),
    ]
    blocks += [to_markdown(table) for table in tables]
    blocks += ["## Figures", "\n".join(_figure_links(plots, strips, scales, names))]
    first_scales = next(iter(scales.values()), {})
    for what, stem in first_scales.items():
        blocks.append(f"![{what}]({names.link(stem)}.png)")
    tables = [
        bits_table(results),
        cost_table(results),
        protocol_table(results),
        definitions_table(comparison),
    ]
    blocks += [to_markdown(table) for table in tables]
    blocks += ["## Codecs"]
    blocks += [to_markdown(codec_table(result), level=3) for result in results]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _figure_links(
    plots: Mapping[tuple[str, str], Mapping[str, Path]],
    strips: Mapping[tuple[str, str], Path],
    scales: Mapping[tuple[str, str], Mapping[str, Path]],
    names: FileNames,
) -> list[str]:
    def link(stem: Path) -> str:
        return f"[PNG]({names.link(stem)}.png) [SVG]({names.link(stem)}.svg)"

    def links(stems: Mapping[str, Path]) -> str:
        return ", ".join(f"{what} {link(stem)}" for what, stem in stems.items())

    lines = [
        f"* {escape(name)}, {escape(metric_name(metric))}: {links(stems)}"
        for (name, metric), stems in plots.items()
    ]
    for (name, sequence), stem in strips.items():
        lines.append(f"* {escape(f'{name}/{sequence}')}, per frame: {link(stem)}")
    for (name, sequence), stems in scales.items():
        lines.append(f"* {escape(f'{name}/{sequence}')}, scales: {links(stems)}")
    return lines
