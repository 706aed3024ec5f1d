"""``report.html``: one file that needs nothing else and asks no server for anything."""

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any

from experiments.compare.comparison import Comparison
from experiments.compare.report.bd_tables import (
    fixed_rates_table,
    headline_table,
    papers_table,
    pools_table,
)
from experiments.compare.report.condition_tables import (
    codec_table,
    differences_table,
    measurement_tables,
)
from experiments.compare.report.markdown import WARNING
from experiments.compare.report.measured_tables import (
    paper_rows_table,
    temporal_table,
)
from experiments.compare.report.page_data import make_page_data
from experiments.compare.report.plots import looks_of
from experiments.results.drawing.figures import Stems
from experiments.results.drawing.tables import to_html
from experiments.results.result import Result

SCRIPTS = ("charts.js", "report.js")


SCALES_LIMIT = 8_000_000
"""Characters of all figures of scales together."""


def make_page(
    comparison: Comparison,
    results: Sequence[Result],
    scales: Stems | None = None,
) -> str:
    """Return the page.

    Its policy allows the style and the script it carries, by their hashes, pictures
    inside of it, and nothing else.
    """
    style = _read("report.css") + _codec_colours(comparison)
    script = "\n".join(map(_read, SCRIPTS))
    warning = ""
    if comparison.differences:
        table = to_html(differences_table(comparison))
        warning = f'<section class="warning"><p>{WARNING}</p>{table}</section>'
    tables = [
        fixed_rates_table(comparison, comparison.headline),
        pools_table(comparison),
        papers_table(comparison),
        paper_rows_table(comparison),
        temporal_table(comparison),
        *measurement_tables(comparison, results),
    ]
    codecs = "".join(
        f"<details><summary>{html.escape(result.name)}</summary>"
        f"{to_html(codec_table(result), heading='')}</details>"
        for result in results
    )
    return Template(_read("template.html")).substitute(
        title=html.escape(f"Comparison with {comparison.anchor}"),
        style_hash=_hash(style),
        script_hash=_hash(script),
        style=style,
        script=script,
        warning=warning,
        notes="".join(f"<p>{html.escape(note)}</p>" for note in comparison.notes),
        headline=to_html(headline_table(comparison)),
        tables=show_scales(scales or {})
        + "".join(map(to_html, tables))
        + f"<h2>Codecs</h2>{codecs}",
        data=to_script_json(make_page_data(comparison, results)),
    )


def show_scales(scales: Stems, limit: int = SCALES_LIMIT) -> str:
    """Return a section with the figures of scales; nothing if there are none.

    Figures beyond ``limit`` characters are only counted.
    """
    parts: list[str] = []
    left_out = 0
    for (name, sequence), stems in scales.items():
        figures = {
            f"{name}/{sequence}: {what}": base64.b64encode(
                stem.with_name(f"{stem.name}.png").read_bytes()
            ).decode()
            for what, stem in stems.items()
        }
        limit -= sum(map(len, figures.values()))
        if limit < 0:
            left_out += len(figures)
            continue
        images = "".join(
            f'<p><img class="figure" alt="{html.escape(text)}" '
            f'src="data:image/png;base64,{image}"></p>'
            for text, image in figures.items()
        )
        summary = html.escape(f"{name}/{sequence}")
        is_open = "" if parts else " open"
        parts.append(
            f"<details{is_open}><summary>{summary}</summary>{images}</details>"
        )
    if left_out:
        parts.append(
            f'<p class="hint">{left_out} more figures are beside this page, in '
            "scales/.</p>"
        )
    return f"<section><h2>Scales</h2>{''.join(parts)}</section>" if parts else ""


def to_script_json(value: Any) -> str:
    """Write JSON that cannot end the element of the page that holds it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _codec_colours(comparison: Comparison) -> str:
    def block(colours: Iterable[str]) -> str:
        pairs = "".join(f"--codec-{n}: {c}; " for n, c in enumerate(colours))
        return f":root {{ {pairs}}}"

    looks = looks_of(comparison).values()
    dark = block(look.dark_colour for look in looks)
    light = block(look.colour for look in looks)
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n"


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
