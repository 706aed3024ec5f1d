"""Quality at fixed rates: where the curves of several codecs are read off.

Source: arXiv 2410.02598, section 7.2 and Fig. 10 (PSNR of motion patterns at one bpp).
"""

import math
from collections.abc import Iterable, Sequence

from experiments.compare.comparison import Curve, QualityAt

FEWEST_POINTS = 2
"""Points of a curve below which nothing lies between them."""


def qualities_at(
    curves: Iterable[Curve], rates: Sequence[float]
) -> tuple[QualityAt, ...]:
    """Read every set's mean curve off at every rate.

    Args:
        curves: Those of sequences are passed over.
        rates: In bits per pixel.

    Raises:
        ValueError: A rate is not above 0.
    """
    for bpp in rates:
        if not (math.isfinite(bpp) and bpp > 0):
            raise ValueError(f"a curve has no quality at {bpp:g} bpp: give more than 0")
    return tuple(
        QualityAt(c.codec, c.metric, c.set, bpp, quality_at(c, bpp))
        for c in curves
        if c.sequence is None
        for bpp in rates
    )


def quality_at(curve: Curve, bpp: float) -> float | None:
    """Return a curve's quality at a rate, ``None`` where the curve does not reach.

    Between points it is the monotone cubic (pchip) over log rate that BD numbers use,
    through the points that those use.

    Args:
        curve: From few bits to many.
        bpp: Bits per pixel.
    """
    from scipy.interpolate import PchipInterpolator

    kept = [i for i in range(len(curve.bpp)) if i not in curve.left_out]
    if len(kept) < FEWEST_POINTS:
        return None
    if not curve.bpp[kept[0]] <= bpp <= curve.bpp[kept[-1]]:
        return None
    logs = [math.log(curve.bpp[i]) for i in kept]
    interpolated = PchipInterpolator(logs, [curve.quality[i] for i in kept])
    return float(interpolated(math.log(bpp)))
