"""Put results together to a comparison."""

from collections.abc import Sequence

from callbacks.metrics.table import METRICS
from experiments.compare.bd import qualities_at
from experiments.compare.comparison import Comparison, Method
from experiments.compare.papers.matching import numbers_beside, rows_beside
from experiments.compare.protocol_check import (
    check_allowed,
    check_differences,
    explain_differences,
    find_differences,
    shared_sequences,
)
from experiments.compare.rows import curves_of, rows_of
from experiments.results.result import Result

SHOWN = 10
"""How many left-out sequences a note lists by name."""


def compare_results(
    results: Sequence[Result],
    anchor: str,
    *,
    method: Method = "pchip",
    metrics: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
    allow: Sequence[str] = (),
    explain: bool = False,
    scales: int | None = None,
    at_bpp: Sequence[float] = (),
) -> Comparison:
    """Compare results with one of them, over the sequences that all of them have.

    Names of results differ; everything else is as ``CompareOptions`` has it.

    Raises:
        ValueError: The names, metrics or sets do not fit the results.
        ProtocolMismatch: They were not measured alike.
    """
    check_allowed(allow)
    results = [result.with_scales(scales) for result in results]
    base, others = _split(results, anchor)
    everywhere = shared_sequences([base, *others])
    shared = _chosen(everywhere, sets)
    cut = {r.name: r.only(shared) for r in results}
    by_codec = _metrics_by_codec(cut, anchor, metrics)
    compared = [m for m in METRICS if any(m in own for own in by_codec.values())]
    differences = [
        difference
        for r in others
        for difference in find_differences(base, r, by_codec[r.name], shared)
    ]
    if explain:
        print("\n".join(explain_differences(differences)))
    check_differences(differences, allow)
    curves = {
        (name, metric): curves_of(cut[name], metric, shared)
        for name in (anchor, *by_codec)
        for metric in (compared if name == anchor else by_codec[name])
    }
    rows = tuple(
        row
        for metric in compared
        for r in others
        if metric in by_codec[r.name]
        for row in rows_of(
            curves[anchor, metric], curves[r.name, metric], shared, method
        )
    )
    return Comparison(
        anchor=anchor,
        codecs=tuple(r.name for r in others),
        method=method,
        metrics=tuple(compared),
        headline=_headline(base, compared, metrics),
        sets=shared,
        curves=tuple(curve for own in curves.values() for curve in own),
        rows=rows,
        # Papers compare what all scales give.
        papers=() if scales else numbers_beside(rows, base, others, tuple(shared)),
        paper_rows=()
        if scales
        else rows_beside(
            list(cut.values()), [c for own in curves.values() for c in own]
        ),
        differences=tuple(differences),
        notes=tuple(_notes(results, everywhere, compared, by_codec, scales)),
        scales=scales,
        fixed=qualities_at((c for own in curves.values() for c in own), at_bpp),
    )


def _split(results: Sequence[Result], anchor: str) -> tuple[Result, list[Result]]:
    names = [result.name for result in results]
    for name in names:
        if names.count(name) > 1:
            files = ", ".join(str(r.path) for r in results if r.name == name)
            raise ValueError(
                f"more than one result is called {name!r} ({files}): change the name "
                "in one of the files"
            )
    if anchor not in names:
        raise ValueError(f"no result is called {anchor!r}; there are {names}")
    if len(results) < 2:
        raise ValueError(
            f"there is nothing to compare {anchor!r} with: give more files"
        )
    base = results[names.index(anchor)]
    return base, [result for result in results if result is not base]


def _chosen(
    sets: dict[str, tuple[str, ...]], wanted: Sequence[str] | None
) -> dict[str, tuple[str, ...]]:
    unknown = [name for name in wanted or () if name not in sets]
    if unknown:
        raise ValueError(
            f"the files share no set {', '.join(unknown)}; they share {', '.join(sets)}"
        )
    return {name: sets[name] for name in sets if wanted is None or name in wanted}


def _metrics_by_codec(
    results: dict[str, Result], anchor: str, wanted: Sequence[str] | None
) -> dict[str, list[str]]:
    """Return the metrics that each codec shares with the anchor, if they are wanted."""
    names = {name: result.metric_names() for name, result in results.items()}
    asked = [m for m in names[anchor] if wanted is None or m in wanted]
    found = {
        name: [m for m in asked if m in own]
        for name, own in names.items()
        if name != anchor
    }
    if not any(found.values()):
        what = f"none of {', '.join(wanted)}" if wanted else "no metric"
        listed = "; ".join(
            f"{n}: {', '.join(own) or 'none'}" for n, own in names.items()
        )
        raise ValueError(f"the files share {what} ({listed})")
    return found


def _headline(
    anchor: Result, compared: Sequence[str], wanted: Sequence[str] | None
) -> str:
    usual = "psnr_rgb" if anchor.protocol.colour == "rgb" else "psnr_yuv"
    for name in (*(wanted or ()), usual, f"{usual}_unrounded"):
        if name in compared:
            return name
    return compared[0]


def _notes(
    results: Sequence[Result],
    sets: dict[str, tuple[str, ...]],
    compared: Sequence[str],
    by_codec: dict[str, list[str]],
    scales: int | None,
) -> list[str]:
    """Say what a reader would otherwise have to guess."""
    notes = []
    if scales:
        notes.append(f"Of every codec only the {scales} coarsest scales were decoded.")
    for result in results:
        rest = [
            f"{s.set}/{s.name}"
            for s in result.sequences
            if s.name not in sets.get(s.set, ())
        ]
        if rest:
            more = f" and {len(rest) - SHOWN} more" if len(rest) > SHOWN else ""
            notes.append(
                f"{result.name} also has {', '.join(rest[:SHOWN])}{more}, which not "
                "every file has: left out."
            )
        missing = [m for m in compared if m not in by_codec.get(result.name, compared)]
        if missing:
            notes.append(f"{result.name} lacks {', '.join(missing)}.")
        notes += _notes_on_pools(result, sets)
        if result.protocol.rate == "estimate":
            notes.append(f"{result.name}: bits are estimates, not bytes.")
    # Of codecs that were not run here: imported figures, frames decoded elsewhere.
    foreign: dict[str, list[str]] = {}
    for result in results:
        if "note" in result.codec:
            foreign.setdefault(str(result.codec["note"]), []).append(result.name)
    notes += [f"{', '.join(names)}: {note}." for note, names in foreign.items()]
    return notes


def _notes_on_pools(result: Result, sets: dict[str, tuple[str, ...]]) -> list[str]:
    """Say which FIDs and KIDs are left out, and why others do not exist."""
    notes = []
    for pool in result.pools:
        compared = sets.get(pool.set, ())
        if compared and sorted(pool.sequences) != sorted(compared):
            notes.append(
                f"{result.name}: FID and KID of {pool.set} are of "
                f"{len(pool.sequences)} sequences, of which not all are compared, or "
                "more: left out."
            )
        elif compared:
            notes += [
                f"{result.name} has no {name} of {pool.set}: {reason}."
                for name, reason in pool.unavailable.items()
            ]
    return list(dict.fromkeys(notes))
