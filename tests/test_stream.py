import json
import threading
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch

import lightning_modules
from datamodules.frames import open_video
from datamodules.writing import create_video
from experiments import stream
from experiments.streaming import plots
from experiments.streaming.channel import Echoes, Losses
from experiments.streaming.datagrams import Assembler, Datagram, Kind, cut
from experiments.streaming.session import Arrival, SentUnit, measure, show
from experiments.streaming.udp import Endpoint, Receiver, Sender, relay
from lightning_modules import load_codec
from lightning_modules.bitstream import Unit
from lightning_modules.codec import Packet

FRAMES = 11


def make_lively(codec):
    """Stretch the latents of random weights, so that there is something to code."""
    for name, parameter in codec.named_parameters():
        if name.endswith(("encoder_down.weight", "encoder.1.weight")):
            parameter.data *= 4.0
        if name.endswith("posterior.1.weight"):
            parameter.data *= 10.0


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    paths = {}
    for name, codec, arguments in (
        ("dhvc", "DHVC", {"auxiliary": False}),
        ("auxiliary", "DHVC", {"auxiliary": True}),
        ("ui2c", "UI2C", {}),
        (
            "video_vae",
            "VideoVAE",
            {"backbone": "lean_vae", "frames_per_unit": 5, "lpips": "random"},
        ),
    ):
        torch.manual_seed(1)
        module = getattr(lightning_modules, codec)(size="tiny", **arguments)
        make_lively(module.codec)
        checkpoint = {"state_dict": module.state_dict(), "global_step": 0}
        module.on_save_checkpoint(checkpoint)
        paths[name] = folder / f"{name}.ckpt"
        torch.save(checkpoint, paths[name])
    return paths


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clip"
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, 8, 14, generator=generator)
    wide = torch.nn.functional.interpolate(coarse, (64, 112), mode="bilinear")[0]
    with create_video(path, 64, 64, Fraction(25)) as writer:
        for number in range(FRAMES):
            writer.write(wide[:, :, 4 * number : 4 * number + 64])
    return path


@pytest.fixture
def run(checkpoints, video, tmp_path, monkeypatch):
    """Run the command without figures, and give the runs of its JSON file by label."""
    monkeypatch.setattr(plots, "write_plots", lambda *_: [])

    def run(*arguments, codec="dhvc", rate=1024):
        out = tmp_path / "out"
        command = [video, "--checkpoint", checkpoints[codec], "--rate", rate]
        assert stream.main(list(map(str, [*command, "--output", out, *arguments]))) == 0
        found = json.loads((out / "stream.json").read_text())
        return {(each["label"], each["seed"]): each for each in found["runs"]}

    return run


@pytest.fixture
def refused(checkpoints, video, tmp_path, capsys):
    def refused(*arguments, codec="dhvc", rate=1024):
        out = tmp_path / "out"
        command = [video, "--checkpoint", checkpoints[codec], "--rate", rate]
        assert stream.main(list(map(str, [*command, "--output", out, *arguments]))) == 2
        assert not out.exists()
        return capsys.readouterr().err

    return refused


def column(run, name):
    return [frame[name] for frame in run["frames"]]


