"""What DualDomain can be told when it codes."""

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin

ModeDecision = Literal["real", "estimated", "inter"]
Numeric = Literal["float64", "float32"]


def check_choices(options: Any) -> None:
    """Raise ``ValueError`` if a field of literals has none of them as its value."""
    for each in fields(options):
        value, known = getattr(options, each.name), get_args(each.type)
        if get_origin(each.type) is Literal and value not in known:
            raise ValueError(
                f"{each.name} {value!r} is unknown: choose from {list(known)}"
            )


@dataclass(frozen=True)
class CodingOptions:
    """How DualDomain codes.

    Attributes:
        mode_decision: DualDomain: how the encoder chooses between intra, inter, and
            inter without motion for each frame: by their real bits, by estimated ones,
            or always inter after the first (default: as trained).
        numeric: DualDomain: what everything that chooses tables is computed in when
            encoding (default: as trained); float32 is faster, and decodes on the
            encoder's own kind of machine only.

    Raises:
        ValueError: There is no such value.
    """

    mode_decision: ModeDecision = "real"
    numeric: Numeric = "float64"

    def __post_init__(self) -> None:
        check_choices(self)
