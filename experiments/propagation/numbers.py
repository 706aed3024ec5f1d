"""The tests of ``propagation`` and the numbers that they give.

Source: error propagation and rate control are looked at as the experiments on
arXiv 2512.10450 ask; what the paper's abstract leaves open is said at each number.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Number:
    """One number of a test.

    Attributes:
        label: In tables.
        unit: Of its values; empty if it has none.
        definition: What exactly it is.
        over: What it is over several sequences.
        digits: After the point, in tables.
    """

    label: str
    unit: str
    definition: str
    over: Literal["mean", "max"] = "mean"
    digits: int = 3

    @property
    def title(self) -> str:
        """The label with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def text(self, value: float) -> str:
        """Write a value; only exactly 0 is written as 0."""
        if value == 0:
            return "0"
        rounded = f"{value:.{self.digits}f}"
        return rounded if float(rounded) else f"{value:.0e}"


TESTS: dict[str, tuple[str, ...]] = {
    "position": ("epi", "epi_position"),
    "slope": ("slope", "drift", "bpp", "bpp_intra", "saving"),
    "low_reference": ("pd", "ro", "low_loss"),
    "fluctuation": ("psnr_std", "psnr_std_own", "intra_jump"),
    "sweep": (
        "distinct",
        "violations",
        "violations_of_mean",
        "step_median",
        "step_max",
        "range",
        "spearman",
    ),
    "target_rate": ("error_1", "error_2", "error_3", "error_4"),
    "sawtooth": ("transient", "transient_max", "rate_transient"),
}
"""Every test and the numbers that it gives."""

DEFAULT_TESTS = ("position", "slope", "low_reference", "fluctuation")

AT_ONE_RATE = (*DEFAULT_TESTS, "sawtooth")
"""Tests that are done at each rate; the others need the codec's whole range."""

TRIALS = 4
"""Encodes that a target rate may take."""

_DIFFERENCE = "PSNR less that of the same frame all-intra at the same rate"

NUMBERS: dict[str, Number] = {
    "epi": Number(
        "EPI",
        "dB",
        "EP at the last position: PSNR of a unit that comes right after the start of a "
        "clip, less that of the same unit where the clip starts so many frames before "
        "it; mean over its frames and over targets. 0: what a frame looks like does "
        "not depend on how many frames came before it",
    ),
    "epi_position": Number(
        "at position",
        "frames",
        "frames between the start of the clip and the target unit, for EPI",
        digits=0,
    ),
    "slope": Number(
        "slope",
        "dB/100 frames",
        f"least-squares slope over the frames after the first unit of: {_DIFFERENCE}",
    ),
    "drift": Number(
        "D",
        "dB",
        "mean over the first third of these frames less mean over the last third of: "
        f"{_DIFFERENCE}",
    ),
    "bpp": Number(
        "bpp", "", "bits of all packets' payloads over all original pixels", digits=4
    ),
    "bpp_intra": Number("bpp all-intra", "", "the same, every unit a start", digits=4),
    "saving": Number(
        "saved", "%", "bits saved against all-intra: 1 - bpp / bpp all-intra", digits=1
    ),
    "pd": Number(
        "PD",
        "dB frames",
        "PSNR lost by the up to 16 frames after a unit that was coded at the low rate, "
        "summed over them; these frames themselves are coded at the usual rate",
    ),
    "ro": Number(
        "RO", "% frames", "what these frames cost more, summed over them", digits=1
    ),
    "low_loss": Number(
        "low unit", "dB", "PSNR lost by the unit at the low rate itself"
    ),
    "psnr_std": Number(
        "std", "dB", "standard deviation of PSNR over a sequence's frames"
    ),
    "psnr_std_own": Number(
        "std, content removed",
        "dB",
        f"standard deviation over a sequence's frames of: {_DIFFERENCE}",
    ),
    "intra_jump": Number(
        "jump at intra",
        "dB",
        "largest change, in size, from the last frame before a later start to the "
        f"first one after it, of: {_DIFFERENCE}",
        over="max",
    ),
    "distinct": Number(
        "distinct rates", "", "different numbers of bits in the sweep", digits=1
    ),
    "violations": Number(
        "violations", "", "steps of the sweep at which bits do not rise", digits=1
    ),
    "violations_of_mean": Number(
        "violations of the mean",
        "",
        "the same of the mean bpp of all sequences",
        digits=0,
    ),
    "step_median": Number("median step", "%", "change of bits per step", digits=2),
    "step_max": Number("largest step", "%", "change of bits, in size", digits=2),
    "range": Number("range", "", "bits at the most over bits at the least", digits=2),
    "spearman": Number("Spearman", "", "rank correlation of knob and bits", digits=4),
    **{
        f"error_{n}": Number(
            f"error, {n} encode{'s' * (n > 1)}",
            "%",
            f"distance from a target rate of the closest of {n} "
            f"encode{'s' * (n > 1)}, mean over targets",
            digits=2,
        )
        for n in range(1, TRIALS + 1)
    },
    "transient": Number(
        "transient",
        "dB",
        "size of the difference in PSNR of frames whose rate rises in steps and drops, "
        "unit by unit, to the same frames with the rate held; mean over frames",
    ),
    "transient_max": Number("largest transient", "dB", "the same, largest", over="max"),
    "rate_transient": Number(
        "rate transient",
        "%",
        "what these frames cost more than with the rate held, mean over frames",
        digits=1,
    ),
}
