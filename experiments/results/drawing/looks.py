"""How each codec is drawn, the same in every figure and in the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, product

# Distinct under the three kinds of colour blindness (CIE76 distance of the simulated
# colours 15 or more among the first four and ink), light and dark page.
COLOURS = (
    ("#0072B2", "#4AA3EA"),
    ("#D55E00", "#FF7F3F"),
    ("#1D9A6C", "#19C38F"),
    ("#D874B4", "#F29AD0"),
    ("#6B4A00", "#D9C84A"),
)

# What everything else is measured against is drawn in the colour of the text.
ANCHOR_COLOUR = ("#1A1A1A", "#F0F0F0")

# Matplotlib's names; the page draws the same shapes.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

# Lengths of line and gap, in line widths.
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5))


@dataclass(frozen=True)
class Look:
    """Line and marker of one codec.

    Attributes:
        colour: On a light page, ``#RRGGBB``.
        dark_colour: On a dark page.
        marker: One of ``MARKERS``.
        dashes: One of ``DASHES``; empty is a whole line.
    """

    colour: str
    dark_colour: str
    marker: str
    dashes: tuple[float, ...]


def choose_looks(names: Sequence[str], anchor: str) -> dict[str, Look]:
    """Give each codec a look of its own.

    Colours come round again after five codecs besides the anchor, with other dashes;
    markers with other periods, so that print without colour can be told apart too.
    """
    others = [name for name in names if name != anchor]
    # Without end, so that the names decide how many there are.
    lines, markers = cycle(product(DASHES, COLOURS)), cycle(MARKERS[1:])
    looks = {
        name: Look(*colours, marker, dashes)
        for name, (dashes, colours), marker in zip(others, lines, markers, strict=False)
    }
    looks[anchor] = Look(*ANCHOR_COLOUR, MARKERS[0], DASHES[1])
    return {name: looks[name] for name in names}
