"""What ``evaluate`` and ``anchor`` are both told of their jobs."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from callbacks.metrics.table import LPIPS_NETS, METRICS, describe_metrics
from experiments.bitstreams.options import SequencesOption
from experiments.cli.command import check_folder
from experiments.cli.options import option
from experiments.results.result import Protocol
from lightning_modules.numerics import MAX_THREADS


@dataclass(frozen=True, kw_only=True)
class MetricOptions:
    """What decoded frames are compared by.

    Attributes:
        lpips: Backbone of LPIPS and tLP (default: alex; random: a stand-in for
            rehearsals).
        tof: Kinds of tOF (default: dis; dis_l1: of the same flow, in the L1 norm; teco:
            TecoGAN's).
        fid: Also FID and KID of all frames of a set, whole or in squares of 256.
        brisque: Also BRISQUE.
        vmaf: Also VMAF, in yuv420 (needs pip install -e '.[anchors]').
        metrics: Print what every metric is and needs, and end.
    """

    lpips: str = option("alex", choices=(*LPIPS_NETS, "none"))
    tof: tuple[Literal["dis", "dis_l1", "teco"], ...] = ("dis",)
    fid: tuple[Literal["frames", "patches"], ...] = ()
    brisque: bool = False
    vmaf: bool = False
    metrics: bool = option(False, shows=describe_metrics)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Keys of ``METRICS``: those asked for, and those that need no option."""
        chosen = {"", f"--lpips {self.lpips}"}
        chosen |= {f"--tof {flow}" for flow in self.tof}
        chosen |= {f"--fid {kind}" for kind in self.fid}
        chosen |= {f"--{name}" for name in ("brisque", "vmaf") if getattr(self, name)}
        return tuple(name for name, m in METRICS.items() if m.option in chosen)


@dataclass(frozen=True, kw_only=True)
class JobOptions(SequencesOption, MetricOptions):
    """How sequences are coded and assessed, whoever codes them.

    Attributes:
        output: Result file.
        name: Label of the curve (default: the output's name).
        max_frames: Of each sequence (default: all).
        intra_period: Start without a reference every N frames (default: only at the
            first).
        colour: Of the frames that are given and compared.
        yuv_as: How raw 4:2:0 becomes RGB, for --colour rgb: full709 (BT.709 full range)
            or ffmpeg (its default conversion to PNG: BT.601 limited range).
        pictures: Frames to keep as PNG for reports.
        workers: Processes.
        threads: Of each process (default: the cores, divided by the workers).
        overwrite: Discard what OUTPUT holds first.
        wandb: Log points, RD curves and means to W&B: to a run of its own, or to that
            of RUN, a folder of fit's or a name.
    """

    output: Path = option(metavar="JSON")
    name: str | None = None
    max_frames: int | None = option(None, metavar="N")
    intra_period: int = option(-1, metavar="N")
    colour: Literal["yuv420", "rgb"] = "yuv420"
    yuv_as: Literal["full709", "ffmpeg"] = "full709"
    pictures: tuple[int, ...] = option((0, 31), metavar="FRAME", nargs="*")
    workers: int = option(1, metavar="N")
    threads: int | None = option(None, metavar="N")
    overwrite: bool = False
    wandb: tuple[str, ...] | None = option(None, metavar="RUN", nargs="*")

    def __post_init__(self) -> None:
        for name in ("max_frames", "workers", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name} is {value}, it must be at least 1")
        if self.threads is not None and self.threads > MAX_THREADS:
            raise ValueError(
                f"--threads is {self.threads}, it must be at most {MAX_THREADS}"
            )
        if self.intra_period != -1 and self.intra_period < 1:
            raise ValueError(
                f"--intra_period is {self.intra_period}: it must be at least 1, or -1"
            )
        if self.wandb and len(self.wandb) > 1:
            raise ValueError(f"--wandb {' '.join(self.wandb)}: give one RUN, or none")
        if self.output.suffix != ".json":
            raise ValueError(f"--output {self.output} must end in .json")
        check_folder(self.output.parent)
        if self.yuv_as != "full709" and self.colour != "rgb":
            raise ValueError(
                f"--yuv_as {self.yuv_as} says how 4:2:0 becomes RGB, but yuv420 planes "
                "are taken as they are: add --colour rgb, or leave it out"
            )
        if self.vmaf and self.colour != "yuv420":
            raise ValueError("--vmaf is defined on 4:2:0 frames: use --colour yuv420")

    @property
    def bits_from(self) -> str:
        """What tells the bits: ``bitstream``, or the model's ``estimate``."""
        return "bitstream"

    @property
    def label(self) -> str:
        """Label of the curve."""
        return self.name or self.output.stem

    @property
    def threads_each(self) -> int:
        """Threads of each process: as asked, or a fair share of the cores."""
        share = len(os.sched_getaffinity(0)) // self.workers
        return self.threads or min(max(1, share), MAX_THREADS)

    def protocol(self) -> Protocol:
        """Return the result's protocol, without the metrics' definitions."""
        return Protocol(
            self.colour,
            self.max_frames or 0,
            self.intra_period,
            self.bits_from,
            yuv_as=self.yuv_as,
        )
