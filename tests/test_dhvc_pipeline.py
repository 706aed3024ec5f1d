"""Several workers do what one does, bit by bit, and never hang."""

import gc
import json
import os
import signal
import threading
import weakref
from functools import cache
from itertools import count as count_up
from pathlib import Path

import pytest
import torch

from experiments import pipeline_report
from experiments.pipeline_report import (
    bound,
    check_pipeline,
    macs_bound,
    measure_pipeline,
)
from experiments.profile import main
from lightning_modules.codec import Packet
from lightning_modules.dhvc.codec import DHVCCodec
from lightning_modules.dhvc.pipeline import PipelinedDHVC
from lightning_modules.dhvc.workers import Handover
from lightning_modules.ui2c.codec import UI2CCodec

CONFIGS = Path(__file__).parents[1] / "experiments" / "configs"
SIZE = (40, 70)
LMBDA = 1024.0
CPU = torch.device("cpu")
PATIENCE = 30.0
"""Seconds until a test fails that should not have to wait."""


def lively(**arguments):
    """Return a codec of random weights whose latents are not all 0."""
    torch.manual_seed(3)
    codec = DHVCCodec("tiny", auxiliary=False, **arguments).eval()
    for name, parameter in codec.named_parameters():
        if name.endswith("posterior.1.weight"):
            parameter.data *= 10.0
        if name.endswith("constant"):
            parameter.data.normal_()
    return codec


@cache
def shared_codec():
    return lively()


@pytest.fixture
def codec():
    return shared_codec()


@pytest.fixture(autouse=True)
def no_worker_is_left():
    yield
    assert workers() == []


def workers():
    return [t.name for t in threading.enumerate() if t.name.startswith("pipeline")]


def worker():
    return int(threading.current_thread().name.split()[-1])


def pipelined(codec, number=2):
    return PipelinedDHVC(codec, [CPU] * number)


