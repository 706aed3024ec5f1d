"""A video that is streamed, and the command's results."""

import json
from itertools import count

import pytest

from experiments.stream import command as stream
from experiments.stream import plots


@pytest.fixture(scope="session")
def video(make_video):
    return make_video(11)


class Run(dict):
    """One of the runs of the command's JSON file."""

    def column(self, name):
        return [frame[name] for frame in self["frames"]]


@pytest.fixture
def run(checkpoint, video, tmp_path, monkeypatch):
    """Run the command without figures; give the runs of its file by label and seed."""
    monkeypatch.setattr(plots, "write_plots", lambda *_: [])
    folders = (tmp_path / "out" / str(number) for number in count())

    def run(*arguments, codec="dhvc", rate=1024):
        command = [video, "--checkpoint", checkpoint(codec), "--rate", rate]
        command += ["--output", folder := next(folders), *arguments]
        assert stream.main(list(map(str, command))) == 0
        found = json.loads((folder / "stream.json").read_text())
        return {(each["label"], each["seed"]): Run(each) for each in found["runs"]}

    return run
