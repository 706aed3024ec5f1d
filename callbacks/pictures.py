"""Pictures at each validation: strips, videos, and maps of how a frame is coded."""

from abc import abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from callbacks.first_clip import FirstClip, frames_to_look_at
from datamodules.video_reader import VideoError
from datamodules.writing import create_video, to_rgb8, write_png
from lightning_modules.base import CodecModule, ValidationResult
from lightning_modules.psnr import psnr

Picture = npt.NDArray[np.uint8]

ERROR_GAIN = 10
"""Factor on the absolute error, so that 10 levels of 255 read as 100."""

STRIP_ROWS = 4
TILE_WIDTHS = (128, 640)
"""Narrowest and widest tile; other frames grow or shrink by a whole factor."""

COLUMNS = 4
"""Maps in a row."""

CAPTION_HEIGHT = 18
FRAMES_PER_SECOND = Fraction(8)


class PictureLogger(FirstClip):
    """Writes pictures of the first clip below ``<run>/media``.

    Their names begin with ``<run_step>_<stage>``. Those of the trainer's loggers that
    show pictures (W&B's images and videos, TensorBoard's images) get them too.

    Args:
        run_dir: The run's folder.
        every_n_validations: 1 for each validation.
    """

    note = ""
    """What the caption says besides the clip's name and rate point."""

    def __init__(self, run_dir: str | Path, every_n_validations: int = 1) -> None:
        super().__init__(every_n_validations)
        self.media = Path(run_dir, "media")

    @abstractmethod
    def draw(
        self, module: CodecModule, result: ValidationResult, stem: str
    ) -> dict[str, Path]:
        """Write files below ``media`` whose names begin with ``stem``.

        Returns:
            PNG and MP4 files by the key that W&B shows them under.

        Raises:
            OSError: A file cannot be written.
            VideoError: The same.
        """

    def look(self, module: CodecModule, result: ValidationResult, suffix: str) -> None:
        """Draw the clip and show it in the loggers."""
        stem = f"{module.run_step:07d}_{module.stage.name}{suffix}"
        try:
            pictures = self.draw(module, result, stem)
        except (OSError, VideoError) as error:
            # A full disk or a missing encoder must not end a run of days.
            rank_zero_warn(f"no picture {stem} in {self.media}: {error!r}")
            return
        # Lightning numbers steps from 0: this is the one just done.
        step = max(0, module.trainer.global_step - 1)
        caption = f"{result.name} at {result.point}{self.note}"
        for key, path in pictures.items():
            show(module.trainer.loggers, f"{key}{suffix}", path, step, caption)


def show(
    loggers: Sequence[Logger], key: str, path: Path, step: int, caption: str
) -> None:
    """Show a PNG or MP4 file in those loggers that can."""
    what = "log_video" if path.suffix == ".mp4" else "log_image"
    for logger in loggers:
        # WandbLogger's methods; others that have one take the same.
        if log := getattr(logger, what, None):
            log(key, [str(path)], step, caption=[caption])


class ClipLogger(PictureLogger):
    """Write strips and short side-by-side videos, of a low and of a high rate.

    ``<run_step>_<stage>_low.png`` (``_high.png``; neither where a codec has one rate
    only) has rows source | reconstruction | error of up to four
    frames, two of them at the boundary where units are coded apart;
    the ``.mp4`` of the same name shows source | reconstruction of all that was looked
    at. The loggers have them as ``val/strip_low``, ``val/clip_high``.
    """

    note = f", error x{ERROR_GAIN}"

    def chosen(
        self, results: Sequence[ValidationResult]
    ) -> dict[str, ValidationResult]:
        """Return the rates with the fewest and the most bits."""
        if len(results) < 2:
            return super().chosen(results)
        return {"_low": results[0], "_high": results[-1]}

    def draw(
        self, module: CodecModule, result: ValidationResult, stem: str
    ) -> dict[str, Path]:
        """Draw the strip, then the video."""
        count = frames_to_look_at(module.codec)
        clip, x_hat = (v[0, :count].float().cpu() for v in (result.clip, result.x_hat))
        strip, video = self.media / f"{stem}.png", self.media / f"{stem}.mp4"
        boundaries = module.codec.boundaries(len(clip))
        write_png(draw_strip(clip, x_hat, boundaries), strip)
        pairs = side_by_side(clip, x_hat)
        height, width = pairs.shape[-2:]
        with create_video(video, width, height, FRAMES_PER_SECOND) as append:
            for pair in pairs:
                append(pair)
        return {"val/strip": strip, "val/clip": video}


