"""Sender, lossy relay and receiver on real UDP sockets, each a process of its own.

The sender's datagrams go to the relay, which drops those of packets that are to be
lost and passes on the others; the receiver answers the sender. After each unit the
sender says so, and says it again until the receiver has reported which packets it
lacks: whoever misses a fragment at that moment has lost its packet, and nobody has
told it but the sender's ``END``. The report is the echo, and it opens the window: the
sender is never further ahead than the echo delay. So the encoder acts on a loss at the
same frame as in a simulation, however fast the machine is, and clocks do nothing but
end with an error what no longer goes on.
"""

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Thread

from experiments.stream.channel import Arrival, Echoes, Losses, SentUnit
from experiments.stream.datagrams import Assembler, Datagram, Kind, cut

Address = tuple[str, int]

LOOPBACK = "127.0.0.1"
BUFFER = 1 << 22
"""Bytes asked of the kernel for what a process has not read yet; it may give less."""

BURST, PAUSE = 16, 0.001
"""Datagrams sent at once, and the seconds after them: no buffer fills up."""

REPEAT = 0.2
"""Seconds after which a sender that hears nothing says it again."""

WINDOW = 4
"""Units that a sender is ahead of the reports at most."""


@dataclass(frozen=True)
class Endpoint:
    """One end of a link, as its process needs it.

    Attributes:
        socket: Bound; it can be sent to another process.
        session: Number that all datagrams carry.
        timeout: Seconds of silence after which it gives up.
    """

    socket: socket.socket
    session: int
    timeout: float

    @property
    def address(self) -> Address:
        """Where datagrams for it go."""
        host, port = self.socket.getsockname()
        return host, port

    @classmethod
    def open(cls, session: int, timeout: float) -> "Endpoint":
        """Bind a socket on loopback, at any port that is free."""
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        opened.bind((LOOPBACK, 0))
        return cls(opened, session, timeout)

    def send(self, datagrams: Iterable[Datagram], to: Address) -> tuple[int, int]:
        """Send datagrams; return how many there were, and their bytes."""
        number = nbytes = 0
        self.socket.settimeout(self.timeout)
        for number, datagram in enumerate(datagrams, start=1):
            nbytes += self.socket.sendto(datagram.to_bytes(self.session), to)
            if number % BURST == 0:
                time.sleep(PAUSE)
        return number, nbytes

    def receive(self, timeout: float | None = None) -> Datagram | None:
        """Return the next datagram of the session; ``None`` after so many seconds."""
        end = time.monotonic() + (self.timeout if timeout is None else timeout)
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                raw = self.socket.recv(1 << 16)
            except TimeoutError:
                break
            datagram = Datagram.from_bytes(raw, self.session)
            if datagram is not None:
                return datagram
        return None


@dataclass
class Sender:
    """The encoder's end.

    Attributes:
        end: Its socket.
        relay: Where everything goes.
        echoes: Take what the reports say.
        limit: Bytes of a datagram.
        check: Raises if the relay or the receiver has failed.
        lost: For each unit that was reported the scales that were lost.
        datagrams: Sent, with fragments of packets.
        nbytes: Theirs, with our headers, without those of UDP and IP.
        markers: Other datagrams sent, some of them again.
    """

    end: Endpoint
    relay: Address
    echoes: Echoes
    limit: int
    check: Callable[[], None]
    lost: dict[int, frozenset[int]] = field(default_factory=dict)
    datagrams: int = 0
    nbytes: int = 0
    markers: int = 0
    _ends: list[Datagram] = field(default_factory=list)

    def send_all(self, units: Iterable[SentUnit]) -> list[SentUnit]:
        """Send units as they are coded; return them when all have been reported.

        Raises:
            ValueError: No report comes back in time.
        """
        sent = []
        window = min(self.echoes.delay or WINDOW, WINDOW)
        for unit in units:
            self._send(unit)
            sent.append(unit)
            # Before the next one is coded: it may depend on what was lost.
            self._wait_for_reports(len(sent) + 1 - window)
        self._wait_for_reports(len(sent))
        return sent

    def finish(self, finished: Callable[[], bool]) -> None:
        """Say that nothing more comes, until the receiver has shown everything."""
        while not finished():
            self.check()
            self._mark(Datagram(Kind.FINISH, len(self._ends)))
            self.end.receive(REPEAT)

    def stop_relay(self, stopped: Callable[[], bool]) -> None:
        """End the relay."""
        while not stopped():
            self._mark(Datagram(Kind.STOP))
            time.sleep(PAUSE)

    def _send(self, unit: SentUnit) -> None:
        place = len(self._ends), unit.first, unit.frames
        count, nbytes = self.end.send(cut(*place, unit.packets, self.limit), self.relay)
        self.datagrams += count
        self.nbytes += nbytes
        self._ends.append(Datagram(Kind.END, *place))
        self._mark(self._ends[-1])

    def _mark(self, datagram: Datagram) -> None:
        self.end.send([datagram], self.relay)
        self.markers += 1

    def _wait_for_reports(self, count: int) -> None:
        """Wait until so many units, from the first on, have been reported."""
        deadline = time.monotonic() + self.end.timeout
        while missing := [number for number in range(count) if number not in self.lost]:
            report = self.end.receive(REPEAT)
            if report is not None:
                self._hear(report)
                continue
            self.check()
            if time.monotonic() > deadline:
                raise ValueError(
                    f"no report on frame {self._ends[missing[0]].first} came back "
                    f"within {self.end.timeout:g} s: the network is down, or the "
                    "machine too busy (--timeout)"
                )
            for number in missing:
                self._mark(self._ends[number])

    def _hear(self, report: Datagram) -> None:
        if report.kind != Kind.REPORT or report.unit in self.lost:
            return
        lost = frozenset(report.data)
        self.lost[report.unit] = lost
        if lost:
            self.echoes.add(self._ends[report.unit].first, min(lost))


