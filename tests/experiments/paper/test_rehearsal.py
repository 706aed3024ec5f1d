"""Every table and figure is made, tiny: one folder a codec, whose recipes share it."""

import json

import pytest

from experiments.compare.papers import load_tables
from experiments.paper.command import main
from experiments.paper.recipe import read_recipe, shipped_recipes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("papers")


RECIPES = {name: read_recipe(path) for name, path in shipped_recipes().items()}
LIGHT = [name for name, recipe in RECIPES.items() if not recipe.heavy]


@pytest.mark.parametrize("name", LIGHT)
def test_a_recipe_is_rehearsed(name, folder, capsys):
    codec, _, number = name.partition("/")
    place = folder / codec
    arguments = [codec, number, "--rehearse", "--jobs", "2", "--output", str(place)]
    code = main(arguments)
    said = capsys.readouterr()
    assert code == 0, said.out + said.err
    recipe = RECIPES[name]
    table = json.loads((place / number / "table.json").read_text())
    labels = {line["label"] for line in table["lines"]}
    assert labels >= recipe.rows.keys()
    if recipe.table:
        (printed,) = [
            each
            for each in load_tables()
            if (each.paper, each.number) == (recipe.paper, recipe.table)
        ]
        for line in table["lines"]:
            cells = [cell["printed"] for cell in line["cells"]]
            assert cells == [*printed.rows.get(line["label"], cells)]
    measured = [cell["ours"] for line in table["lines"] for cell in line["cells"]]
    assert not table["lines"] or any(value is not None for value in measured)
    assert not recipe.figures or table["figures"]


def test_what_was_made_is_not_made_again(folder, capsys):
    """After the tests above, in a folder that they share: only the table is."""
    arguments = ["ui2c", "table2", "--rehearse", "--output", str(folder / "again")]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    (begun,) = [line for line in lines if line.startswith("begins")]
    assert "table-" in begun
