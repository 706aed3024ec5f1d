"""evaluate --latents: how often each value was coded, by scale, as data and picture."""

import json

import numpy as np
import pytest

from experiments.evaluate.latents import draw_latents, draw_sequence
from experiments.evaluate.learned import LearnedCoder
from experiments.results.result import Histogram, Point, Result
from lightning_modules.entropy.symbols import SymbolDecoder


class SameProcess:
    """Stands for the decoding process, which is not what is tested."""

    def generate(self, function, *arguments):
        return function(*arguments)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(LearnedCoder, "_decoding_process", lambda self: SameProcess())


def test_the_file_counts_the_values_that_a_decoder_reads(
    scaled, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "a.json"
    rates = ["--rate=1024"]
    # What was measured without is measured again.
    assert scaled.evaluate(output, *rates, "--scales=1") == 0
    assert "latents" not in output.read_text()
    read = []
    pull = SymbolDecoder.pull
    monkeypatch.setattr(
        SymbolDecoder, "pull", lambda *a: read.append(pull(*a)) or read[-1]
    )
    assert scaled.evaluate(output, *rates, "--latents") == 0
    pictures = tmp_path / "a.latents"
    (png,) = pictures.glob("*.png")
    assert f"latents: {png}" in capsys.readouterr().out
    points = {p.scales: p for p in Result.load(output).sequences[0].points}
    assert not points[1].latents
    latents = points[None].latents
    assert list(latents) == ["scale1", "scale2", "scale3", "scale4"]
    for scale, histogram in enumerate(latents.values()):
        found, counts = np.unique(np.concatenate(read[scale::4]), return_counts=True)
        assert histogram == Histogram(found.tolist(), counts.tolist())
    read.clear()
    assert scaled.evaluate(output, *rates, "--latents") == 0
    assert not read


def test_a_codec_without_scales_tells_the_parts_of_its_latent(
    scaled, evaluate, checkpoint, tmp_path
):
    output = tmp_path / "a.json"
    more = ["--rate=21", "--latents", "--max_frames=2", "--estimate"]
    assert evaluate(checkpoint("ui2c"), scaled.clips, output, *more) == 0
    (point,) = json.loads(output.read_text())["sequences"][0]["points"]
    assert set(point["latents"]) == {"y", "z"}


def panels_of(*points):
    return [axes for axes in draw_sequence("title", points).axes if axes.axison]


def test_a_panel_shows_all_but_a_few_values_of_each_rate():
    narrow = Histogram([-1, 0, 1], [10, 80, 10])
    wide = Histogram([-9, 0, 5, 4000], [1000, 50000, 48999, 1])
    points = [
        Point(1.0, 0.1, latents={"scale1": narrow, "scale2": narrow}),
        Point(2.0, 0.2, latents={"scale1": narrow, "scale2": wide}),
    ]
    one, two = panels_of(*points)
    assert (one.get_xlim(), two.get_xlim()) == ((-3.5, 3.5), (-9.5, 9.5))
    assert one.get_title() == "scale1: 80.0 % are 0"
    assert two.get_title() == "scale2: 50.0 to 80.0 % are 0"
    heights = [patch.get_data().values for patch in two.patches]
    assert heights[0][9] == 80 and heights[1][9] == 50 and heights[1][0] == 1


def test_a_rate_without_a_part_leaves_its_panel_to_the_others(result_of, tmp_path):
    points = [
        Point(1.0, 0.1, latents={"y": Histogram([0], [9])}),
        Point(2.0, 0.2, latents={"y": Histogram([0], [9]), "z": Histogram([2], [1])}),
        Point(3.0, 0.3),
    ]
    result = result_of("a", points)
    assert [path.suffix for path in draw_latents(result, tmp_path / "b")] == [".png"]
    assert len(list((tmp_path / "b").glob("*.svg"))) == 1
    y, z = panels_of(*points[:2])
    assert (len(y.patches), len(z.patches)) == (2, 1)
    assert z.get_title() == "z: 0.0 % are 0"
