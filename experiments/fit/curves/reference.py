"""What validations are measured against: a result file, or another run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from callbacks.metrics.table import METRICS, validation_keys
from experiments.compare.bd import MIN_POINTS, make_curve
from experiments.compare.comparison import Curve, Method
from experiments.compare.rows import mean_points
from experiments.fit.curves.validations import Validation, last_validations
from experiments.fit.loggers.metrics_csv import read_metrics
from experiments.results.load import load_any

METHOD: Method = "pchip"

CLIPS = {
    "source": ("val_source", "source"),
    "root": ("val_root", "root"),
    "list_file": ("val_list_file", "list_file"),
    "stride": ("val_stride", "stride"),
    "clips": ("val_clips",),
    "frames": ("val_frames",),
    "crop": ("val_crop",),
    "seed": ("seed",),
}
"""Which options of the data decide the clips of validation; the first that is given."""


@dataclass(frozen=True)
class Reference:
    """Curves that each validation is compared with.

    Attributes:
        name: Of whom they are.
        curves: By the metric's name in validation.
        points: All that is known of it, for tables: as in :class:`Validation`.
        caveat: Why its numbers are not of the same measurement, if they are not.
        data: Of a run: the options of its data, which :meth:`caveat_of` compares.
    """

    name: str
    curves: dict[str, Curve]
    points: dict[str, dict[str, float]]
    caveat: str = ""
    data: Mapping[str, Any] | None = None

    def caveat_of(self, data: Mapping[str, Any]) -> str:
        """Return what a reader must know of a comparison with clips of ``data``."""
        if self.data is None:
            return self.caveat
        pairs = {name: (_clips(self.data)[name], _clips(data)[name]) for name in CLIPS}
        differ = [f"{n} {a!r}, here {b!r}" for n, (a, b) in pairs.items() if a != b]
        if not differ:
            return ""
        return f"{self.name} was validated with other data ({'; '.join(differ)})"


def load_reference(given: str, metrics: Sequence[str], net: str) -> Reference:
    """Return the reference of ``--tracking.reference``.

    Args:
        given: A result file, a run's folder (its last validation) or a stage's in it.
        metrics: What validation measures.
        net: Backbone of LPIPS.

    Raises:
        ValueError: It is none of these, or has no curve of any of the metrics.
    """
    path = Path(given)
    try:
        if not path.exists():
            raise ValueError(
                "there is no such file or folder: give a result file of evaluate or "
                "anchor, or the folder of a run or of a stage in it"
            )
        of = _of_run if path.is_dir() else _of_file
        reference = of(path, metrics, net)
    except (ValueError, OSError) as error:
        raise ValueError(f"--tracking.reference {given}: {error}") from error
    least = MIN_POINTS[METHOD]
    curves = {m: c for m, c in reference.curves.items() if len(c.kept) >= least}
    if not curves:
        found = [f"{m} of {len(c.kept)}" for m, c in reference.curves.items()]
        raise ValueError(
            f"--tracking.reference {given}: a BD-rate needs a curve of {least} rate "
            f"points in one of {', '.join(m for m in metrics if m != 'bpp')}; it has "
            f"{', '.join(found) or 'none'}: give another one, or more rate points"
        )
    return Reference(
        reference.name, curves, reference.points, reference.caveat, reference.data
    )


def _of_run(path: Path, metrics: Sequence[str], net: str) -> Reference:
    """Return the last validation of a run or of one of its stages."""
    run = path if (path / "metrics.csv").is_file() else path.parent
    stages = last_validations(read_metrics(run / "metrics.csv"))
    if run != path:
        stages = {n: each for n, each in stages.items() if n == path.name}
    if not stages:
        raise ValueError(
            "it holds no validation: give a result file, the folder of a run whose "
            "metrics.csv has some, or a stage's folder in it"
        )
    last = max(stages.values(), key=lambda each: each.step)
    name = f"{run.name}/{last.stage}"
    found = {m: last.curve(m, net, name) for m in metrics if m in validation_keys(net)}
    curves = {metric: curve for metric, curve in found.items() if curve}
    return Reference(name, curves, last.points, data=_data_of(run, last))


def _data_of(run: Path, validation: Validation) -> dict[str, Any]:
    """Return the options of a stage's data."""
    try:
        options = yaml.safe_load((run / "config.yaml").read_text())
        rows = {row["name"]: row for row in options["stages"]}
        # A shrunk schedule has dropped the rows' own.
        own = {} if options.get("shrink") else rows[validation.stage].get("data")
        return {**options["data"], "seed": options["seed"], **(own or {})}
    except (
        OSError,
        UnicodeError,
        yaml.YAMLError,
        TypeError,
        KeyError,
        AttributeError,
    ) as error:
        raise ValueError(
            f"{run / 'config.yaml'} does not say which clips validated stage "
            f"{validation.stage!r} ({error!r}): restore it"
        ) from error


def _clips(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the clips of validation."""
    return {
        name: next((data[n] for n in options if data.get(n) is not None), None)
        for name, options in CLIPS.items()
    }


def _of_file(path: Path, metrics: Sequence[str], net: str) -> Reference:
    """Return the means of a result file over all its sequences."""
    result = load_any(path).with_scales(None)
    known = result.metric_names()
    points: dict[str, dict[str, float]] = {}
    curves = {}
    for metric in metrics:
        key = validation_keys(net).get(metric)
        # Validation does not round its frames.
        names = [n for n in (f"{key}_unrounded", key) if n in known]
        # A FID depends on how many pictures it is of.
        if key is None or METRICS[key].pooled or not names:
            continue
        means = mean_points(result.sequences, names[0])
        if means is None:
            raise ValueError(
                "its sequences were coded at different rate points, so there is no "
                "mean curve: give a file in which all have the same"
            )
        curves[metric] = make_curve(result.name, key, "val", None, means)
        for rate, bpp, value in means:
            points.setdefault(f"{rate:g}", {"bpp": bpp})[metric] = value
    sizes = sorted({f"{s.width}x{s.height}" for s in result.sequences})
    sets = ", ".join(sorted({s.set for s in result.sequences}))
    bits = "estimates" if result.protocol.rate == "estimate" else "real bytes"
    caveat = (
        f"{result.name} is of other clips than validation ({len(result.sequences)} of "
        f"{sets}, {', '.join(sizes)}), and its bits are {bits}, those of validation "
        "estimates"
    )
    return Reference(result.name, curves, points, caveat)
