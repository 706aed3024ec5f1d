import pytest
import torch

from lightning_modules import clock as clock_module
from lightning_modules.clock import CodingClock, entropy_coding


@pytest.fixture
def spend(monkeypatch):
    """Return a function that lets seconds pass, and nothing else does."""
    now = [100.0]
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: now[0])

    def spend(seconds):
        now[0] += seconds

    return spend


@pytest.fixture
def code(spend):
    return entropy_coding(spend)


@pytest.fixture
def clock():
    return CodingClock(torch.device("cpu"))


def test_only_what_the_codec_computes_is_counted(clock, spend, code):
    def source():
        for frame in range(3):
            spend(1000)
            yield frame
        spend(1000)

    def compress(frames):
        for frame in frames:
            spend(5)
            code(2)
            yield frame
        spend(1)

    packets = []
    for packet in clock.watch(compress(clock.pause(source()))):
        packets.append(packet)
        spend(100)
        code(100)
    assert packets == [0, 1, 2]
    assert (clock.seconds, clock.entropy_seconds) == (22, 6)


def test_a_codec_that_waits_leaves_no_clock_running(clock, spend, code):
    def compress():
        while True:
            code(1)
            yield

    packets = clock.watch(compress())
    next(packets)
    code(50)
    assert clock.entropy_seconds == 1
    next(packets)
    packets.close()
    code(50)
    assert clock.entropy_seconds == 2


def test_two_codecs_in_turns_have_their_own_time(spend, code):
    clocks = [CodingClock(torch.device("cpu")) for _ in range(2)]

    def compress(seconds):
        while True:
            spend(seconds)
            code(seconds)
            yield

    one, other = (
        clock.watch(compress(seconds))
        for clock, seconds in zip(clocks, (1, 10), strict=True)
    )
    for packets in (one, other, one, other, other):
        next(packets)
    one.close()
    next(other)
    assert [c.seconds for c in clocks] == [4, 80]
    assert [c.entropy_seconds for c in clocks] == [2, 40]


def test_an_error_is_counted_and_ends_the_clock(clock, spend, code):
    def fail():
        code(3)
        raise ValueError("no")
        yield

    with pytest.raises(ValueError, match="no"):
        next(clock.watch(fail()))
    code(50)
    assert (clock.seconds, clock.entropy_seconds) == (3, 3)


def test_without_a_clock_entropy_coding_only_codes():
    function = entropy_coding(lambda x, y=1: x + y)
    assert function(2, y=3) == 5


@pytest.mark.gpu
def test_the_networks_work_on_a_gpu_is_not_counted_as_entropy_coding():
    device = torch.device("cuda")
    clock = CodingClock(device)
    x = torch.randn(8192, 8192, device=device)

    def compress():
        y = x
        for _ in range(20):
            y = (y @ x).clamp(-1, 1)
        entropy_coding(lambda: None)()
        yield y

    list(clock.watch(compress()))
    clock = CodingClock(device)
    list(clock.watch(compress()))
    assert clock.seconds > 0.01
    assert clock.entropy_seconds < 0.01 * clock.seconds
