"""What ``propagation`` found, and the file that holds it.

It is JSON::

    {"schema": "learned-video-codecs/propagation", "version": 1,
     "name":        label of the curves, unique in a figure,
     "codec":       what defines the codec: checkpoint's fingerprint, architecture,
                    unit, cycle, name and range of its rate,
     "protocol":    all that two files should share: tests, frames, positions, ...
                    (see experiment.Plan), and what is compared,
     "environment": what may differ: checkpoint, device, dtype, threads, isa, ...
     "sequences":   [{"set", "name", "width", "height", "fps", "frames", "source"}],
     "left_out":    {test, or test and rate: why it was not done},
     "findings":    [{"test", "rate": null if it needs the whole range, "set",
                      "sequence",
                      "values": {name: number},
                      "series": {name: list}}],
     "means":       the same over all sequences, with set and sequence null,
     "definitions": {name: what the number is}}

Series, by test; those of ``position``, ``sweep`` and ``target_rate`` as the first one
of them says, all others frame by frame:

* ``position``: ``position`` (frames), ``ep`` (dB).
* ``slope``: ``psnr``, ``psnr_intra`` (dB), ``bits``, ``bits_intra``, from frame 0.
* ``low_reference``: ``offset`` from the first frame after the unit at the low rate,
  which is 1; frames before it are 0 and less; ``psnr_loss`` (dB), ``bits_rise`` (%).
* ``fluctuation``: ``psnr``, ``psnr_intra_period`` (dB): with later starts.
* ``sweep``: ``rate``, ``bpp``.
* ``target_rate``: ``target`` (bpp), then ``trial_1`` to ``trial_4`` (bpp of each).
* ``sawtooth``: ``rate``, ``psnr``, ``psnr_held`` (dB), ``bits``, ``bits_held``.

Means of series are as long as the shortest of them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, ClassVar

from experiments.propagation.numbers import NUMBERS
from experiments.results.typed_json import (
    STRICT,
    FileKind,
    Holding,
    damaged,
    read_json,
    read_typed,
)

KIND = FileKind("propagation")

DRAWN = {
    "position": (1, ("position", "ep")),
    "slope": (1, ("psnr", "psnr_intra")),
    "low_reference": (1, ("offset", "psnr_loss", "bits_rise")),
    "sweep": (2, ("rate", "bpp")),
}
"""Of each test with a figure, the fewest values that can be drawn, and its series."""


Measured = tuple[dict[str, float], dict[str, list[float]]]
"""What a test gives of one sequence: values and series, by name."""


@dataclass
class Finding:
    """What one test gave on one sequence at one rate; the file's keys."""

    test: str
    rate: float | None
    values: dict[str, float]
    series: dict[str, list[float]]
    set: str | None = None
    sequence: str | None = None


@dataclass
class Report:
    """A whole file; see the module."""

    __pydantic_config__: ClassVar = STRICT

    name: str
    codec: Annotated[dict[str, Any], Holding({"rate_unit": str})]
    protocol: Annotated[dict[str, Any], Holding({"tests": list[str]})]
    environment: dict[str, Any]
    sequences: list[
        Annotated[dict[str, Any], Holding({"set": str, "name": str, "frames": int})]
    ]
    left_out: dict[str, str]
    findings: list[Finding]
    means: list[Finding]
    definitions: dict[str, str] = field(default_factory=dict)

    def mean(self, test: str, rate: float | None) -> Finding | None:
        """Return what a test gave at a rate over all sequences, if it was done."""
        found = (m for m in self.means if (m.test, m.rate) == (test, rate))
        return next(found, None)

    @property
    def rates(self) -> list[float]:
        """The rates of the tests that are done at each rate."""
        return list(dict.fromkeys(m.rate for m in self.means if m.rate is not None))

    def label(self, rate: float | None) -> str:
        """Return the name of a curve."""
        if rate is None:
            return self.name
        return f"{self.name}, {self.codec['rate_unit']} {rate:g}"

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        KIND.save(asdict(self), path)

    @classmethod
    def load(cls, path: Path) -> "Report":
        """Read a file.

        Raises:
            ResultError: It is no such file, or a damaged one.
        """
        report = read_typed(cls, KIND.values(read_json(path), path), path)
        found = [each.values for each in (*report.findings, *report.means)]
        if unknown := set(report.definitions).union(*found) - set(NUMBERS):
            raise damaged(path, f"unknown numbers {sorted(unknown)}")
        for number, mean in enumerate(report.means):
            fewest, drawn = DRAWN.get(mean.test, (0, ()))
            lengths = [len(mean.series.get(name, ())) for name in drawn]
            if len(set(lengths)) > 1 or min(lengths, default=0) < fewest:
                raise damaged(
                    path,
                    f"means[{number}].series has {lengths} values of "
                    f"{', '.join(drawn)}: it must have as many of each, and at least "
                    f"{fewest}",
                )
        return report


def mean_of(findings: Sequence[Finding]) -> Finding:
    """Return what one test gave over all sequences.

    Args:
        findings: Of one test and rate, at least one.
    """
    first = findings[0]
    values = {}
    for name in first.values:
        pool = max if NUMBERS[name].over == "max" else fmean
        values[name] = pool([each.values[name] for each in findings])
    series = {
        name: [
            fmean(column)
            for column in zip(*(each.series[name] for each in findings), strict=False)
        ]
        for name in first.series
    }
    return Finding(first.test, first.rate, values, series)
