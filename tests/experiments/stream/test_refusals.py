"""What a stream refuses: impossible arguments, and frames that are not the codec's."""

from collections import deque
from types import SimpleNamespace

import pytest
import torch

from experiments.stream import command as stream
from experiments.stream.channel import Arrival, Parity, SentUnit
from experiments.stream.experiment import Experiment
from experiments.stream.link import UdpLink
from experiments.stream.session import assess, show
from lightning_modules.packets import Packet


@pytest.fixture
def refused(checkpoint, video, tmp_path, capsys):
    def refused(*arguments, codec="dhvc", rate=1024):
        deep = tmp_path / "deep"
        command = [video, "--checkpoint", checkpoint(codec), "--rate", rate]
        command += ["--output", deep / "out", *arguments]
        assert stream.main(list(map(str, command))) == 2
        assert not deep.exists()
        return capsys.readouterr().err

    return refused


def test_what_cannot_be_is_refused(refused):
    assert "auxiliary: false" in refused("--lose", "5:4", codec="auxiliary")
    assert "scales 2 to 4" in refused("--lose", "5:1")
    assert "scales 2 to 4" in refused("--lose", "5:5")
    assert "frames count from 1" in refused("--lose", "0:4")
    assert "0 to 3" in refused("--lose", "5:4", "--protect", "4")
    assert "leave out --pipeline" in refused("--lose", "5:4", "--pipeline", "2")
    assert "cannot set refresh" in refused("--lose", "5:4", "--refresh", "2")
    ui2c = {"codec": "ui2c", "rate": 9}
    assert "1 packet" in refused("--lose", "5:1", "--protect", "1", **ui2c)
    assert "scales 1 to 1" in refused("--lose", "5:2", **ui2c)
    assert "probability" in refused("--loss_rate", "1.5")
    assert "--seeds" in refused("--lose", "5:4", "--seeds", "2")
    assert "--seeds" in refused("--loss_rate", "0.5", "--seeds", "0")
    assert "range" in refused("--loss_rate", "0.5", "--loss_first", "29")
    assert "--progressive 4" in refused("--lose", "5:4", "--progressive", "4")
    assert "31 to 65507" in refused("--lose", "5:4", "--datagram", "30")
    assert "lmbda" in refused("--lose", "5:4", rate=5000)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        *(
            ("--timeout", value, "above 0 and at most 86400 seconds")
            for value in ("nan", "inf", "1e+12", "86401", "0", "-1")
        ),
        *(("--loss_rate", value, "0 to 1") for value in ("nan", "inf", "-0.1")),
        *(("--seeds", value, "1 to 10000") for value in ("10001", "-1")),
        ("--loss_first", "-1", "count from 1"),
        ("--loss_last", "-1", "count from 1"),
        ("--datagram", "-1", "31 to 65507 bytes"),
        ("--datagram", "65508", "31 to 65507 bytes"),
        ("--protect", "-1", "0 to 3"),
        ("--parity", "-1", "at least 0"),
        ("--progressive", "-1", "4 scales"),
    ],
)
def test_numbers_out_of_range_are_refused_before_any_coding(
    option, value, allowed, refused, monkeypatch
):
    monkeypatch.setattr(Experiment, "run_all", None)
    losses = () if option == "--loss_rate" else ("--loss_rate", "0.5")
    said = refused(*losses, "--udp", f"{option}={value}")
    assert f"{option} " in said and f" {value}" in said and allowed in said


def test_a_loss_beyond_the_end_is_refused(refused):
    assert "there are 2 frames" in refused("--lose", "5:4", "--max_frames", "2")


def test_losses_that_no_unit_can_have_are_refused(refused):
    late = ("--loss_rate", "0", "1", "--max_frames", "6", "--loss_first", "7")
    said = " ".join(refused(*late).split())
    assert "--loss_rate 1 can lose nothing" in said
    assert "frames 1, 2, 3, ..., 6" in said and "in frames 7 to 28" in said
    assert "--loss_first 1 --loss_last 6" in said
    # Longer than the range, or beyond one of its ends.
    units = {"codec": "video_vae", "rate": 0.2}
    for first, last in ((2, 8), (1, 3), (2, 4)):
        arguments = ("--loss_first", str(first), "--loss_last", str(last))
        said = refused("--loss_rate", "1", "--max_frames", "9", *arguments, **units)
        assert "(frames 1 to 4, 5 to 9)" in " ".join(said.split())


@pytest.mark.parametrize("udp", [[], ["--udp"]])
def test_nothing_is_left_of_what_was_interrupted(
    checkpoint, video, tmp_path, monkeypatch, udp
):
    def interrupt(*_):
        assert (tmp_path / "deep" / "out").is_dir()
        raise KeyboardInterrupt

    monkeypatch.setattr(Experiment, "_transmit" if udp else "_simulate", interrupt)
    monkeypatch.setattr(UdpLink, "__enter__", lambda link: link)
    if udp:
        monkeypatch.setattr(Experiment, "_simulate", lambda *_: None)
    arguments = [video, "--checkpoint", checkpoint("dhvc"), "--rate", 500, *udp]
    arguments += ["--output", tmp_path / "deep" / "out", "--lose", "2:4"]
    assert stream.main(list(map(str, [*arguments, "--max_frames", 2]))) == 130
    assert not list(tmp_path.iterdir())
    # What was there before stays.
    (tmp_path / "deep" / "out").mkdir(parents=True)
    assert stream.main(list(map(str, [*arguments, "--max_frames", 2]))) == 130
    assert not list((tmp_path / "deep" / "out").iterdir())


def test_an_output_that_holds_something_is_refused_before_any_work(
    video, tmp_path, capsys
):
    folder = tmp_path / "out"
    folder.mkdir()
    earlier = folder / "frames_loss_0_seed_0.png"
    earlier.write_bytes(b"x")
    # Nothing is looked at before: there is no such checkpoint.
    command = [video, "--checkpoint", "none.ckpt", "--rate", 500, "--lose", "2:4"]
    for output, message in ((folder, "is not empty"), (earlier, "is a file")):
        assert stream.main(list(map(str, [*command, "--output", output]))) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"--output {output} {message}" in said
        assert "name a new or empty directory" in said
    assert [path.read_bytes() for path in folder.iterdir()] == [b"x"]


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
    arguments = ["in", "--checkpoint", "c.ckpt", "--rate", "1", "--output", "o", *wrong]
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
    shown = show(LyingCodec(), [Arrival(1, (packet,))], (4, 4))
    with pytest.raises(ValueError, match="frame 1 was decoded from all its bits"):
        list(assess([torch.zeros(3, 4, 4)], shown, log, Parity()))


def test_a_codec_that_leaves_frames_out_is_an_error():
    packet = Packet(b"x", 2, 0)
    with pytest.raises(ValueError, match="1 frames of the last one"):
        list(show(LyingCodec(), [Arrival(2, (packet,))] * 2, (4, 4)))
