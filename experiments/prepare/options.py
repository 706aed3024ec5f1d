"""Options of the command; nothing heavy is imported for them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from experiments.cli.options import option

if TYPE_CHECKING:
    from datamodules.prepared.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Decode videos once into a store that training reads 30 to 110 times faster.

    Attributes:
        videos: Folder of videos, or with --check the store.
        output: Folder of the store, new or begun by the same command.
        source: Layout of IN, as --data.source has it.
        list_file: Vimeo-90K's list file or OpenVid's CSV, if it is not where the
            archive has it.
        format: Frames as planes of 4:2:0 (1.5 bytes a pixel), as planes of RGB (3
            bytes, exact), or in JPEG tiles (about 0.3 bytes at q95).
        quality: Of JPEG, 1 to 100.
        height: Shorter side of the frames in pixels, the height of landscape video;
            larger ones are scaled down, which takes coding noise out.
        factor: Divide both sides by it instead.
        stride: Keep one frame in N of each shot (OpenVid's paper: 3).
        threshold: Of scene cuts (default: 0.33; 0: each video is one shot).
        min_frames: Leave shots out that have fewer frames in the store.
        max_frames: Keep at most N frames of a video (default: all).
        workers: Processes.
        dry_run: Say size and time, write nothing.
        check: Compare all frames of a store with their checksums.
    """

    videos: Path = option(metavar="IN", positional=True)
    output: Path | None = option(None, metavar="OUT", positional=True, nargs="?")
    source: Literal["folder", "openvid", "vimeo90k"] = "folder"
    list_file: Path | None = option(None, metavar="FILE")
    format: Literal["yuv420", "rgb", "jpeg"] = "yuv420"
    quality: int = 95
    height: int | None = option(None, metavar="N", one_of="size")
    factor: float | None = option(None, metavar="X", one_of="size")
    stride: int = option(1, metavar="N")
    threshold: float | None = option(None, metavar="X")
    min_frames: int = option(7, metavar="N")
    max_frames: int | None = option(None, metavar="N")
    workers: int = option(1, metavar="N")
    dry_run: bool = False
    check: bool = False

    def __post_init__(self) -> None:
        least = {"height": 16, "factor": 1, "stride": 1, "min_frames": 1}
        least |= {"max_frames": 1, "workers": 1, "quality": 1, "threshold": 0}
        for name, smallest in least.items():
            value = getattr(self, name)
            # Written so that no comparison is true of NaN.
            if value is not None and not value >= smallest:
                raise ValueError(f"--{name} is {value}, it must be at least {smallest}")
        if self.quality > 100:
            raise ValueError(f"--quality is {self.quality}, it must be at most 100")
        if self.max_frames is not None and self.max_frames < self.min_frames:
            raise ValueError(
                f"--max_frames {self.max_frames} is below --min_frames "
                f"{self.min_frames}: no shot would be kept"
            )
        if self.output is None and not self.check:
            raise ValueError(
                "OUT is missing, the folder of the store: python -m "
                f"experiments.prepare {self.videos} OUT"
            )

    @property
    def store(self) -> Path:
        """The folder of the store."""
        return self.output or self.videos

    @property
    def recipe(self) -> "Recipe":
        """What the store's content follows from, beside the videos."""
        from datamodules.prepared.cuts import THRESHOLD
        from datamodules.prepared.recipe import Recipe

        return Recipe(
            format=self.format,
            quality=self.quality if self.format == "jpeg" else 0,
            height=self.height,
            factor=float(self.factor or 1),
            stride=self.stride,
            threshold=THRESHOLD if self.threshold is None else self.threshold,
            min_frames=self.min_frames,
            max_frames=self.max_frames,
        )
