"""Rate and quality of validations: points by rate, and the curves through them."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from callbacks.metrics.table import METRICS, validation_keys
from experiments.compare.bd import make_curve
from experiments.compare.comparison import Curve


@dataclass(frozen=True)
class Validation:
    """What one validation measured.

    Attributes:
        stage: Name of its stage.
        step: Where it lies on the run's axis.
        points: Mean over the clips of each metric and of ``bpp``, by its name in
            validation, of each rate point, ``qp21`` for example.
    """

    stage: str
    step: int
    points: dict[str, dict[str, float]]

    @classmethod
    def of(cls, stage: str, step: int, figures: Mapping[str, float]) -> "Validation":
        """Pick what was logged as ``val/<point>/<metric>`` of points that have bits."""
        points: dict[str, dict[str, float]] = {}
        for key, value in figures.items():
            match key.split("/"):
                case ["val", point, metric] if f"val/{point}/bpp" in figures:
                    points.setdefault(point, {})[metric] = value
        return cls(stage, step, points)

    def curve(self, metric: str, net: str, name: str | None = None) -> Curve | None:
        """Return quality against bits, ``None`` where there is not one point.

        Points without bits, or of no number, are left out: a codec that is only
        beginning to train has such.

        Args:
            metric: Its name in validation.
            net: Backbone of LPIPS.
            name: What the curve is of; the stage's name by default.
        """
        key = validation_keys(net)[metric]
        best: dict[float, tuple[float, float, float]] = {}
        for point, values in self.points.items():
            bpp, value = values["bpp"], values.get(metric, math.nan)
            if not (0 < bpp < math.inf and math.isfinite(value)):
                continue
            sign = 1 if METRICS[key].higher_is_better else -1
            if bpp not in best or sign * value > sign * best[bpp][2]:
                best[bpp] = (rate_of(point), bpp, value)
        points = list(best.values())
        name = name or self.stage
        return make_curve(name, key, "val", None, points) if points else None


def rate_of(point: str) -> float:
    """Return the number in the name of a rate point: 21 of ``qp21``."""
    return float(re.sub(r"^\D*", "", point))


def last_validations(
    rows: Iterable[tuple[int, str, str, float]],
) -> dict[str, Validation]:
    """Return the last validation of each stage that rows of ``metrics.csv`` hold."""
    figures: dict[str, tuple[int, dict[str, float]]] = {}
    for step, stage, name, value in rows:
        if name.startswith("val/") and name.count("/") == 2:
            if stage not in figures or step > figures[stage][0]:
                figures[stage] = (step, {})
            figures[stage][1][name] = value
    found = (Validation.of(stage, *figures[stage]) for stage in figures)
    return {each.stage: each for each in found if each.points}
