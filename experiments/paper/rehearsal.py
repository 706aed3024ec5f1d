"""Everything tiny: networks, schedules, and clips that no data set is needed for."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from datamodules.whole_files import whole_or_nothing

FRAMES = 9
"""Of a clip: a group of pictures of any codec, and a pair more than a few units."""

SIDE = 176
"""In pixels: MS-SSIM needs more than 160."""

CLIPS = 1


@dataclass(frozen=True)
class Rehearsal:
    """How a recipe is made in minutes.

    Attributes:
        folder: Of its clips.
    """

    folder: Path

    @property
    def fit_arguments(self) -> tuple[str, ...]:
        """What is told to every ``fit`` after its own options."""
        told = {
            # Of every row one step.
            "shrink.total_steps": 1,
            "shrink.min_steps": 1,
            "shrink.batch_size": 1,
            "shrink.frames": 3,
            "shrink.crop": 32,
            "data.workers": 0,
            # What is trained is measured anyway.
            "data.val_clips": 0,
            "logger": "csv",
        }
        return "--config", "rehearsal", *(f"--{k}={v}" for k, v in told.items())

    @property
    def sequences(self) -> list[str]:
        """What stands in for the test sets."""
        return [str(self.folder)]

    @property
    def video(self) -> Path:
        """One clip."""
        return self.folder / "clip_0.y4m"

    def options(self, command: str) -> dict[str, Any]:
        """Return options that a command has in every rehearsal."""
        if command in ("evaluate", "anchor"):
            return {"max_frames": FRAMES, "threads": 1}
        return {}

    @property
    def allowed(self) -> tuple[str, ...]:
        """Differences that ``compare`` does not refuse: stand-ins bring them."""
        return ("rate", "max_frames", "intra_period", "definitions", "unstated")

    def make_clips(self) -> None:
        """Write the clips, if they are not there."""
        if self.folder.is_dir():
            return
        import torch

        from datamodules.sources.synthetic import SyntheticSource
        from datamodules.writing import create_video

        source = SyntheticSource().test_part()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_or_nothing(self.folder, directory=True) as temporary:
            temporary.mkdir()
            for item in range(CLIPS):
                path = temporary / f"clip_{item}.y4m"
                clip = torch.from_numpy(source.read(item, None, FRAMES, SIDE, 1))
                with create_video(path, SIDE, SIDE, Fraction(30)) as put:
                    for frame in clip.permute(0, 3, 1, 2):
                        put(frame.float() / 255)
