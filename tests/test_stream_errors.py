"""What a stream refuses: impossible arguments, and frames that are not the codec's."""

from collections import deque
from types import SimpleNamespace

import pytest
import torch

from experiments import stream
from experiments.streaming.session import Arrival, SentUnit, measure, show
from lightning_modules.codec import Packet
from stream_samples import make_checkpoints, make_video


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return make_checkpoints(folder, "dhvc", "auxiliary", "ui2c")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("video"))


@pytest.fixture
def refused(checkpoints, video, tmp_path, capsys):
    def refused(*arguments, codec="dhvc", rate=1024):
        out = tmp_path / "out"
        command = [video, "--checkpoint", checkpoints[codec], "--rate", rate]
        assert stream.main(list(map(str, [*command, "--output", out, *arguments]))) == 2
        assert not out.exists()
        return capsys.readouterr().err

    return refused


def test_what_cannot_be_is_refused(refused):
    assert "auxiliary: false" in refused("--lose", "5:4", codec="auxiliary")
    assert "scales 2 to 4" in refused("--lose", "5:1")
    assert "scales 2 to 4" in refused("--lose", "5:5")
    assert "frames count from 1" in refused("--lose", "0:4")
    assert "0 to 3" in refused("--lose", "5:4", "--protect", "4")
    ui2c = {"codec": "ui2c", "rate": 9}
    assert "1 packet" in refused("--lose", "5:1", "--protect", "1", **ui2c)
    assert "scales 1 to 1" in refused("--lose", "5:2", **ui2c)
    assert "probability" in refused("--loss_rate", "1.5")
    assert "--seeds" in refused("--lose", "5:4", "--seeds", "2")
    assert "--seeds" in refused("--loss_rate", "0.5", "--seeds", "0")
    assert "range" in refused("--loss_rate", "0.5", "--loss_first", "29")
    assert "--progressive 4" in refused("--lose", "5:4", "--progressive", "4")
    assert "31 to 65507" in refused("--lose", "5:4", "--datagram", "30")
    assert "--timeout" in refused("--lose", "5:4", "--timeout", "0")
    assert "lmbda" in refused("--lose", "5:4", rate=5000)


def test_a_loss_beyond_the_end_is_refused(checkpoints, video, tmp_path, capsys):
    arguments = [video, "--checkpoint", checkpoints["dhvc"], "--rate", 500]
    arguments += ["--output", tmp_path / "out", "--lose", "5:4", "--max_frames", 2]
    assert stream.main(list(map(str, arguments))) == 2
    assert "there are 2 frames" in capsys.readouterr().err
    assert not (tmp_path / "out" / "stream.json").exists()


def test_the_commands_of_the_help_text_parse(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = stream.EPILOG.replace("\\\n", " ").splitlines()
    commands = [line.split() for line in lines if "python -m" in line]
    assert len(commands) == 4
    for _, _, _, *arguments in commands:
        assert stream.main(arguments) == 2
        assert "there is no file or directory in.mp4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--lose=5:4", "--echo_delay=0"], "echo delay"),
        (["--lose=5"], "such as 5:4"),
        (["--lose=5:x"], "such as 5:4"),
    ],
)
def test_nonsense_is_refused_by_the_parser(wrong, message, capsys):
    arguments = ["in", "--checkpoint", "c", "--rate", "1", "--output", "o", *wrong]
    with pytest.raises(SystemExit):
        stream.main(arguments)
    assert message in capsys.readouterr().err


class LyingCodec:
    """Says that it decoded everything, and shows something else."""

    scales = 1

    def receive(self, packets, height, width, *, scales=None):
        for _ in packets:
            yield SimpleNamespace(frame=torch.zeros(3, height, width), scales=1)


def test_a_decoded_frame_that_is_not_the_encoders_is_an_error():
    packet = Packet(b"x", 1, 0)
    log = deque([(SentUnit(1, 1, (packet,), 0, True, ("another",)), frozenset())])
    shown = show(LyingCodec(), [Arrival(1, (packet,))], 4, 4)
    with pytest.raises(ValueError, match="frame 1 was decoded from all its bits"):
        list(measure([torch.zeros(3, 4, 4)], shown, log))


def test_a_codec_that_leaves_frames_out_is_an_error():
    packet = Packet(b"x", 2, 0)
    with pytest.raises(ValueError, match="1 frames of the last one"):
        list(show(LyingCodec(), [Arrival(2, (packet,))] * 2, 4, 4))
