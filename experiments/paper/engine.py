"""Carries a plan out, or shows it."""

import os
import sys
from collections.abc import Sequence
from functools import partial

from experiments.cli.lock import LockedError, locked
from experiments.paper.job import Job, Records
from experiments.paper.options import PaperOptions
from experiments.paper.plan import Plan, make_plan
from experiments.paper.recipe import Recipe, with_variables
from experiments.paper.rehearsal import Rehearsal
from experiments.paper.showing import show_plan


def carry_out(recipe: Recipe, options: PaperOptions) -> int:
    """Make a recipe's table, or show how, and return the exit code.

    Raises:
        ValueError: The recipe or an option is wrong, or a variable is not set.
    """
    folder = options.folder
    if options.wandb:
        # Of measurements and of the table, which have no option for it.
        os.environ.setdefault("WANDB_RUN_GROUP", recipe.name)
    rehearsal = Rehearsal(folder / "rehearsal") if options.rehearse else None
    plan = make_plan(
        recipe,
        folder,
        rehearsal=rehearsal,
        fit_options=[f"--{text}" for text in options.fit],
        free_fit_options=_tracking(options),
        wandb=options.wandb,
    )
    if options.sweep:
        from experiments.paper.sweep import write_sweep

        return write_sweep(plan, options.sweep)
    if options.write:
        return _write(plan, options)
    if options.dry_run:
        show_plan(plan)
        return 0
    as_commands = options.launcher == "commands"
    records = Records(plan.places.jobs, plan.jobs)
    if not as_commands:
        _check_variables(plan, records)
    if rehearsal:
        rehearsal.make_clips()
    if as_commands:
        show_plan(plan, commands_only=True)
        return 0
    try:
        with locked(plan.places.jobs / ".lock"):
            # Not every command makes the folder of its output.
            plan.places.results.mkdir(parents=True, exist_ok=True)
            if options.launcher == "slurm":
                from experiments.paper.launchers.slurm import submit

                return submit(plan, records, options.slurm)
            return _run(plan, records, options)
    except LockedError as error:
        raise ValueError(
            f"another command makes tables in {folder}: wait until it ends, or give "
            "another --output"
        ) from error


def _run(plan: Plan, records: Records, options: PaperOptions) -> int:
    from experiments.paper.launchers.local import run_locally, start_process
    from experiments.paper.launchers.warm import warm_start

    for name, reason in plan.left_out.items():
        _say(f"left out {name}: {reason}")
    done = sum(records.is_done(job) for job in plan.jobs)
    _say(f"{len(plan.jobs)} jobs, {done} done before; logs in {plan.places.jobs}")
    start = warm_start() if plan.rehearsal else start_process
    outcome = run_locally(
        plan.jobs,
        records,
        _say,
        at_once=options.jobs,
        start=start,
        ended=partial(_log_rows, plan) if options.wandb else None,
    )
    table = plan.places.table / "table.md"
    if table.is_file():
        print(table.read_text(), end="")
        print(f"\nin {plan.places.table}: {_files(plan)}")
    if options.wandb:
        from experiments.paper.wandb_log import log_table

        # The table's job logged it: this says where, and how to send it.
        log_table(plan)
    if outcome.failed:
        names = ", ".join(outcome.failed)
        held = f"; not begun for want of them: {', '.join(outcome.held)}"
        print(
            f"error: {len(outcome.failed)} of {len(plan.jobs)} jobs failed: {names}"
            f"{held if outcome.held else ''}; the same command goes on with them",
            file=sys.stderr,
        )
        return 1
    return 0


def _log_rows(plan: Plan, ended: Job, running: Sequence[str]) -> None:
    from experiments.paper.wandb_log import log_table

    # The table's own job logs it, with the report.
    if not ended.always:
        log_table(plan, running, quiet=True)


def _write(plan: Plan, options: PaperOptions) -> int:
    from experiments.paper.finish import write_table

    filled = write_table(plan)
    print(f"wrote table.md, table.html and table.json to {plan.places.table}")
    if options.wandb:
        from experiments.paper.wandb_log import log_table

        log_table(plan)
    if filled.refused:
        raise ValueError(f"results cannot be compared: {filled.refused}")
    return 0


def _files(plan: Plan) -> str:
    folder = plan.places.table
    pages = sorted(folder.rglob("*.html"))
    return ", ".join(["table.md", *(str(page.relative_to(folder)) for page in pages)])


def _tracking(options: PaperOptions) -> Sequence[str]:
    """Return what tells ``fit`` where its numbers go."""
    if options.rehearse:
        return []
    if not options.wandb:
        return ["--logger=csv"]
    return [f"--tracking.group={os.environ['WANDB_RUN_GROUP']}"]


def _check_variables(plan: Plan, records: Records) -> None:
    """Raise ``ValueError`` where a job would find that a variable is not set."""
    left = [job for job in plan.jobs if not records.is_done(job)]
    for job in left:
        for word in job.words:
            with_variables(word)
    trains = not plan.rehearsal and any(job.command == "fit" for job in left)
    names = plan.training.variables if trains else ()
    unset = sorted(name for name in names if name not in os.environ)
    if unset:
        raise ValueError(
            f"set {', '.join(unset)}: the configurations of {plan.recipe.name} take "
            "their data from there"
        )


def _say(text: str) -> None:
    print(text, flush=True)
