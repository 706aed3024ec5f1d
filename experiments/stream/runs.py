"""What a receiver showed, frame by frame, and what it comes to."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal

from experiments.results.drawing.tables import Table, numbers, words

Kind = Literal["no_loss", "progressive", "loss"]


@dataclass(frozen=True)
class FrameResult:
    """One frame as it was sent and shown.

    Attributes:
        frame: Its number, from 1.
        bits: Of the payloads of its packets, sent or lost, and of their parity; its
            share where frames are coded together.
        bits_per_scale: Of the payload of each scale alone, coarsest first.
        parity_bits: Of the parity alone.
        lost: Scales whose packets were lost; where frames are coded together, at the
            first of them.
        resync: First scale that was coded anew because of an echo, 0 for none.
        intra: Whether the encoder began anew by itself, as at the first frame; ``None``
            if the codec does not say.
        scales: Scales that were decoded. Codecs of one packet have one: it was decoded
            if the frame is the encoder's own.
        exact: Whether the frame is the encoder's own reconstruction, bit by bit.
        digest: SHA-256 of what was shown, float32 RGB.
        psnr_rgb: In dB, of 8-bit frames.
        psnr_yuv: (6 Y + U + V) / 8 of 4:4:4 planes, in dB, of 8-bit frames.
    """

    frame: int
    bits: float
    bits_per_scale: list[float]
    parity_bits: float
    lost: list[int]
    resync: int
    intra: bool | None
    scales: int
    exact: bool
    digest: str
    psnr_rgb: float
    psnr_yuv: float


@dataclass(frozen=True)
class Run:
    """A video sent once.

    Attributes:
        kind: ``no_loss``; ``progressive``: nothing lost, but only the first scales
            decoded; ``loss``.
        label: Of its curve; runs of one label and loss rate differ in their seed.
        frames: What was shown.
        scales: How many were decoded, if progressive.
        echo_delay: See :class:`~experiments.stream.channel.Echoes`; ``None`` without
            echo.
        loss_rate: Of drawn losses; ``None`` if they were given.
        seed: Of drawn losses.
        link: What real sockets carried, if it ran over them.
    """

    kind: Kind
    label: str
    frames: list[FrameResult]
    scales: int | None = None
    echo_delay: int | None = None
    loss_rate: float | None = None
    seed: int | None = None
    link: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the run with its means, for a JSON file."""
        return {**asdict(self), "mean": means_of([self])}


Curve = list[Run]
"""Runs that differ in nothing but their seed, in the order of their seeds."""


def means_of(runs: Sequence[Run]) -> dict[str, float]:
    """Return what runs of one length come to, each with equal weight.

    ``worst_psnr_rgb`` is the worst frame's, ``lost`` counts packets, ``resyncs`` frames
    that were coded anew because of an echo, and ``recovered`` is the share of runs
    whose last frame is the encoder's own. The others are means over frames.
    """
    frames = [frame for run in runs for frame in run.frames]
    worst = [min(frame.psnr_rgb for frame in run.frames) for run in runs]
    return {
        "psnr_rgb": fmean(frame.psnr_rgb for frame in frames),
        "psnr_yuv": fmean(frame.psnr_yuv for frame in frames),
        "worst_psnr_rgb": fmean(worst),
        "bits": fmean(frame.bits for frame in frames),
        "parity_bits": fmean(frame.parity_bits for frame in frames),
        "scales": fmean(frame.scales for frame in frames),
        "exact": fmean(frame.exact for frame in frames),
        "lost": sum(len(frame.lost) for frame in frames) / len(runs),
        "resyncs": sum(frame.resync > 0 for frame in frames) / len(runs),
        "recovered": fmean(run.frames[-1].exact for run in runs),
    }


def curves_of(runs: Sequence[Run]) -> list[Curve]:
    """Group runs by label and loss rate, in the order in which they come."""
    curves: dict[tuple[str, float | None], Curve] = {}
    for run in runs:
        curves.setdefault((run.label, run.loss_rate), []).append(run)
    return list(curves.values())


def means_table(title: str, curves: Sequence[Curve], pixels: int) -> Table:
    """Return the curves' means, one row each.

    Args:
        title: Of the table.
        curves: Its rows.
        pixels: Of a frame.
    """
    columns = [
        *words("curve"),
        *numbers("loss rate"),
        *numbers("PSNR (dB)", "worst (dB)", spec=".2f"),
        *numbers("bpp", "of it parity", spec=".4f"),
        *numbers("scales decoded", spec=".2f"),
        *numbers("exact frames", spec=".0%"),
        *numbers("lost packets", "re-sync frames", spec=".4g"),
    ]
    table = Table(title, columns)
    for curve in curves:
        means = means_of(curve)
        table.rows.append(
            [
                curve[0].label,
                curve[0].loss_rate,
                means["psnr_rgb"],
                means["worst_psnr_rgb"],
                *(means[key] / pixels for key in ("bits", "parity_bits")),
                *(means[key] for key in ("scales", "exact", "lost", "resyncs")),
            ]
        )
    return table
