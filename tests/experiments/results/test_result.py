"""Result files of earlier versions of the suite."""

import json
from pathlib import Path

from experiments.results.result import Result

BEFORE = Path(__file__).parents[2] / "written_before" / "measured" / "x264.json"


def test_an_option_that_had_another_name_is_read_under_its_own(tmp_path):
    values = json.loads(BEFORE.read_text())
    values["codec"]["options"] = {"overlap": False, "tile": 576}
    path = tmp_path / "before.json"
    path.write_text(json.dumps(values))
    options = {"gop_overlap": False, "tile": 576}
    assert Result.load(path).codec["options"] == options
