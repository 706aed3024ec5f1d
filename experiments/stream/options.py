"""The options of ``stream``."""

from argparse import ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path

from experiments.bitstreams.options import (
    CodecOptions,
    DeviceOptions,
    RawVideoOptions,
)
from experiments.cli.checkpoints import checkpoint_option
from experiments.cli.options import option
from experiments.stream.channel import LossMode
from experiments.stream.datagrams import HEADER, LARGEST

LONGEST_TIMEOUT = 86400
"""Seconds: a day. Clocks and sockets know no infinity."""

MOST_SEEDS = 10000
"""Each is a run, or one for each delay."""


def parse_place(text: str) -> tuple[int, int]:
    """Turn ``5:4`` into frame 5 and scale 4."""
    frame, colon, scale = text.partition(":")
    if not (colon and frame.isdecimal() and scale.isdecimal()):
        raise ArgumentTypeError(f"{text!r} is no FRAME:SCALE such as 5:4")
    return int(frame), int(scale)


def parse_delay(text: str) -> int | None:
    """Turn ``3`` into itself and ``none`` into ``None``."""
    if text == "none":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(
            f"{text!r} is no echo delay: give a number of frames from 1, or none"
        )
    return int(text)


@dataclass(frozen=True, kw_only=True)
class StreamOptions(DeviceOptions, RawVideoOptions, CodecOptions):
    """Send a video over a channel that loses packets, and show what becomes of it.

    Attributes:
        input: Video, raw 4:2:0 (.y4m, .yuv), directory of PNG or JPEG images, or one
            image.
        checkpoint: Trained codec: a file, the folder of a stage or a run, whose newest
            is taken, or the name of a shipped model (lvc --models).
        rate: Quality in the codec's own unit (DHVC: lambda 256 to 2048).
        output: New or empty directory.
        lose: Packets that are lost, for example 5:4.
        loss_rate: Draw losses, with this probability.
        loss_mode: frame: of what, and then one of its packets, any alike; bytes: the
            same, but packets with more bytes more often; packet: of each packet alone.
        loss_first: First frame that can lose packets by chance.
        loss_last: Last frame that can.
        seed: Of what is drawn.
        seeds: Draw N times, with this seed and the ones after it, at most 10000.
        protect: Scales whose packets are never lost, by forward error correction
            (default: 1, or 0 if the codec has no more).
        parity: Packets of parity that this takes for each unit, as long as the longest
            that is protected; their bits count (default: 1, or 0 without protection).
        echo_delay: Frames from a loss to the one in which the encoder acts on it, or
            none; each is a curve (default: 3 none).
        progressive: Also decode only the first K scales, nothing lost (default: those
            below the coarsest that is lost).
        max_frames: Stop after N frames.
        intra_period: Frames between starts without a reference, -1 for one.
        udp: Send real datagrams on loopback: sender, relay and receiver are processes
            of their own.
        datagram: Largest datagram; larger packets are cut, and lost if one piece is.
        timeout: Seconds of silence on a socket that are an error, at most 86400
            (default: 60).

    Raises:
        ValueError: A value is out of range, whatever the codec.
    """

    input: Path = option(metavar="VIDEO", positional=True)
    checkpoint: Path = option(metavar="CKPT", read=checkpoint_option)
    rate: float = option(metavar="R")
    output: Path = option(metavar="OUT")
    lose: tuple[tuple[int, int], ...] | None = option(
        None, metavar="FRAME:SCALE", read=parse_place, one_of="losses", needed=True
    )
    loss_rate: tuple[float, ...] | None = option(None, metavar="P", one_of="losses")
    loss_mode: LossMode = "frame"
    loss_first: int = option(4, metavar="N")
    loss_last: int = option(28, metavar="N")
    seed: int = 0
    seeds: int = option(1, metavar="N")
    protect: int | None = option(None, metavar="K")
    parity: int | None = option(None, metavar="N")
    echo_delay: tuple[int | None, ...] = option(
        (3, None), metavar="N", read=parse_delay
    )
    progressive: tuple[int, ...] | None = option(None, metavar="K", nargs="*")
    max_frames: int = option(32, metavar="N")
    intra_period: int = option(32, metavar="N")
    udp: bool = False
    datagram: int = option(1200, metavar="BYTES")
    timeout: float = option(60.0, metavar="S")

    def __post_init__(self) -> None:
        for rate in self.loss_rate or ():
            if not 0 <= rate <= 1:
                raise ValueError(f"--loss_rate {rate:g} is no probability from 0 to 1")
        if self.loss_rate is None and self.seeds != 1:
            raise ValueError("--seeds changes nothing about packets that --lose names")
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise ValueError(f"--seeds is {self.seeds}: it must be 1 to {MOST_SEEDS}")
        if self.loss_rate and not 1 <= self.loss_first <= self.loss_last:
            raise ValueError(
                f"--loss_first {self.loss_first} and --loss_last {self.loss_last} "
                "are no range of frames, which count from 1"
            )
        if not HEADER.size < self.datagram <= LARGEST:
            raise ValueError(
                f"--datagram {self.datagram} is not possible: it must be "
                f"{HEADER.size + 1} to {LARGEST} bytes, {HEADER.size} of which are the "
                "header"
            )
        # So written it refuses what is no number, too.
        if not 0 < self.timeout <= LONGEST_TIMEOUT:
            raise ValueError(
                f"--timeout is {self.timeout:g}: it must be above 0 and at most "
                f"{LONGEST_TIMEOUT} seconds"
            )
