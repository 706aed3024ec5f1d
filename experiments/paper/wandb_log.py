"""A table in W&B: a run whose rows fill while jobs run, and which ends with the report.

It stands in one group with the runs that are trained and measured for the table.
"""

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.paper.job import Job, Records
from experiments.paper.plan import Plan
from experiments.results.drawing.names import safe_name
from experiments.results.wandb_log import Rows, identity_in, log_figures


def log_table(
    plan: Plan, running: Collection[str] = (), *, quiet: bool = False
) -> None:
    """Log what is known of a table now, unless its W&B run has it already.

    The run's id is kept beside the folder of the table, so that each call goes on with
    one run, online or offline as ``fit`` does.

    Args:
        plan: Of the table.
        running: Names of jobs that run.
        quiet: Whether to say nothing of it.
    """
    columns, rows = table_rows(plan, running)
    states = [row[-1] for row in rows]
    figures = {
        f"paper/{state.replace(' ', '_')}": states.count(state) for state in STATES
    }
    pages = sorted(_pages(plan))
    seen = [[hashlib.sha256(path.read_bytes()).hexdigest()] for path in pages]
    folder = plan.places.table.with_name(f"{plan.places.table.name}.wandb")
    names = identity_in(
        folder,
        name=safe_name(plan.recipe.name),
        group=plan.recipe.name,
        job_type="paper",
        tags=["paper"],
        config={"title": plan.recipe.title, "rehearsal": plan.rehearsal is not None},
    )
    log_figures(
        folder,
        names,
        figures,
        (columns, [*rows, *seen]),
        lambda: _media(plan, (columns, rows), pages),
        quiet=quiet,
    )


WHOSE = ("paper", "ours")

STATES = ("done", "running", "waiting", "failed", "left out")
"""What becomes of a row."""


def table_rows(plan: Plan, running: Collection[str] = ()) -> Rows:
    """Return the table's rows: label, printed and own cells, and what becomes of it."""
    records = Records(plan.places.jobs, plan.jobs)
    heads, cells = _cells(plan.places.table / "table.json")
    return ["row", *heads, "state"], [
        [
            label,
            *(cells.get(label) or [None] * len(heads)),
            _state(label, plan, records, running),
        ]
        for label in dict.fromkeys([*cells, *plan.recipe.rows, *plan.recipe.supply])
    ]


def _state(label: str, plan: Plan, records: Records, running: Collection[str]) -> str:
    paths = {path for _, path in plan.files.get(label, ())}
    if not paths:
        return "left out"
    own = [job for job in plan.jobs if paths & set(job.outputs)]
    if all(records.is_done(job) for job in own) and all(p.exists() for p in paths):
        return "done"
    jobs = list(_with_needs(own, {job.name: job for job in plan.jobs}))
    if any(job.name in running for job in jobs):
        return "running"
    return "failed" if any(records.has_failed(job) for job in jobs) else "waiting"


def _with_needs(jobs: list[Job], all_jobs: Mapping[str, Job]) -> Iterator[Job]:
    for job in jobs:
        yield job
        yield from _with_needs([all_jobs[name] for name in job.needs], all_jobs)


def _cells(path: Path) -> tuple[list[str], dict[str, list[Any]]]:
    """Return heads and rows of cells, the paper's beside ours; none before the table.

    Where there is no value of ours, its reason is in the table's own page.
    """
    if not path.exists():
        return [], {}
    table = json.loads(path.read_text())
    heads = [f"{head}, {whose}" for head in table["columns"] for whose in WHOSE]
    return heads, {
        line["label"]: [
            value for cell in line["cells"] for value in (cell["printed"], cell["ours"])
        ]
        for line in table["lines"]
    }


def _pages(plan: Plan) -> Iterator[Path]:
    """Give what the finished table consists of: pages, and plots, which are SVG too."""
    folder = plan.places.table
    yield from folder.rglob("*.html")
    for path in folder.rglob("*.png"):
        if path.with_suffix(".svg").exists():
            yield path


def _media(plan: Plan, table: Rows, pages: list[Path]) -> dict[str, Any]:
    import wandb

    # A value may be a number, or text.
    rows = wandb.Table(*table, allow_mixed_types=True)
    media: dict[str, Any] = {"paper/table": rows}
    for path in pages:
        place = path.relative_to(plan.places.table).with_suffix("")
        key = "/".join(["paper", *map(safe_name, place.parts)])
        if path.suffix == ".png":
            media[key] = wandb.Image(os.fspath(path))
        else:
            media[f"{key}_page"] = wandb.Html(path.read_text(), inject=False)
    return media
