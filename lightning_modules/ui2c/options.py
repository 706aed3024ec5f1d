"""What UI2C can be told when it codes."""

from dataclasses import dataclass
from typing import Literal, get_args

Start = Literal["own", "blank"]
Arithmetic = Literal["float", "integer"]


@dataclass(frozen=True)
class CodingOptions:
    """How UI2C codes.

    Attributes:
        refresh: UI2C: frames between refreshes of the reference through the pixel
            domain when encoding, 0 for none (default: 0); decoders see it in the
            stream.
        start: UI2C: who codes a start without a reference: own, as trained (default),
            or blank, the inter model of divided models, from a blank reference;
            decoders see it in the stream.
        arithmetic: UI2C: what decoders compute in: float (default), the dtype, or
            integer, which decodes to the same bits on every machine; they see it in
            the stream.

    Raises:
        ValueError: There is no such value.
    """

    refresh: int = 0
    start: Start = "own"
    arithmetic: Arithmetic = "float"

    def check(self, frames_per_unit: int, divided: bool) -> None:
        """Raise ``ValueError`` if a model of such units cannot code so."""
        if self.refresh < 0 or self.refresh % frames_per_unit:
            raise ValueError(
                f"refresh is {self.refresh}: it must be 0 or a multiple of "
                f"frames_per_unit ({frames_per_unit})"
            )
        if self.start == "blank" and not divided:
            raise ValueError(
                "start is 'blank': only divided models start otherwise, so leave it out"
            )

    def refreshes(self, position: int, frames_per_unit: int) -> bool:
        """Whether a unit so many frames after its start refreshes its reference."""
        # DCVC-RT's place: the frame after the period's first has the group's best qp.
        after = 1 if frames_per_unit == 1 else 0
        return self.refresh > 0 and position % self.refresh == after % self.refresh

    def __post_init__(self) -> None:
        choices = {"start": Start, "arithmetic": Arithmetic}
        for name, kind in choices.items():
            value, known = getattr(self, name), get_args(kind)
            if value not in known:
                raise ValueError(
                    f"{name} {value!r} is unknown: choose from {list(known)}"
                )