def test_a_lost_scale_is_mended_by_its_echo_bit_by_bit(run, checkpoints, video):
    runs = run("--lose", "5:4", "--echo_delay", "3", "none", "--progressive", "3", "1")
    whole, echo, none = (
        runs[label, None] for label in ("no loss", "echo, 3 frames later", "no echo")
    )
    assert column(whole, "exact") == [True] * FRAMES
    assert column(echo, "exact") == [True] * 4 + [False] * 3 + [True] * (FRAMES - 7)
    assert column(echo, "scales") == [4] * 4 + [3] * 3 + [4] * (FRAMES - 7)
    assert column(echo, "resync") == [0] * 7 + [4] + [0] * (FRAMES - 8)
    assert column(echo, "lost") == [[]] * 4 + [[4]] + [[]] * (FRAMES - 5)
    assert column(none, "scales") == [4] * 4 + [3] * (FRAMES - 4)
    for name in ("psnr_rgb", "psnr_yuv", "bits_per_scale"):
        assert column(echo, name)[:4] == column(whole, name)[:4]
        assert column(echo, name)[4:7] == column(none, name)[4:7]
    assert column(none, "bits") == column(whole, "bits")
    assert column(echo, "intra") == [True] + [False] * (FRAMES - 1)

    # The same from the codec itself, without channel or echo.
    codec = load_codec(checkpoints["dhvc"])
    frames = list(open_video(video))
    packets = list(
        codec.compress(frames, 1024, reconstruct=True, resync=lambda n: 4 * (n == 7))
    )
    bits = [8 * len(packet.payload) for packet in packets]
    assert column(echo, "bits_per_scale") == [bits[i : i + 4] for i in range(0, 44, 4)]
    assert column(echo, "bits") == [sum(bits[i : i + 4]) for i in range(0, 44, 4)]
    own = torch.cat([packet.x_hat for packet in packets])
    for number in (0, 3, 7, FRAMES - 1):
        error = ((own[number] * 255).round() - (frames[number] * 255).round()) / 255
        psnr = -10 * error.square().mean().log10()
        found = echo["frames"][number]["psnr_rgb"]
        assert found == pytest.approx(float(psnr), abs=1e-4)

    three, one = runs["first 3 scales only", None], runs["scale 1 only", None]
    assert column(three, "scales") == [3] * FRAMES
    packets = list(codec.compress(frames, 1024))
    decoded = [each.frame for each in codec.receive(packets, 64, 64, scales=1)]
    errors = (torch.stack(decoded) * 255).round() / 255 - torch.stack(frames)
    expected = -10 * errors.square().mean(dim=(1, 2, 3)).log10()
    assert column(one, "psnr_rgb") == pytest.approx(expected.tolist(), abs=1e-4)
    plain = column(whole, "bits_per_scale")
    assert column(three, "bits") == [sum(bits[:3]) for bits in plain]


def test_a_loss_of_scale_2_leaves_only_scale_1(run):
    runs = run("--lose", "5:4", "5:2", "--echo_delay", "3")
    echo = runs["echo, 3 frames later", None]
    assert column(echo, "resync") == [0] * 7 + [2] + [0] * (FRAMES - 8)
    assert column(echo, "scales") == [4] * 4 + [1] * 3 + [4] * (FRAMES - 7)
    assert column(echo, "exact")[7:] == [True] * (FRAMES - 7)
    assert ("scale 1 only", None) in runs and ("no echo", None) not in runs


def test_a_resync_frame_that_is_hit_sends_a_new_echo(run):
    runs = run("--lose", "3:4", "6:4", "--echo_delay", "3")
    echo = runs["echo, 3 frames later", None]
    assert column(echo, "resync") == [0] * 5 + [4] + [0] * 2 + [4] + [0] * (FRAMES - 9)
    assert column(echo, "exact") == [True] * 2 + [False] * 6 + [True] * (FRAMES - 8)
    assert echo["mean"]["lost"] == 2 and echo["mean"]["resyncs"] == 2
    assert echo["mean"]["recovered"] == 1


def test_an_intra_frame_mends_what_its_echo_need_not(run):
    arguments = ("--lose", "5:3", "--echo_delay", "3", "--intra_period", "6")
    echo = run(*arguments)["echo, 3 frames later", None]
    assert column(echo, "resync") == [0] * FRAMES
    assert [n for n, intra in enumerate(column(echo, "intra"), 1) if intra] == [1, 7]
    assert column(echo, "exact") == [True] * 4 + [False] * 2 + [True] * (FRAMES - 6)


def test_an_unprotected_first_scale_is_mended_by_an_intra_frame(run):
    arguments = ("--lose", "3:1", "--protect", "0", "--echo_delay", "2")
    runs = run(*arguments)
    echo = runs["echo, 2 frames later", None]
    assert column(echo, "scales") == [4] * 2 + [0] * 2 + [4] * (FRAMES - 4)
    assert column(echo, "resync")[4] == 1
    assert not any(each["kind"] == "progressive" for each in runs.values())


def test_echoes_of_what_was_mended_change_nothing():
    def resyncs(losses, delay, count=12, intra=()):
        echoes = Echoes(delay)
        found = []
        for frame in range(1, count + 1):
            first = 1 if frame in intra else echoes.first_scale(frame)
            echoes.note(frame, first)
            found.append(first)
            if frame in losses:
                echoes.add(frame, losses[frame])
        return {n: first for n, first in enumerate(found, 1) if first}

    assert resyncs({3: 4, 4: 4}, 3) == {6: 4}
    assert resyncs({3: 4, 4: 2}, 3) == {6: 4, 7: 2}
    assert resyncs({3: 2, 4: 4}, 3) == {6: 2}
    assert resyncs({3: 4, 6: 4}, 3) == {6: 4, 9: 4}
    assert resyncs({3: 4, 6: 3, 7: 4}, 3) == {6: 4, 9: 3}
    assert resyncs({3: 4}, 3, intra=[5]) == {5: 1}
    assert resyncs({3: 4}, None) == {}
    both = Echoes(2)
    both.add(1, 4)
    both.add(1, 2)
    assert both.first_scale(3) == 2