class MapLogger(PictureLogger):
    """Draw what the codec's ``maps`` give for the first validation frame.

    Writes ``<run_step>_<stage>_maps.png`` and logs each map's mean and standard
    deviation as ``val/map/<name>_mean`` and ``_std``. Codecs without maps log nothing.
    """

    def draw(
        self, module: CodecModule, result: ValidationResult, stem: str
    ) -> dict[str, Path]:
        """Log the figures, then draw the maps."""
        maps = module.codec.maps(result.clip[0, 0], result.rate)
        if not maps:
            return {}
        for name, values in maps.items():
            figures = {
                f"val/map/{name}_mean": float(values.mean()),
                f"val/map/{name}_std": float(values.std(correction=0)),
            }
            module.log_dict(figures, batch_size=1, rank_zero_only=True)
        path = self.media / f"{stem}_maps.png"
        write_png(draw_maps(maps), path)
        return {"val/maps": path}


def draw_strip(clip: Tensor, x_hat: Tensor, boundaries: Sequence[int] = ()) -> Picture:
    """Draw rows of source | reconstruction | amplified error under a caption each.

    Args:
        clip: (T, 3, H, W), RGB in [0, 1].
        x_hat: Like ``clip``.
        boundaries: As ``VideoCodec.boundaries`` gives them.

    Returns:
        (rows * (h + 18), 3 * w, 3), RGB: the frames of :func:`frames_of_strip`, each
        tile h x w, grown or shrunk by a whole factor to 128..640 pixels wide.
    """
    narrowest, widest = TILE_WIDTHS
    grow = -(-narrowest // clip.shape[-1])
    shrink = -(-clip.shape[-1] // widest)
    rows = []
    for index in frames_of_strip(len(clip), boundaries):
        x, y = clip[index], x_hat[index]
        error = ((x - y).abs() * ERROR_GAIN).clamp(max=1)
        tiles = [F.avg_pool2d(v, shrink) if shrink > 1 else v for v in (x, y, error)]
        row = np.concatenate([to_rgb8(tile) for tile in tiles], axis=1)
        row = row.repeat(grow, axis=0).repeat(grow, axis=1)
        labels = [
            f"frame {index}: source",
            f"{float(psnr(y, x)):.2f} dB",
            f"error x{ERROR_GAIN}",
        ]
        rows += [captions(labels, row.shape[1]), row]
    return np.concatenate(rows)


def frames_of_strip(count: int, boundaries: Sequence[int] = ()) -> list[int]:
    """Choose up to four of ``count`` frames, among them the first and the last.

    Between these are those at both sides of the first boundary; without one the four
    are evenly spaced.
    """
    last = count - 1
    if boundaries:
        return sorted({0, boundaries[0] - 1, boundaries[0], last})
    return sorted({round(i * last / (STRIP_ROWS - 1)) for i in range(STRIP_ROWS)})


def side_by_side(clip: Tensor, x_hat: Tensor) -> Tensor:
    """Return source | reconstruction, (T, 3, h, 2 w), with sides cut to even numbers.

    Browsers do not play what H.264 makes of odd ones.
    """
    height, width = (side // 2 * 2 for side in clip.shape[-2:])
    return torch.cat([v[..., :height, :width] for v in (clip, x_hat)], dim=-1)


def draw_maps(maps: dict[str, Tensor]) -> Picture:
    """Draw maps in rows of four, each from its smallest (black) to its largest value.

    Args:
        maps: Each (h, w), all of one shape.

    Returns:
        RGB picture; below the name of each map is its range.
    """
    shape = next(iter(maps.values())).shape
    grow = max(1, -(-TILE_WIDTHS[0] // shape[-1]))
    names = list(maps)
    rows = []
    for first in range(0, len(names), COLUMNS):
        chosen = names[first : first + COLUMNS]
        tiles = [_tile(maps[name], grow) for name in chosen]
        tiles += [np.zeros_like(tiles[0])] * (COLUMNS - len(tiles))
        row = np.concatenate(tiles, axis=1)
        spare = [""] * (COLUMNS - len(chosen))
        labels = chosen + spare
        values = [maps[name] for name in chosen]
        ranges = [f"{float(v.min()):.3g} to {float(v.max()):.3g}" for v in values]
        ranges += spare
        rows += [captions(labels, row.shape[1]), row, captions(ranges, row.shape[1])]
    return np.concatenate(rows)


def _tile(values: Tensor, grow: int) -> Picture:
    values = values.float().cpu()
    low, high = values.min(), values.max()
    scaled = (values - low) / (high - low).clamp_min(1e-12)
    grey: Picture = (scaled * 255).round().byte().numpy()
    tall = grey.repeat(grow, axis=0).repeat(grow, axis=1)
    return np.stack([tall] * 3, axis=-1)


def captions(labels: list[str], width: int) -> Picture:
    """Draw a dark line of text, one label at the left of each tile."""
    bar = np.full((CAPTION_HEIGHT, width, 3), 32, dtype=np.uint8)
    tile = width // len(labels)
    for column, label in enumerate(labels):
        place = (column * tile + 3, CAPTION_HEIGHT - 5)
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(bar, label, place, font, 0.42, (230, 230, 230), 1, cv2.LINE_AA)
    return bar