def scene(frames):
    """A texture that pans, so that every frame differs and refers to the last."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(1, 3, 9, 12, generator=generator)
    height, width = SIZE
    wide = torch.nn.functional.interpolate(
        coarse, (height, width + 3 * frames), mode="bicubic"
    ).clamp(0, 1)[0]
    return [wide[..., 3 * t : 3 * t + width] for t in range(frames)]


@cache
def expected(frames, period):
    """Return what one worker makes of it: packets, and frames from them."""
    codec = shared_codec()
    packets = list(
        codec.compress(scene(frames), LMBDA, intra_period=period, reconstruct=True)
    )
    return packets, list(codec.decompress(packets, *SIZE))


def same_packets(a, b):
    return (
        a == b
        and all(map(torch.equal, (p.x_hat for p in a), (p.x_hat for p in b)))
        and [p.estimated_bits for p in a] == [p.estimated_bits for p in b]
    )


def same_frames(a, b):
    return len(a) == len(b) and all(map(torch.equal, a, b))


def outcome(items):
    """Return what comes out, and how it ends."""
    found = []
    try:
        for item in items:
            found.append(item)
    except Exception as error:
        return found, type(error), str(error)
    return found, None, ""


class Gate:
    """Holds the first frame before a scale until the second has done another."""

    def __init__(self, codec, hold, until):
        self.opened = threading.Event()
        self.in_time = None

        def before(*_):
            if worker() == 0 and self.in_time is None:
                self.in_time = self.opened.wait(PATIENCE)

        def after(*_):
            if worker() == 1:
                self.opened.set()

        network = codec.network
        self.hooks = [
            network.scale(hold).register_forward_pre_hook(before),
            network.scale(until).register_forward_hook(after),
        ]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


# The same bits.


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize(("frames", "period"), [(1, -1), (2, -1), (7, -1), (7, 3)])
def test_packets_and_frames_are_those_of_one_worker(codec, number, frames, period):
    packets, shown = expected(frames, period)
    pipeline = pipelined(codec, number)
    coded = list(
        pipeline.compress(scene(frames), LMBDA, intra_period=period, reconstruct=True)
    )
    assert same_packets(coded, packets)
    decoded = list(pipeline.decompress(packets, *SIZE))
    assert same_frames(decoded, shown)
    assert not any(frame.requires_grad for frame in decoded)


@pytest.mark.parametrize(
    ("arguments", "dtype"),
    [
        ({"reference_frames": 1}, torch.float32),
        ({"reference_frames": 3}, torch.bfloat16),
        ({}, torch.float16),
        (
            {
                "structure": "dhvc1",
                "variable_rate": False,
                "lmbda_range": (LMBDA, LMBDA),
                "predictor": "unet",
                "reference": "spatial",
            },
            torch.float32,
        ),
    ],
)
def test_so_they_are_for_other_networks_and_dtypes(arguments, dtype):
    codec = lively(**arguments).to(dtype)
    packets = list(codec.compress(scene(6), LMBDA, reconstruct=True))
    pipeline = pipelined(codec, 3)
    assert same_packets(
        list(pipeline.compress(scene(6), LMBDA, reconstruct=True)), packets
    )
    shown = list(codec.decompress(packets, *SIZE))
    assert same_frames(list(pipeline.decompress(packets, *SIZE)), shown)
    assert same_frames(shown, [p.x_hat[0] for p in packets if p.frames])


@pytest.mark.parametrize("scales", [None, 2])
def test_lost_packets_and_scales_that_begin_anew_change_nothing(codec, scales):
    def resync(number):
        return 3 if number == 4 else 0

    packets = list(codec.compress(scene(8), LMBDA, resync=resync))
    pipeline = pipelined(codec, 3)
    assert list(pipeline.compress(scene(8), LMBDA, resync=resync)) == packets
    for frame, scale in ((1, 3), (5, 4), (6, 1)):
        packets[4 * frame + scale - 1] = None
    alone = list(codec.receive(packets, *SIZE, scales=scales))
    together = list(pipeline.receive(packets, *SIZE, scales=scales))
    assert [r.scales for r in together] == [r.scales for r in alone]
    assert same_frames([r.frame for r in together], [r.frame for r in alone])


def test_another_device_works_on_a_copy(codec):
    pipeline = PipelinedDHVC(codec, [CPU, torch.device("cpu", 0)])
    assert pipeline.codecs[0] is codec
    assert pipeline.codecs[1] is not codec
    packets, _ = expected(7, -1)
    assert list(pipeline.compress(scene(7), LMBDA)) == packets


def test_workers_use_as_many_torch_threads_as_the_caller(codec):
    seen = set()
    before = torch.get_num_threads()
    hook = codec.network.scale(1).register_forward_hook(
        lambda *_: seen.add((threading.current_thread().name, torch.get_num_threads()))
    )
    torch.set_num_threads(before + 1)
    try:
        list(pipelined(codec).compress(scene(2), LMBDA))
    finally:
        torch.set_num_threads(before)
        hook.remove()
    assert seen == {(f"pipeline worker {i}", before + 1) for i in range(2)}


# Overlap, order and memory.


@pytest.mark.parametrize("decode", [False, True])
def test_a_frame_begins_before_the_one_before_it_is_done(codec, decode):
    packets, _ = expected(7, -1)
    pipeline = pipelined(codec)
    with Gate(codec, hold=4, until=3) as gate:
        if decode:
            list(pipeline.decompress(packets, *SIZE))
        else:
            list(pipeline.compress(scene(7), LMBDA))
    assert gate.in_time


@pytest.mark.parametrize("decode", [False, True])
def test_a_scale_that_begins_too_early_gives_other_bytes(codec, monkeypatch, decode):
    def take_at_once(self, scale, device):
        if self.has(scale):
            return self._past[scale - 1]
        gate.opened.set()
        return ()

    packets, shown = expected(7, -1)
    monkeypatch.setattr(Handover, "take", take_at_once)
    pipeline = pipelined(codec)
    with Gate(codec, hold=2, until=4) as gate:
        if decode:
            frames, ended, _ = outcome(pipeline.decompress(packets, *SIZE))
            assert ended is not None or not same_frames(frames, shown)
        else:
            assert list(pipeline.compress(scene(7), LMBDA)) != packets
    assert gate.in_time


def test_a_start_without_references_waits_for_nobody(codec):
    # The second frame would wait for the first one's scale 1, which waits for it.
    pipeline = pipelined(codec)
    with Gate(codec, hold=1, until=4) as gate:
        list(pipeline.compress(scene(2), LMBDA, intra_period=1))
    assert gate.in_time


def test_no_more_frames_are_taken_than_announced(codec):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield from scene(1)

    pipeline = pipelined(codec, 3)
    packets = pipeline.compress(endless(), LMBDA)
    for given in range(4):
        for _ in range(codec.scales):
            next(packets)
        assert taken <= given + pipeline.ahead == given + 5
    packets.close()


def test_nothing_of_older_frames_is_kept(codec):
    features = {}

    def remember(module, inputs, output):
        frame = 2 * len([n for n in features if n % 2 == worker()]) + worker()
        features[frame] = weakref.ref(output[1][0])

    hook = codec.network.scale(3).register_forward_hook(remember)
    packets = pipelined(codec).compress(scene(16), LMBDA)
    for _ in range(12 * codec.scales):
        next(packets)
    hook.remove()
    # Frame 11 came last: it refers to frames 9 and 10, and frame 10 to frame 8.
    gc.collect()
    assert [number for number in range(8) if features[number]() is not None] == []
    packets.close()


# Errors and ends.


def damaged(packet):
    payload = bytearray(packet.payload)
    payload[-1] ^= 0x10
    return Packet(bytes(payload), packet.frames, packet.checksum)


def breaks(frames):
    yield from frames
    raise OSError("the camera is gone")


COMPRESS = {
    "a source that breaks": (lambda: breaks(scene(3)), {}),
    "a source that breaks at once": (lambda: breaks([]), {}),
    "another size": (lambda: [*scene(3), torch.zeros(3, 8, 8), *scene(3)], {}),
    "not a number": (
        lambda: [*scene(3), torch.full((3, *SIZE), float("nan")), *scene(5)],
        {},
    ),
    "an intra period of 0": (lambda: scene(3), {"intra_period": 0}),
    "a scale that is not there": (lambda: scene(3), {"resync": lambda _: 5}),
    "nothing": (lambda: [], {}),
}


@pytest.mark.parametrize("case", COMPRESS)
def test_coding_ends_as_with_one_worker(codec, case):
    frames, options = COMPRESS[case]
    alone = outcome(codec.compress(frames(), LMBDA, **options))
    assert alone[1] is not None or case == "nothing"
    for number in (1, 3):
        pipeline = pipelined(codec, number)
        assert outcome(pipeline.compress(frames(), LMBDA, **options)) == alone


def test_a_rate_out_of_range_is_refused(codec):
    with pytest.raises(ValueError, match="lmbda"):
        list(pipelined(codec).compress(scene(1), 1.0))


DECOMPRESS = {
    "damaged": lambda p: [*p[:9], damaged(p[9]), *p[10:]],
    "damaged at once": lambda p: [damaged(p[0]), *p[1:]],
    "damaged twice": lambda p: [*p[:9], damaged(p[9]), *p[10:14], damaged(p[14])],
    "cut": lambda p: p[:10],
    "out of order": lambda p: [*p[:8], p[9], p[8], *p[10:]],
    "not the beginning": lambda p: p[4:],
    "a source that breaks": lambda p: breaks(p[:10]),
}


@pytest.mark.parametrize("case", DECOMPRESS)
def test_decoding_ends_as_with_one_worker(codec, case):
    packets, _ = expected(7, -1)
    change = DECOMPRESS[case]
    shown, ended, why = outcome(codec.decompress(change(packets), *SIZE))
    assert ended is not None
    for number in (1, 3):
        decoded = pipelined(codec, number).decompress(change(packets), *SIZE)
        frames, *end = outcome(decoded)
        assert end == [ended, why]
        assert same_frames(frames, shown)


def test_whatever_ends_a_worker_is_heard_of(codec):
    def leave(*_):
        raise SystemExit("somebody left")

    hook = codec.network.scale(3).register_forward_hook(leave)
    try:
        with pytest.raises(SystemExit, match="somebody left"):
            list(pipelined(codec).compress(scene(4), LMBDA))
    finally:
        hook.remove()


@pytest.mark.parametrize("close", [True, False])
def test_whoever_stops_early_ends_the_workers(codec, close):
    packets = pipelined(codec, 3).compress(scene(9), LMBDA)
    next(packets)
    assert len(workers()) == 3
    if close:
        packets.close()
    else:
        del packets
    assert workers() == []


def test_ctrl_c_ends_the_workers(codec):
    calls = count_up(1)

    def interrupt(*_):
        if next(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    hook = codec.network.scale(2).register_forward_hook(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(pipelined(codec).compress(scene(40), LMBDA))
    finally:
        hook.remove()
    assert workers() == []
    assert next(calls) < 40


def test_ctrl_c_while_a_frame_is_read_is_not_put_off(codec):
    def frames():
        yield from scene(2)
        raise KeyboardInterrupt

    packets = pipelined(codec).compress(frames(), LMBDA)
    with pytest.raises(KeyboardInterrupt):
        next(packets)


def test_an_auxiliary_path_is_refused():
    with pytest.raises(ValueError, match="auxiliary: false"):
        pipelined(DHVCCodec("tiny"))


def test_no_workers_are_refused(codec):
    with pytest.raises(ValueError, match="at least one"):
        pipelined(codec, 0)


# What profile says of it.


def profile(tmp_path, *more):
    configs = ("dhvc.yaml", "ablations/dhvc/plus_dec_parallel.yaml", "rehearsal.yaml")
    arguments = [f"--config={CONFIGS / name}" for name in configs]
    output = tmp_path / "profile.json"
    arguments += ["--height=60", "--width=64", "--device=cpu", "--repeats=1"]
    code = main([*arguments, f"--output={output}", *more])
    return json.loads(output.read_text()) if code == 0 else code


def test_profile_measures_the_pipeline(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pipeline_report, "FRAMES_PER_WORKER", 2)
    figures = profile(tmp_path, "--pipeline=2")["pipeline"]
    assert figures["workers"] == 2
    assert figures["frames"] == 4
    for key in ("encode", "decode"):
        measured = figures[key]
        parts = measured["parts_s_per_frame"]
        assert all(parts[f"scale{number}"] > 0 for number in range(1, 5))
        assert measured["speedup"] == pytest.approx(
            measured["one_worker_s_per_frame"] / measured["pipeline_s_per_frame"]
        )
        assert measured["model"] == bound(parts, 2)
        assert 1 <= measured["model"]["speedup"] <= 2
        assert figures["macs_bound"][key]["speedup"] > 1
    # The encoder alone has no tail, the decoder no encoder.
    assert figures["encode"]["parts_s_per_frame"]["tail"] == 0
    assert figures["decode"]["parts_s_per_frame"]["encoder"] == 0
    out = capsys.readouterr().out
    assert "scale4" in out and "bound by measured costs" in out


def test_a_pipeline_that_computes_something_else_is_not_reported(codec, monkeypatch):
    monkeypatch.setattr(pipeline_report, "FRAMES_PER_WORKER", 2)
    monkeypatch.setattr(Handover, "take", lambda self, scale, device: ())
    with pytest.raises(ValueError, match="do not compute what one does"):
        measure_pipeline(codec, 2, *SIZE, repeats=1)


def test_profile_refuses_what_has_no_pipeline(tmp_path, capsys):
    assert profile(tmp_path, "--pipeline=0") == 2
    assert "at least one device" in capsys.readouterr().err
    for codec, words in (
        (UI2CCodec("tiny"), "UI2C has no parallel pipeline"),
        (DHVCCodec("tiny"), "auxiliary: false"),
    ):
        with pytest.raises(ValueError, match=words):
            check_pipeline(codec, 2)


def test_the_bound_is_the_slowest_scale_or_all_workers():
    parts = {"encoder": 8.0, "scale1": 1.0, "scale2": 3.0}
    assert bound(parts, 2) == {"per_frame": 6.0, "speedup": 2.0, "set_by": "workers"}
    assert bound(parts, 6) == {"per_frame": 3.0, "speedup": 4.0, "set_by": "scale2"}


def test_the_bound_by_macs_takes_each_pass_for_itself():
    # kMACs per pixel at the paper's size.
    costs = {
        "encoder": (179.6, 0.0),
        "scale1": (5.0, 4.3),
        "scale2": (20.2, 17.2),
        "scale3": (42.8, 34.8),
        "scale4": (74.4, 57.7),
        "tail": (0.0, 28.1),
    }
    modules = [
        {
            "name": f"network.{name}",
            "encode_kmacs_per_pixel": encode,
            "decode_kmacs_per_pixel": decode,
        }
        for name, (encode, decode) in costs.items()
    ]
    bounds = macs_bound({"modules": modules}, 4)
    assert bounds["encode"]["speedup"] == pytest.approx(4.0)
    assert bounds["encode"]["set_by"] == "workers"
    assert bounds["decode"]["speedup"] == pytest.approx(2.46, abs=0.01)
    assert bounds["decode"]["set_by"] == "scale4"
