"""What recipes there are, and what each needs."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import groupby
from operator import or_
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.paper.estimate import Estimate, days_text, estimate, how_reckoned
from experiments.paper.recipe import Recipe, read_recipe, shipped_recipes

WIDTH = 100
"""In characters."""

DAYS = "GPU\ndays"

COLUMNS = {"recipe": 12, "shows": 33, "trains": 18, DAYS: 5, "needs": 23}
"""Widths of columns by their heads."""


def print_overview() -> None:
    """Print each recipe of the suite with what it shows and what it needs."""
    recipes = [read_recipe(path) for path in shipped_recipes().values()]
    console = Console(width=WIDTH, highlight=False, markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head, width in COLUMNS.items():
        justify: Literal["left", "right"] = "right" if head == DAYS else "left"
        table.add_column(head, justify=justify, overflow="fold", width=width)
    for codec, own in groupby(recipes, lambda recipe: recipe.name.partition("/")[0]):
        _add(table, codec, list(own))
    console.print(table)
    for line in (
        f"{how_reckoned()}. A codec's recipes share runs.",
        "python -m experiments.paper CODEC RECIPE --dry_run prints a plan, --rehearse "
        "makes it tiny.",
    ):
        console.print(line, soft_wrap=True)


def _add(table: Table, codec: str, recipes: Sequence[Recipe]) -> None:
    """Add a codec's recipes below what they train together."""
    own = [estimate(recipe) for recipe in recipes]
    together = reduce(or_, own)
    steps = f"{together.steps / 1e6:,.2f} M steps" if together.stages else ""
    table.add_row(codec, "", steps, days_text(together), "", style="bold")
    for recipe, each in zip(recipes, own, strict=True):
        cells = (
            recipe.name.partition("/")[2],
            recipe.title,
            _training(recipe, each),
            days_text(each),
            needs(recipe, each),
        )
        table.add_row(*map(Text, cells))
    table.add_section()


def _training(recipe: Recipe, own: Estimate) -> str:
    if not recipe.runs:
        return "nothing"
    runs, stages = len(recipe.runs), len(own.stages)
    return (
        f"{runs} run{'s' * (runs > 1)}, {stages} stage{'s' * (stages > 1)}\n"
        f"{own.steps / 1e6:.2f} M steps"
    )


def needs(recipe: Recipe, own: Estimate) -> str:
    """Return what to set for a recipe's data, and whose numbers need more than data.

    What that is, ``--dry_run`` says of each.
    """
    free = [m for m in recipe.measurements if not m.supply]
    rows = {label: [m for m in row if m in free] for label, row in recipe.rows.items()}
    names = {*own.variables, *replace(recipe, rows=rows).variables()}
    supplied = [m.name for m in recipe.measurements if m.supply]
    supplied += recipe.supply
    texts = [" ".join(sorted(names))] if names else []
    if supplied:
        texts.append(f"supply: {', '.join(dict.fromkeys(supplied))}")
    return "\n".join(texts) or "nothing"
