"""A receiver and a relay in processes of their own, and what went over the sockets."""

import secrets
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.bitstreams.processes import WorkerProcess
from experiments.stream.channel import Echoes, Log, Losses, SentUnit
from experiments.stream.datagrams import HEADER
from experiments.stream.options import StreamOptions
from experiments.stream.udp import Address, Endpoint, Receiver, Sender, relay

if TYPE_CHECKING:
    from experiments.stream.session import Shown
    from lightning_modules.codec import VideoCodec


@dataclass(frozen=True)
class Player:
    """What a receiver knows before the first datagram.

    Attributes:
        options: Of the command; it loads a codec of its own.
        device: Type of device.
        size: (height, width) of the frames, in pixels.
        scales: Packets of a unit.
    """

    options: StreamOptions
    device: str
    size: tuple[int, int]
    scales: int

    def load(self) -> None:
        """Have the codec ready."""
        load_once(self.options, self.device)

    def play(
        self, end: Endpoint, sender: Address, path: Path
    ) -> tuple[list[tuple[str, int | None]], int]:
        """Receive and decode a stream.

        Args:
            end: Its socket.
            sender: Where reports go.
            path: File that takes all frames as 8-bit RGB, one after the other.

        Returns:
            Digest and decoded scales of each frame, and the fragments that came late.
        """
        import torch

        from experiments.bitstreams.coding_mode import coding_mode
        from experiments.stream.session import show

        receiver = Receiver(end, sender, self.scales)
        codec = load_once(self.options, self.device)
        frames = []
        with path.open("wb") as file, coding_mode(torch.device(self.device)):
            for shown in show(codec, receiver.arrivals(), self.size):
                file.write(shown.codes.numpy().tobytes())
                frames.append((shown.digest, shown.scales))
        return frames, receiver.late

    def replay(
        self, frames: Iterable[tuple[str, int | None]], path: Path
    ) -> Iterator["Shown"]:
        """Give what :meth:`play` showed again, from its file."""
        import torch

        from experiments.stream.session import Shown

        size = 3, *self.size
        with path.open("rb") as file:
            for digest, scales in frames:
                codes = bytearray(file.read(prod(size)))
                pixels = torch.frombuffer(codes, dtype=torch.uint8)
                yield Shown(pixels.view(size), digest, scales)


def load_once(options: StreamOptions, device: str) -> "VideoCodec":
    """Load the codec of a command, once in each process."""
    coding = tuple(sorted(options.coding.items()))
    return _load(options.checkpoint, device, options.dtype, coding)


@lru_cache(maxsize=1)
def _load(
    checkpoint: Path, device: str, dtype: str, coding: tuple[tuple[str, Any], ...]
) -> "VideoCodec":
    import torch

    from lightning_modules import load_codec

    codec = load_codec(
        checkpoint, device=torch.device(device), dtype=getattr(torch, dtype)
    )
    codec.configure(**dict(coding))
    return codec


class UdpLink:
    """A relay and a receiver in processes of their own, for one stream after the other.

    Args:
        player: What the receiver knows.
        folder: For the frames that it shows.
    """

    def __init__(self, player: Player, folder: Path) -> None:
        self.player = player
        self._path = folder / "received.rgb"
        self._stack = ExitStack()

    def __enter__(self) -> "UdpLink":
        """Start both processes, and have the receiver load its codec."""
        import torch

        from experiments.bitstreams.processes import prepare_process

        gpu = torch.cuda.current_device() if self.player.device == "cuda" else 0
        threads = torch.get_num_threads()
        with ExitStack() as stack:
            # Entered first, so that what its threads wait for has ended before.
            self._pool = stack.enter_context(ThreadPoolExecutor(2))
            self._relay = stack.enter_context(WorkerProcess(_nothing, daemon=True))
            self._receiver = stack.enter_context(
                WorkerProcess(prepare_process, threads, gpu, daemon=True)
            )
            self._receiver.call(self.player.load)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def transmit(
        self, units: Iterable[SentUnit], losses: Losses, echoes: Echoes
    ) -> tuple[Iterator["Shown"], Log, dict[str, Any]]:
        """Send units as they are coded, and return what the receiver made of them.

        Args:
            units: From an encoder that listens to the echoes.
            losses: What the relay drops.
            echoes: Take what the receiver reports.

        Returns:
            The frames that it showed; the units, each with the scales that it had
            lost; and what the sockets carried, for the record.

        Raises:
            ValueError: Someone heard nothing for too long.
            OSError: A process has ended, or a socket cannot be used.
        """
        player, options = self.player, self.player.options
        session = secrets.randbits(32)
        with ExitStack() as stack:
            ends = []
            for _ in range(3):
                ends.append(Endpoint.open(session, options.timeout))
                stack.enter_context(ends[-1].socket)
            here, between, there = ends
            dropped = self._pool.submit(
                self._relay.call, relay, between, there.address, player.scales, losses
            )
            shown = self._pool.submit(
                self._receiver.call, player.play, there, here.address, self._path
            )

            def check() -> None:
                for future in (shown, dropped):
                    if future.done():
                        future.result()

            sender = Sender(here, between.address, echoes, options.datagram, check)
            sent = sender.send_all(units)
            sender.finish(shown.done)
            frames, late = shown.result()
            sender.stop_relay(dropped.done)
            places = set(dropped.result())
        log = deque((unit, sender.lost[number]) for number, unit in enumerate(sent))
        unplanned = [
            (unit.first, scale)
            for unit, lost in log
            for scale in sorted(lost)
            if (unit.first, scale) not in places
        ]
        link = {
            "datagrams": sender.datagrams,
            "nbytes": sender.nbytes,
            "header_nbytes": sender.datagrams * HEADER.size,
            "markers": sender.markers,
            "dropped_by_relay": len(places),
            "lost_otherwise": unplanned,
            "late_fragments": late,
        }
        return player.replay(frames, self._path), log, link


def _nothing() -> None:
    """Prepare nothing: a relay needs no torch."""