def test_protected_scales_are_never_lost(run):
    losses = Losses(frozenset({(5, 1), (5, 3)}), 1.0, "packet", protected=2)
    for frame in range(1, 40):
        lost = losses.of_unit(frame, 1, [9, 9, 9, 9])
        assert lost == ({3, 4} if 4 <= frame <= 28 else set())
    arguments = ("--loss_rate", "1", "--loss_mode", "packet", "--protect", "2")
    arguments = (*arguments, "--loss_first", "3", "--loss_last", "6")
    runs = run(*arguments, "--echo_delay", "none")
    expected = [[]] * 2 + [[3, 4]] * 4 + [[]] * (FRAMES - 6)
    assert column(runs["no echo", 0], "lost") == expected
    assert min(column(runs["no echo", 0], "scales")) == 2


def draw(count=3000, sizes=(1, 10, 20, 70), **options):
    losses = Losses(rate=0.4, first=1, last=count, **options)
    return [losses.of_unit(frame, 1, sizes) for frame in range(1, count + 1)]


def test_what_is_drawn_has_the_rates_that_were_asked_for():
    frame = Counter(draw())
    assert set(map(len, frame)) == {0, 1}
    for scale in (2, 3, 4):
        assert frame[frozenset({scale})] / 3000 == pytest.approx(0.4 / 3, abs=0.02)
    weighted = Counter(draw(mode="bytes"))
    for scale, share in ((2, 0.1), (3, 0.2), (4, 0.7)):
        found = weighted[frozenset({scale})] / 3000
        assert found == pytest.approx(0.4 * share, abs=0.03)
    packets = draw(mode="packet")
    for scale in (2, 3, 4):
        share = sum(scale in lost for lost in packets) / 3000
        assert share == pytest.approx(0.4, abs=0.03)
    both = sum({2, 3} <= lost for lost in packets) / 3000
    assert both == pytest.approx(0.16, abs=0.03)


def test_a_seed_draws_the_same_again_and_another_one_does_not():
    assert draw(seed=4) == draw(seed=4) != draw(seed=5)
    # A frame's luck does not depend on what was asked before.
    losses = Losses(rate=0.4, last=100)
    alone = losses.of_unit(50, 1, [1] * 4)
    assert [losses.of_unit(n, 1, [1] * 4) for n in range(1, 51)][-1] == alone


def test_seeds_are_runs_of_their_own_and_can_be_repeated(run):
    arguments = ("--loss_rate", "0.6", "--seeds", "2", "--echo_delay", "2")
    arguments = (*arguments, "--loss_first", "2", "--max_frames", "6")
    runs = run(*arguments, "--seed", "3")
    again = run(*arguments, "--seed", "4")
    label = "echo, 2 frames later"
    assert runs[label, 4] == again[label, 4] and (label, 5) in again
    assert column(runs[label, 3], "lost") != column(runs[label, 4], "lost")


def test_a_codec_without_scales_shows_its_last_frame_until_it_starts_anew(run, capsys):
    arguments = ("--lose", "3:1", "--intra_period", "4")
    runs = run(*arguments, codec="ui2c", rate=30)
    none = runs["no echo", None]
    assert column(none, "exact") == [True] * 2 + [False] * 2 + [True] * (FRAMES - 4)
    assert column(none, "lost")[2:4] == [[1], []] and none["mean"]["lost"] == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "cannot code a unit anew" in said
    assert "next start without a reference (every 4 frames" in said
    assert set(runs) == {("no loss", None), ("no echo", None)}
    # Frame 4 is the last of that unit, which frame 11 is alone in.
    last = run("--lose", "4:1", f"{FRAMES}:1", codec="ui2c", rate=30)["no echo", None]
    assert len(last["frames"]) == FRAMES
    assert column(last, "exact") == [True] * 2 + [False] * (FRAMES - 2)


