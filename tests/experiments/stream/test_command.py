"""Streaming with losses: what is spoilt, what echoes mend, and the figures of it."""

import json

import pytest
import torch

from datamodules.frames import open_video
from experiments.stream import command as stream
from experiments.stream import plots
from lightning_modules import load_codec

FRAMES = 11


def test_a_lost_scale_is_mended_by_its_echo_bit_by_bit(run, checkpoint, video):
    runs = run("--lose", "5:4", "--echo_delay", "3", "none", "--progressive", "3", "1")
    whole, echo, none = (
        runs[label, None] for label in ("no loss", "echo, 3 frames later", "no echo")
    )
    assert whole.column("exact") == [True] * FRAMES
    assert echo.column("exact") == [True] * 4 + [False] * 3 + [True] * (FRAMES - 7)
    assert echo.column("scales") == [4] * 4 + [3] * 3 + [4] * (FRAMES - 7)
    assert echo.column("resync") == [0] * 7 + [4] + [0] * (FRAMES - 8)
    assert echo.column("lost") == [[]] * 4 + [[4]] + [[]] * (FRAMES - 5)
    assert none.column("scales") == [4] * 4 + [3] * (FRAMES - 4)
    for name in ("psnr_rgb", "psnr_yuv", "bits_per_scale"):
        assert echo.column(name)[:4] == whole.column(name)[:4]
        assert echo.column(name)[4:7] == none.column(name)[4:7]
    assert none.column("bits") == whole.column("bits")
    assert echo.column("intra") == [True] + [False] * (FRAMES - 1)

    # The same from the codec itself, without channel or echo.
    codec = load_codec(checkpoint("dhvc"))
    frames = list(open_video(video))
    packets = list(
        codec.compress(frames, 1024, reconstruct=True, resync=lambda n: 4 * (n == 7))
    )
    bits = [8 * len(packet.payload) for packet in packets]
    assert echo.column("bits_per_scale") == [bits[i : i + 4] for i in range(0, 44, 4)]
    # A packet of parity for scale 1 alone is as long as that.
    assert echo.column("parity_bits") == bits[::4]
    sums = [sum(bits[i : i + 4]) + bits[i] for i in range(0, 44, 4)]
    assert echo.column("bits") == sums
    assert echo["mean"]["bits"] == pytest.approx(sum(sums) / FRAMES)
    assert echo["mean"]["parity_bits"] == pytest.approx(sum(bits[::4]) / FRAMES)
    own = torch.cat([packet.x_hat for packet in packets])
    for number in (0, 3, 7, FRAMES - 1):
        error = ((own[number] * 255).round() - (frames[number] * 255).round()) / 255
        psnr = -10 * error.square().mean().log10()
        found = echo["frames"][number]["psnr_rgb"]
        assert found == pytest.approx(float(psnr), abs=1e-4)

    three, one = runs["first 3 scales only", None], runs["scale 1 only", None]
    assert three.column("scales") == [3] * FRAMES
    packets = list(codec.compress(frames, 1024))
    decoded = [each.frame for each in codec.receive(packets, 64, 64, scales=1)]
    errors = (torch.stack(decoded) * 255).round() / 255 - torch.stack(frames)
    expected = -10 * errors.square().mean(dim=(1, 2, 3)).log10()
    assert one.column("psnr_rgb") == pytest.approx(expected.tolist(), abs=1e-4)
    plain = whole.column("bits_per_scale")
    assert three.column("bits") == [sum(bits[:3]) + bits[0] for bits in plain]


def test_a_loss_of_scale_2_leaves_only_scale_1(run):
    runs = run("--lose", "5:4", "5:2", "--echo_delay", "3")
    echo = runs["echo, 3 frames later", None]
    assert echo.column("resync") == [0] * 7 + [2] + [0] * (FRAMES - 8)
    assert echo.column("scales") == [4] * 4 + [1] * 3 + [4] * (FRAMES - 7)
    assert echo.column("exact")[7:] == [True] * (FRAMES - 7)
    assert ("scale 1 only", None) in runs and ("no echo", None) not in runs


def test_a_resync_frame_that_is_hit_sends_a_new_echo(run):
    runs = run("--lose", "3:4", "6:4", "--echo_delay", "3")
    echo = runs["echo, 3 frames later", None]
    assert echo.column("resync") == [0] * 5 + [4] + [0] * 2 + [4] + [0] * (FRAMES - 9)
    assert echo.column("exact") == [True] * 2 + [False] * 6 + [True] * (FRAMES - 8)
    assert echo["mean"]["lost"] == 2 and echo["mean"]["resyncs"] == 2
    assert echo["mean"]["recovered"] == 1


