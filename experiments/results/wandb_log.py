"""Figures of result files in W&B: in the run that they belong to, or in their own."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from lightning.pytorch.utilities import rank_zero_only

from datamodules.whole_files import whole_or_nothing
from experiments.cli.lock import locked
from experiments.fit.loggers.choice import make_loggers
from experiments.fit.loggers.metrics_csv import read_metrics
from experiments.fit.loggers.offline_parts import cut_torn_tails
from experiments.fit.loggers.wandb_identity import PROJECT, from_environment, identity
from experiments.fit.loggers.wandb_run import StageWandbLogger, sync_hint
from experiments.fit.run_folder import RunFolder, RunInUseError
from experiments.results.drawing.names import safe_name
from experiments.results.result import Result

RUNS = Path("runs")

LOGGED = "wandb_logged.txt"
"""In a run's folder: digest of the figures that its W&B run got last."""

Rows: TypeAlias = tuple[list[str | int], list[list[Any]]]
"""Names of columns, and rows."""


def run_folder(run: str) -> Path:
    """Return the folder of a run, given by itself, its name in ``runs/``, or a new one.

    Raises:
        ValueError: It is a path where no run lies.
    """
    for folder in (Path(run), RUNS / run):
        if any((folder / name).is_file() for name in ("config.yaml", "wandb_id.txt")):
            return folder
    if safe_name(run) != run:
        raise ValueError(
            f"{run!r} is no folder of a run (with config.yaml or wandb_id.txt); give "
            "one, or a new name of letters, digits, '.', '_' and '-'"
        )
    return RUNS / run


def identity_in(folder: Path, **own: Any) -> dict[str, Any]:
    """Return what the W&B run of a folder is called.

    Args:
        folder: If it is a run of ``fit``, its W&B run is as ``fit`` opened it.
        **own: Else ``job_type``, ``name``, ``config``, ``tags``, to which those of the
            environment are added, and ``group``, ``project`` and ``entity``, for which
            it counts first.
    """
    path = folder / "config.yaml"
    if path.is_file():
        return identity(yaml.safe_load(path.read_text()))
    given = from_environment({})
    names = {name: value or own.get(name) for name, value in given.items()}
    names["tags"] = list(dict.fromkeys([*own.get("tags", ()), *given["tags"]]))
    return {**own, **names, "project": names["project"] or PROJECT}


def log_figures(
    folder: Path,
    names: Mapping[str, Any],
    figures: Mapping[str, Any],
    rows: Rows,
    media: Callable[[], Mapping[str, Any]],
    *,
    quiet: bool = False,
) -> None:
    """Log to a folder's W&B run, online or offline as ``fit`` does, and say so.

    An earlier W&B run of the folder is gone on with. What it has already, it does not
    get again.

    Args:
        folder: Of the run.
        names: See :func:`identity_in`.
        figures: For the run's summary.
        rows: Of all points; with the figures they tell what it has already.
        media: Makes what is logged: tables and plots, by key.
        quiet: Whether to say nothing: it is one of many times.
    """
    with _rank_zero():
        loggers = make_loggers(folder, **names)
        logger = next((x for x in loggers if isinstance(x, StageWandbLogger)), None)
        if logger is None:
            if not quiet:
                print("W&B is switched off by WANDB_MODE: nothing was logged")
            return
        # Of two processes that finish together one logs.
        with locked(folder / ".logging.lock", wait=True):
            known = _log_if_new(folder, logger, figures, rows, media)
    if quiet:
        return
    hint = sync_hint(folder)
    said = "was logged before" if known else "logged"
    send = f"; send it: {hint}" if hint else ""
    print(f"{said} to the W&B run of {folder}{send}")


def _log_if_new(
    folder: Path,
    logger: StageWandbLogger,
    figures: Mapping[str, Any],
    rows: Rows,
    media: Callable[[], Mapping[str, Any]],
) -> bool:
    """Log what was not logged last; return whether it was."""
    text = json.dumps([figures, rows], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    logged = folder / LOGGED
    if logged.is_file() and logged.read_text() == digest:
        return True
    _log(folder, logger, figures, media())
    with whole_or_nothing(logged) as temporary:
        temporary.write_text(digest)
    return False


def _log(
    folder: Path,
    logger: StageWandbLogger,
    figures: Mapping[str, Any],
    media: Mapping[str, Any],
) -> None:
    import wandb

    try:
        with RunFolder(folder).lock():
            cut_torn_tails(folder)
    except RunInUseError:
        # ``fit`` is at it: what it writes to is not torn, and it has cut the others.
        pass
    try:
        # Beside what the run logged last.
        steps = (row[0] for row in read_metrics(folder / "metrics.csv"))
        logger.offset = max(steps, default=0)
        logger.log_metrics(media)
        logger.experiment.summary.update(figures)
    finally:
        logger.finish()
        # Its process writes the last records only now.
        wandb.teardown()


@contextmanager
def _rank_zero() -> Iterator[None]:
    """Let this process log, whichever of several it is: only one of them comes here."""
    before = getattr(rank_zero_only, "rank", None)
    rank_zero_only.rank = 0  # type: ignore[attr-defined]
    try:
        yield
    finally:
        rank_zero_only.rank = before  # type: ignore[attr-defined]


def points_table(results: Sequence[Result], metrics: Sequence[str]) -> Rows:
    """Return every point of every sequence."""
    columns = ["codec", "set", "sequence", "rate", "bpp", "estimated_bpp", "kbps"]
    points = [(r.name, s, p) for r in results for s, p in r.all_points()]
    some = any(point.scales for _, _, point in points)
    data = [
        [
            *(name, *sequence.key, p.rate, p.bpp, p.estimated_bpp, p.kbps),
            *([p.scales] if some else []),
            *(p.metrics.get(metric) for metric in metrics),
        ]
        for name, sequence, p in points
    ]
    return [*columns, *(["scales"] if some else []), *metrics], data
