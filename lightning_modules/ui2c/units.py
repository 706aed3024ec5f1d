"""What stands at the head of a unit, and what one unit leaves to the next.

A unit's payload is two bytes of side information, then one range-coded stream with
z, then y step by step::

    byte 0   base qp, 0..63
    byte 1   bits 0-2 position in the group of 8
             bit 3    starts without a reference
             bit 4    refreshed: refers to the last frames, not the last feature
             bit 5    starts from a blank reference though the models are divided
             bit 6    decodes in integers
"""

from dataclasses import dataclass

from torch import Tensor

from lightning_modules.execution import Execution
from lightning_modules.packets import DesyncError, Packet
from lightning_modules.ui2c.network import QP_BIAS, QP_COUNT

START, REFRESHED, BLANK, INTEGERS = 8, 16, 32, 64


@dataclass(frozen=True)
class State:
    """What one unit leaves to the next: passed on, never kept in the module.

    Attributes:
        position: Frames since the start without a reference.
        feature: The last unit's feature; ``None`` after the separate intra model.
        frames: The last frames (B, n, 3, H, W), where the next unit may need them.
    """

    position: int
    feature: Tensor | None
    frames: Tensor | None

    def detached(self) -> "State":
        """Return it as constants, through which no gradient goes."""
        feature, frames = (
            None if each is None else each.detach()
            for each in (self.feature, self.frames)
        )
        return State(self.position, feature, frames)


def refuse_graphs(execution: Execution) -> None:
    """Raise ``ValueError`` if what is in integers is to run as graphs."""
    if execution.graphs:
        raise ValueError(
            "integer arithmetic asks its device in every layer whether it overflows, "
            "and graphs cannot: leave out --graphs, or --arithmetic integer"
        )


def unit_qp(rate: float, unit: int) -> int:
    """Return the qp of a unit: of all up to it, the mean keeps to the rate."""
    low, share = divmod(rate, 1)
    return int(low + (share * (unit + 1) + 0.5) // 1 - (share * unit + 0.5) // 1)


def slot_qps(qp: int, position: int, slots: int) -> list[int]:
    """Return the quality index of each slot of a unit at a position in the group."""
    return [qp + QP_BIAS[(position + i) % len(QP_BIAS)] for i in range(slots)]


def side_of(
    position: int, *, starts: bool, refreshed: bool, blank: bool, integers: bool
) -> int:
    """Return the second byte of a unit so many frames after its start."""
    side = position % len(QP_BIAS)
    side |= START * starts | REFRESHED * refreshed
    return side | BLANK * blank | INTEGERS * integers


def read_side(packet: Packet) -> tuple[int, int]:
    """Return a unit's base qp and its second byte.

    Raises:
        DesyncError: They are not there.
    """
    if len(packet.payload) < 2 or packet.payload[0] >= QP_COUNT:
        raise DesyncError("the unit does not start with a qp from 0 to 63")
    return packet.payload[0], packet.payload[1]
