"""Stub until the table is there."""

from experiments.paper.plan import Plan


def write_table(plan: Plan) -> None:
    """Write the table of what is measured."""
    plan.places.table.mkdir(parents=True, exist_ok=True)
    (plan.places.table / "table.md").write_text(f"# {plan.recipe.title}\n")
