"""What of each frame can be decoded, told from the heads of its packets alone.

So a decoder may have begun the next frame before it has finished this one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from lightning_modules.codec import RateKnob
from lightning_modules.dhvc.packets import Head, round_lmbda
from lightning_modules.packets import DesyncError, Packet


@dataclass(frozen=True)
class Decodable:
    """What a receiver can decode of a frame.

    Attributes:
        packets: Those to decode with their heads, coarsest first; the scales after
            them take the mean of their prior.
        lmbda: The frame's; if its first packet was lost, that of the last frame.
        intra: Whether no scale refers to an earlier frame.
    """

    packets: tuple[tuple[Packet, Head], ...]
    lmbda: float
    intra: bool


def decodable_frames(
    packets: Iterable[Packet | None],
    scales: int,
    wanted: int,
    knob: RateKnob,
    auxiliary: bool,
) -> Iterator[Decodable]:
    """Say of each frame what can be decoded.

    Args:
        packets: One for each scale of each frame, in coding order; ``None`` stands for
            a lost one.
        scales: How many packets a frame has.
        wanted: How many of them to decode, coarsest first.
        knob: What lambdas are possible.
        auxiliary: Whether what one scale lacks spoils every scale of the next frame.

    Raises:
        DesyncError: Packets are out of order.
    """
    source = iter(packets)
    # Scales, coarsest first, whose references are the encoder's.
    in_step = 0
    lmbda: float | None = None
    for first in source:
        group = list(islice(chain([first], source), scales))
        heads = [
            Head.read(packet, number) if packet else None
            for number, packet in enumerate(group, start=1)
        ]
        lmbda = _check_lmbda(heads[0], lmbda, knob)
        if len(group) < scales:
            raise DesyncError(
                f"the last frame ends after {len(group)} of {scales} packets"
            )
        readable: list[tuple[Packet, Head]] = []
        for packet, head in zip(group[:wanted], heads, strict=False):
            if not (packet and head and (head.spatial or len(readable) < in_step)):
                break
            readable.append((packet, head))
        intra = heads[0] is not None and heads[0].spatial
        yield Decodable(tuple(readable), lmbda, intra)
        whole = len(readable) == scales or not auxiliary
        in_step = len(readable) * whole


def _check_lmbda(head: Head | None, last: float | None, knob: RateKnob) -> float:
    """Return the frame's lambda; if its first packet was lost, the last one's."""
    if head is None:
        # Before the first packet any will do.
        return last or knob.points[0]
    if not head.spatial and last is None:
        raise DesyncError("the first frame refers to frames that are not there")
    low, high = round_lmbda(knob.low), round_lmbda(knob.high)
    if head.lmbda is None or not low <= head.lmbda <= high:
        raise DesyncError(
            f"the frame's lambda is {head.lmbda}, possible are {low:g} to {high:g}"
        )
    return head.lmbda