def test_an_intra_frame_mends_what_its_echo_need_not(run):
    arguments = ("--lose", "5:3", "--echo_delay", "3", "--intra_period", "6")
    echo = run(*arguments)["echo, 3 frames later", None]
    assert echo.column("resync") == [0] * FRAMES
    assert [n for n, intra in enumerate(echo.column("intra"), 1) if intra] == [1, 7]
    assert echo.column("exact") == [True] * 4 + [False] * 2 + [True] * (FRAMES - 6)


def test_an_unprotected_first_scale_is_mended_by_an_intra_frame(run):
    arguments = ("--lose", "3:1", "--protect", "0", "--echo_delay", "2")
    runs = run(*arguments)
    echo = runs["echo, 2 frames later", None]
    assert echo.column("scales") == [4] * 2 + [0] * 2 + [4] * (FRAMES - 4)
    assert echo.column("resync")[4] == 1
    assert echo.column("parity_bits") == [0] * FRAMES
    assert not any(each["kind"] == "progressive" for each in runs.values())


def test_a_codec_without_scales_shows_its_last_frame_until_it_starts_anew(run, capsys):
    arguments = ("--lose", "3:1", "--intra_period", "4")
    runs = run(*arguments, codec="ui2c", rate=30)
    none = runs["no echo", None]
    assert none.column("exact") == [True] * 2 + [False] * 2 + [True] * (FRAMES - 4)
    assert none.column("lost")[2:4] == [[1], []] and none["mean"]["lost"] == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "cannot code a unit anew" in said
    assert "next start without a reference (every 4 frames" in said
    assert set(runs) == {("no loss", None), ("no echo", None)}
    # Frame 4 is the last of that unit, which frame 11 is alone in.
    whole = runs["no loss", None].column("bits")
    told = run(*arguments, "--refresh=2", codec="ui2c", rate=30)["no loss", None]
    assert told.column("bits")[:2] == whole[:2]
    assert told.column("bits")[2:] != whole[2:]
    last = run("--lose", "4:1", f"{FRAMES}:1", codec="ui2c", rate=30)["no echo", None]
    assert len(last["frames"]) == FRAMES
    assert last.column("exact") == [True] * 2 + [False] * (FRAMES - 2)


def test_a_loss_ends_with_its_unit_where_none_refers_to_another(run, capsys):
    # Units share a frame: they begin at 1, 5 and 9, and 5 takes both of its.
    none = run("--lose", "7:1", codec="video_vae", rate=0.2)["no echo", None]
    assert none.column("exact") == [True] * 4 + [False] * 5 + [True] * 2
    assert "the next unit, none of which" in " ".join(capsys.readouterr().err.split())


def test_what_is_asked_for_twice_is_run_once(run, monkeypatch):
    found = []
    monkeypatch.setattr(plots, "write_plots", lambda runs, *_: found.extend(runs))
    arguments = ("--lose", "2:4", "2:4", "--echo_delay", "none", "none")
    arguments += ("--progressive", "3", "3", "--max_frames", "2")
    run(*arguments)
    labels = [each.label for each in found]
    assert labels == ["no loss", "first 3 scales only", "no echo"]


def test_parity_is_as_long_as_the_longest_packet_that_it_protects(run, capsys):
    arguments = ("--loss_rate", "0.5", "--loss_mode", "packet", "--loss_last", "4")
    arguments += ("--protect", "3", "--parity", "2", "--max_frames", "4")
    none = run(*arguments, "--echo_delay=none")["no echo", 0]
    for bits, parity in zip(
        none.column("bits_per_scale"), none.column("parity_bits"), strict=True
    ):
        assert parity == 2 * max(bits[:3])
    # Of five packets that are lost each alone, 3 or more are lost half the time.
    said = " ".join(capsys.readouterr().err.split())
    assert "would not save scales 1 to 3 in 50.0% of the units" in said


def test_figures_and_table_are_made(checkpoint, video, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)  # Empty, it may be there.
    arguments = [video, "--checkpoint", checkpoint("dhvc"), "--rate", 500]
    arguments += ["--output", out, "--loss_rate", 0.3, 0.9, "--seeds", 2]
    arguments += ["--echo_delay", 2, "none", "--loss_first", 2, "--max_frames", 5]
    assert stream.main(list(map(str, arguments))) == 0
    names = ["frames_loss_0.3", "frames_loss_0.3_seed_0", "loss_rates"]
    names += ["frames_loss_0.9", "frames_loss_0.9_seed_0"]
    expected = {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert {path.name for path in out.iterdir()} == {*expected, "stream.json"}
    svg = (out / "frames_loss_0.9_seed_0.svg").read_text()
    assert "no echo" in svg and "echo, 2 frames later" in svg and "seed 0" in svg
    lines = capsys.readouterr().out.splitlines()
    assert sum("no loss" in line for line in lines) == 1
    assert any("of it parity" in line for line in lines)
    data = json.loads((out / "stream.json").read_text())
    assert data["parity"] == {"protected": 1, "packets": 1}
    assert sum("echo" in line for line in lines) == 4
