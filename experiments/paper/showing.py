"""A plan for readers: who trains which stage, and each command."""

import os
import shlex

from experiments.paper.estimate import days_text, estimate, how_reckoned
from experiments.paper.plan import Plan
from experiments.paper.recipe import VARIABLE


def show_plan(plan: Plan, *, commands_only: bool = False) -> None:
    """Print a plan.

    Args:
        plan: The plan.
        commands_only: Leave out everything but commands: a script for a shell.
    """
    lines = list(_training(plan)) if not commands_only else ["#!/bin/sh", "set -e"]
    words = " ".join(word for job in plan.jobs for word in job.words)
    variables = sorted({*plan.training.variables, *VARIABLE.findall(words)})
    if variables and not plan.rehearsal:
        lines.append(f"# to set: {', '.join(variables)}")
    if "--wandb" in words.split():
        lines.append(f"export WANDB_RUN_GROUP={os.environ['WANDB_RUN_GROUP']}")
    lines += [f"# left out: {name}: {why}" for name, why in plan.left_out.items()]
    lines += ["", f"mkdir -p {shlex.quote(str(plan.places.results))}"]
    for job in plan.jobs:
        after = f"  (after {', '.join(job.needs)})" if job.needs else ""
        lines += ["", f"# {job.name}{'' if job.always else after}", job.shown()]
    print("\n".join(lines))


def _training(plan: Plan) -> list[str]:
    """Say of each run which stages it trains, and which it takes from others."""
    lines = [f"# {plan.recipe.title}"]
    trained = 0
    named = 0
    steps = {
        (piece.run, stage): count
        for piece in plan.training.pieces
        for stage, count in zip(piece.stages, piece.steps, strict=True)
    }
    for run, stages in plan.training.stages.items():
        own = [stage for owner, stage in stages if owner == run]
        others = [f"{owner}/{stage}" for owner, stage in stages if owner != run]
        named += len(stages)
        trained += len(own)
        count = sum(steps[run, stage] for stage in own)
        line = f"# run {run}: trains {', '.join(own) or 'nothing'} ({count:,} steps)"
        lines.append(line + (f"; from {others[-1]}" if others else ""))
    if plan.training.stages:
        if not plan.rehearsal:
            days = days_text(estimate(plan.recipe))
            lines.append(f"# GPU days: {days} ({how_reckoned()})")
        lines.append(
            f"# {trained} stages are trained, each once; {named - trained} more are "
            "shared"
        )
    return lines
