"""Rate-distortion curves as a chart that W&B draws itself."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wandb.plot import CustomChart


def rd_lines(
    curves: Iterable[tuple[str, Sequence[float], Sequence[float]]], title: str
) -> "CustomChart":
    """Return a chart with a line for each curve.

    Args:
        curves: Name, bits per pixel and quality of each.
        title: Of the chart.
    """
    import wandb

    names, rates, qualities = zip(*curves, strict=True)
    return wandb.plot.line_series(
        [list(bpp) for bpp in rates],
        [list(quality) for quality in qualities],
        keys=list(names),
        title=title,
        xname="bpp",
    )
