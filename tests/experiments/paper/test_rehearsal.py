"""Every table and figure is made, tiny: one folder a codec, whose recipes share it."""

import json

import pytest

from experiments.paper.command import main
from experiments.paper.recipe import read_recipe, shipped_recipes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("papers")


LIGHT = [
    name for name, path in shipped_recipes().items() if not read_recipe(path).heavy
]


@pytest.mark.parametrize("name", LIGHT)
def test_a_recipe_is_rehearsed(name, folder, capsys):
    codec, _, number = name.partition("/")
    place = folder / codec
    arguments = [codec, number, "--rehearse", "--jobs", "2", "--output", str(place)]
    code = main(arguments)
    said = capsys.readouterr()
    assert code == 0, said.out + said.err
    recipe = read_recipe(shipped_recipes()[name])
    cells = json.loads((place / number / "table.json").read_text())
    assert [row["label"] for row in cells["rows"]][: len(recipe.rows)]
    # Again, only the table is made.
    assert main(arguments) == 0
    (begun,) = [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("begins")
    ]
    assert "table-" in begun
