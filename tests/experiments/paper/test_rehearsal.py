"""Every table and figure is made, tiny: one folder a codec, whose recipes share it.

This trains, codes and measures with nearly all configurations that the suite has.
"""

import json
from collections import defaultdict

import pytest

from experiments.compare.papers import load_tables
from experiments.paper.command import main
from experiments.paper.recipe import read_recipe, shipped_recipes

RECIPES = {name: read_recipe(path) for name, path in shipped_recipes().items()}
LIGHT = defaultdict(list)
for name, recipe in RECIPES.items():
    if not recipe.heavy:
        LIGHT[name.partition("/")[0]].append(name.partition("/")[2])


@pytest.mark.parametrize("codec", LIGHT)
def test_all_recipes_of_a_codec_are_rehearsed(codec, tmp_path, capsys):
    for number in LIGHT[codec]:
        options = ["--rehearse", "--jobs", "2", "--output", str(tmp_path)]
        code = main([codec, number, *options])
        said = capsys.readouterr()
        assert code == 0, said.out + said.err
        recipe = RECIPES[f"{codec}/{number}"]
        table = json.loads((tmp_path / number / "table.json").read_text())
        check(recipe, table)
    # What was made is not made again.
    assert main([codec, number, *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    (begun,) = [line for line in lines if line.startswith("begins")]
    assert "table-" in begun


def check(recipe, table):
    lines = {line["label"]: line["cells"] for line in table["lines"]}
    assert lines.keys() >= recipe.rows.keys()
    if recipe.table:
        (printed,) = [
            each
            for each in load_tables()
            if (each.paper, each.number) == (recipe.paper, recipe.table)
        ]
        for label, cells in printed.rows.items():
            assert tuple(cell["printed"] for cell in lines[label]) == cells
    # Perceptual values need weights that are not here; a cell without value says so.
    for cell in (cell for cells in lines.values() for cell in cells):
        assert (cell["ours"] is None) == bool(cell["reason"])
        # No command says the steps of decoding.
        unknown = cell["reason"].removeprefix("nothing measures ")
        assert unknown in (cell["reason"], "decode_steps")
    assert not recipe.figures or table["figures"]