def test_a_loss_ends_with_its_unit_where_none_refers_to_another(run, capsys):
    # Units share a frame: they begin at 1, 5 and 9, and 5 takes both of its.
    none = run("--lose", "7:1", codec="video_vae", rate=0.2)["no echo", None]
    assert column(none, "exact") == [True] * 4 + [False] * 5 + [True] * 2
    assert "the next unit, none of which" in " ".join(capsys.readouterr().err.split())


def test_figures_and_table_are_made(checkpoints, video, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    arguments = [video, "--checkpoint", checkpoints["dhvc"], "--rate", 500]
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
    assert len(lines) == 2 + 2 + 4 and lines[2].startswith("no loss")


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


@pytest.mark.parametrize("wrong", ["--echo_delay=0", "--lose=5", "--lose=5:x"])
def test_nonsense_is_refused_by_the_parser(wrong, capsys):
    arguments = ["in", "--checkpoint", "c", "--rate", "1", "--output", "o", wrong]
    with pytest.raises(SystemExit):
        stream.main([*arguments, *([] if "lose" in wrong else ["--lose", "5:4"])])
    assert "such as 5:4" in (err := capsys.readouterr().err) or "echo delay" in err


class LyingCodec:
    """Says that it decoded everything, and shows something else."""

    scales = 1
    shown = 1

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


# Datagrams.


UNITS = (Unit(bytes(range(250)), 0, 7), Unit(b"", 0, 8), Unit(b"abc", 1, 9))


def fragments():
    return list(cut(0, 5, 1, UNITS, 130))


def test_packets_survive_fragments_in_any_order_and_number():
    parts = fragments()
    assert [(p.scale, p.fragment, len(p.data)) for p in parts] == [
        (1, 0, 100),
        (1, 1, 100),
        (1, 2, 50),
        (2, 0, 0),
        (3, 0, 3),
    ]
    assert max(len(part.to_bytes(1)) for part in parts) == 130
    assembler = Assembler(3)
    for part in [*reversed(parts), parts[1]]:
        assembler.add(Datagram.from_bytes(part.to_bytes(99), 99))
    assert assembler.close() == UNITS


@pytest.mark.parametrize("missing", range(5))
def test_a_packet_is_lost_if_one_of_its_fragments_is(missing):
    assembler = Assembler(3)
    parts = fragments()
    late = parts.pop(missing)
    for part in parts:
        assembler.add(part)
    lost = [unit is None for unit in assembler.close()]
    assert lost == [late.scale == scale for scale in (1, 2, 3)]
    assembler.add(late)
    assert assembler.late == 1
    # The next unit does not inherit it.
    assert assembler.close() == (None, None, None)


def test_a_datagram_of_someone_else_is_none():
    raw = fragments()[0].to_bytes(99)
    assert Datagram.from_bytes(raw, 99) == fragments()[0]
    assert Datagram.from_bytes(raw, 98) is None
    assert Datagram.from_bytes(raw[:20], 99) is None
    assert Datagram.from_bytes(b"X" + raw[1:], 99) is None
    assert Datagram.from_bytes(raw[:8] + b"\x63" + raw[9:], 99) is None


def test_a_packet_that_needs_too_many_fragments_is_refused():
    with pytest.raises(ValueError, match="more than 65535"):
        list(cut(0, 1, 1, [Unit(bytes(70000), 1, 0)], 31))


@pytest.fixture
def ends():
    opened = [Endpoint.open(99, 5.0) for _ in range(3)]
    yield opened
    for end in opened:
        end.socket.close()


def test_a_receiver_needs_no_order_and_answers_again(ends):
    here, _, there = ends
    receiver = Receiver(there, here.address, 3)
    units = receiver.units()
    first, second = fragments(), [*cut(1, 6, 2, UNITS, 130)]
    finish = Datagram(Kind.FINISH, 2)

    def end(number):
        return Datagram(Kind.END, number, 5 + number, 1 + number)

    # A stranger, the end of the second unit before its data and before the first's.
    here.socket.sendto(b"hello", there.address)
    here.send([end(1), *second[:-1], finish, *first[1:], end(0)], there.address)
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(list, units)
        reports = [here.receive(), here.receive()]
        here.send([end(0), second[-1], finish], there.address)
        reports += [here.receive(), here.receive()]
        assert got.result(10) == [
            (1, (None, *UNITS[1:])),
            (2, (*UNITS[:2], None)),
        ]
    assert {report.kind for report in reports} == {Kind.REPORT}
    assert [(report.unit, report.data) for report in reports] == [
        (0, b"\x01"),
        (1, b"\x03"),
    ] * 2
    assert receiver.late == 1


def test_silence_is_an_error_at_every_end(ends):
    here, between, there = (Endpoint(end.socket, 99, 0.3) for end in ends)
    with pytest.raises(ValueError, match="receiver heard nothing"):
        list(Receiver(there, here.address, 1).units())
    with pytest.raises(ValueError, match="relay heard nothing"):
        relay(between, there.address, 1, Losses())
    sender = Sender(here, between.address, Echoes(1), 1200, lambda: None)
    unit = SentUnit(6, 1, (Packet(b"x", 1, 0),), 0, True, ("",))
    with pytest.raises(ValueError, match="no report on frame 6 came back"):
        sender.send_all([unit])


def test_a_failed_process_ends_the_sender(ends):
    here, between, _ = ends

    def failed():
        raise OSError("a worker process ended")

    sender = Sender(here, between.address, Echoes(1), 1200, failed)
    unit = SentUnit(1, 1, (Packet(b"x", 1, 0),), 0, True, ("",))
    with pytest.raises(OSError, match="worker process"):
        sender.send_all([unit])


def test_a_network_that_drops_and_swaps_by_itself_hangs_nobody(ends):
    here, between, there = ends
    packets = (Packet(bytes(200), 0, 1), Packet(b"b", 1, 2))
    units = [SentUnit(n, 1, packets, 0, False, ("",)) for n in range(1, 8)]
    echoes = Echoes(2)
    receiver = Receiver(there, here.address, 2)
    stop = threading.Event()

    def bad_network():
        ends_seen, held = Counter(), None
        while not stop.is_set():
            datagram = between.receive(0.05)
            if datagram is None:
                continue
            if datagram.kind == Kind.END:
                ends_seen[datagram.unit] += 1
                if ends_seen[datagram.unit] == 1 and datagram.unit == 1:
                    continue
            if (datagram.unit, datagram.scale, datagram.fragment) == (2, 1, 1):
                continue
            if datagram.unit == 4 and datagram.kind == Kind.DATA:
                continue
            if (datagram.unit, datagram.scale, datagram.fragment) == (3, 2, 0):
                held = datagram
                continue
            between.send([datagram], there.address)
            if held and datagram.kind == Kind.END:
                between.send([held], there.address)
                held = None

    def coded():
        for number, unit in enumerate(units):
            # What this frame must react to has been heard of.
            assert set(range(number - 1)) <= set(sender.lost)
            yield unit

    sender = Sender(here, between.address, echoes, 130, lambda: None)
    with ThreadPoolExecutor(2) as pool:
        pool.submit(bad_network)
        got = pool.submit(list, receiver.units())
        try:
            assert sender.send_all(coded()) == units
            sender.finish(got.done)
            arrived = got.result(10)
        finally:
            stop.set()
    lost = {2: {1}, 3: {2}, 4: {1, 2}}
    assert sender.lost == {n: lost.get(n, set()) for n in range(7)}
    for number, (frames, packets) in enumerate(arrived):
        assert frames == 1
        missing = {scale for scale, each in enumerate(packets, 1) if each is None}
        assert missing == lost.get(number, set())
    # Losses in frames 3 to 5, two frames later.
    assert [echoes.first_scale(frame) for frame in range(1, 8)] == [0] * 4 + [1, 2, 1]
    assert receiver.late == 1


def test_udp_gives_the_same_as_the_simulation(run):
    arguments = ("--loss_rate", "0.7", "--loss_mode", "bytes", "--loss_first", "2")
    arguments += ("--echo_delay", "2", "none", "--seed", "1")
    simulated = run(*arguments)
    real = run(*arguments, "--udp", "--datagram", "90", "--timeout", "30")
    assert simulated.keys() == real.keys()
    for key, each in real.items():
        assert each["frames"] == simulated[key]["frames"], key
    echo = real["echo, 2 frames later", 1]
    assert echo["mean"]["lost"] > 1 and echo["mean"]["resyncs"] > 1
    assert False in column(echo, "exact")[1:] and True in column(echo, "exact")[1:]
    link = echo["link"]
    assert link["dropped_by_relay"] == echo["mean"]["lost"]
    assert link["lost_otherwise"] == [] and link["late_fragments"] == 0
    assert 8 * (link["nbytes"] - link["header_nbytes"]) == sum(column(echo, "bits"))
    assert link["datagrams"] > 5 * FRAMES
