"""What recipes there are."""

from experiments.paper.recipe import read_recipe, shipped_recipes


def print_overview() -> None:
    """Print each recipe with what it shows."""
    for name, path in shipped_recipes().items():
        print(f"{name.replace('/', ' '):24} {read_recipe(path).title}")