def relay(
    end: Endpoint, receiver: Address, scales: int, losses: Losses
) -> list[tuple[int, int]]:
    """Pass on datagrams, but not those of packets that are to be lost.

    It holds a unit until its end, so that losses can depend on sizes.

    Args:
        end: Its socket.
        receiver: Where they go.
        scales: Packets of a unit.
        losses: Which packets get lost.

    Returns:
        First frame and scale of each packet that it dropped.

    Raises:
        ValueError: The sender has gone silent.
    """
    held: dict[int, list[Datagram]] = {}
    dropped: dict[int, frozenset[int]] = {}
    places: list[tuple[int, int]] = []
    while (datagram := end.receive()) and datagram.kind != Kind.STOP:
        number = datagram.unit
        if datagram.kind == Kind.DATA and number not in dropped:
            held.setdefault(number, []).append(datagram)
            continue
        passed = [datagram]
        if datagram.kind == Kind.END and number not in dropped:
            passed = [*held.pop(number, []), datagram]
            sizes = [
                sum(len(part.data) for part in passed if part.scale == scale)
                for scale in range(1, scales + 1)
            ]
            lost = losses.of_unit(datagram.first, datagram.frames, sizes)
            dropped[number] = lost
            places += [(datagram.first, scale) for scale in sorted(lost)]
        kept = (part for part in passed if part.scale not in dropped.get(number, ()))
        end.send(kept, receiver)
    if datagram is None:
        raise ValueError(f"the relay heard nothing for {end.timeout:g} s (--timeout)")
    return places


class Receiver:
    """The decoder's end; a thread of its own listens and reports.

    Args:
        end: Its socket.
        sender: Where reports go.
        scales: Packets of a unit.
    """

    def __init__(self, end: Endpoint, sender: Address, scales: int) -> None:
        self._end = end
        self._sender = sender
        self._assembler = Assembler(scales)
        self._ends: dict[int, Datagram] = {}
        self._reports: list[Datagram] = []
        self._queue: SimpleQueue[Arrival | Exception | None] = SimpleQueue()

    @property
    def late(self) -> int:
        """Fragments that came after the end of their unit, and were of no use."""
        return self._assembler.late

    def arrivals(self) -> Iterator[Arrival]:
        """Give what comes of each unit, in order, until there are no more.

        Raises:
            ValueError: The sender has gone silent.
        """
        Thread(target=self._listen, daemon=True).start()
        while item := self._queue.get():
            if isinstance(item, Exception):
                raise item
            yield item

    def _listen(self) -> None:
        try:
            while True:
                datagram = self._end.receive()
                if datagram is None:
                    raise ValueError(
                        f"the receiver heard nothing for {self._end.timeout:g} s "
                        f"after {len(self._reports)} units: the network is down, or "
                        "the encoder slower than that (--timeout)"
                    )
                if datagram.kind == Kind.DATA:
                    self._assembler.add(datagram)
                elif datagram.kind == Kind.END:
                    self._close(datagram)
                elif datagram.unit == len(self._reports):
                    self._queue.put(None)
                    return
        except Exception as error:
            self._queue.put(error)

    def _close(self, datagram: Datagram) -> None:
        """Take the end of a unit, in any order and any number of times."""
        self._ends[datagram.unit] = datagram
        first = min(datagram.unit, len(self._reports))
        while end := self._ends.get(len(self._reports)):
            packets = self._assembler.close()
            lost = bytes(i for i, each in enumerate(packets, start=1) if each is None)
            self._reports.append(Datagram(Kind.REPORT, end.unit, data=lost))
            self._queue.put(Arrival(end.frames, packets))
        self._end.send(self._reports[first:], self._sender)
