"""Streaming over UDP: datagrams, their fragments, silence and bad networks."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from experiments.stream.channel import Arrival, Echoes, Losses, SentUnit
from experiments.stream.datagrams import Assembler, Datagram, Kind, cut
from experiments.stream.udp import Endpoint, Receiver, Sender, relay
from lightning_modules.bitstream import Packet

UNITS = (Packet(bytes(range(250)), 0, 7), Packet(b"", 0, 8), Packet(b"abc", 1, 9))


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
        list(cut(0, 1, 1, [Packet(bytes(70000), 1, 0)], 31))


@pytest.fixture
def ends():
    opened = [Endpoint.open(99, 5.0) for _ in range(3)]
    yield opened
    for end in opened:
        end.socket.close()


def test_a_receiver_needs_no_order_and_answers_again(ends):
    here, _, there = ends
    receiver = Receiver(there, here.address, 3)
    arrivals = receiver.arrivals()
    first, second = fragments(), [*cut(1, 6, 2, UNITS, 130)]
    finish = Datagram(Kind.FINISH, 2)

    def end(number):
        return Datagram(Kind.END, number, 5 + number, 1 + number)

    # A stranger, the end of the second unit before its data and before the first's.
    here.socket.sendto(b"hello", there.address)
    here.send([end(1), *second[:-1], finish, *first[1:], end(0)], there.address)
    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(list, arrivals)
        reports = [here.receive(), here.receive()]
        here.send([end(0), second[-1], finish], there.address)
        reports += [here.receive(), here.receive()]
        assert got.result(10) == [
            Arrival(1, (None, *UNITS[1:])),
            Arrival(2, (*UNITS[:2], None)),
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
        list(Receiver(there, here.address, 1).arrivals())
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
        got = pool.submit(list, receiver.arrivals())
        try:
            assert sender.send_all(coded()) == units
            sender.finish(got.done)
            arrived = got.result(10)
        finally:
            stop.set()
    lost = {2: {1}, 3: {2}, 4: {1, 2}}
    assert sender.lost == {n: lost.get(n, set()) for n in range(7)}
    for number, arrival in enumerate(arrived):
        assert arrival.frames == 1
        each = enumerate(arrival.packets, 1)
        missing = {scale for scale, packet in each if packet is None}
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
    assert False in echo.column("exact")[1:] and True in echo.column("exact")[1:]
    link = echo["link"]
    assert link["dropped_by_relay"] == echo["mean"]["lost"]
    assert link["lost_otherwise"] == [] and link["late_fragments"] == 0
    assert 8 * (link["nbytes"] - link["header_nbytes"]) == sum(
        map(sum, echo.column("bits_per_scale"))
    )
    assert link["datagrams"] > 5 * 11
