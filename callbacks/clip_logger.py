"""Pictures at each validation: source, reconstruction and error of a few frames."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from callbacks.first_clip import FRAMES, PictureLogger
from datamodules.whole_files import whole_or_nothing
from lightning_modules.base import CodecModule, ValidationResult
from lightning_modules.psnr import psnr

Picture = npt.NDArray[np.uint8]

ERROR_GAIN = 10
"""Factor on the absolute error, so that 10 levels of 255 read as 100."""

STRIP_ROWS = 4
TILE_WIDTHS = (128, 640)
"""Narrowest and widest tile; other frames grow or shrink by a whole factor."""

CAPTION_HEIGHT = 18
FRAMES_PER_SECOND = 8


class ClipLogger(PictureLogger):
    """Write a strip and a short side-by-side video at each validation.

    ``<run_step>_<stage>.png`` has rows source | reconstruction | error of up to four
    frames, ``<run_step>_<stage>.mp4`` shows source | reconstruction.
    """

    note = f", error x{ERROR_GAIN}"

    def draw(
        self, module: CodecModule, result: ValidationResult, stem: str
    ) -> dict[str, Path]:
        """Draw the strip, then the video."""
        clip, x_hat = (v[0, :FRAMES].float().cpu() for v in (result.clip, result.x_hat))
        strip, video = self.media / f"{stem}.png", self.media / f"{stem}.mp4"
        write_png(draw_strip(clip, x_hat), strip)
        pairs = zip(clip, x_hat, strict=True)
        write_video([side_by_side(x, y) for x, y in pairs], video)
        return {"val/strip": strip, "val/clip": video}


def draw_strip(clip: Tensor, x_hat: Tensor) -> Picture:
    """Draw rows of source | reconstruction | amplified error under a caption each.

    Args:
        clip: (T, 3, H, W), RGB in [0, 1].
        x_hat: Like ``clip``.

    Returns:
        (rows * (h + 18), 3 * w, 3), RGB: up to four frames, evenly spaced, each tile
        h x w, grown or shrunk by a whole factor to 128..640 pixels wide.
    """
    narrowest, widest = TILE_WIDTHS
    grow = -(-narrowest // clip.shape[-1])
    shrink = -(-clip.shape[-1] // widest)
    last = len(clip) - 1
    shown = sorted({round(i * last / (STRIP_ROWS - 1)) for i in range(STRIP_ROWS)})
    rows = []
    for index in shown:
        x, y = clip[index], x_hat[index]
        error = ((x - y).abs() * ERROR_GAIN).clamp(max=1)
        tiles = [F.avg_pool2d(v, shrink) if shrink > 1 else v for v in (x, y, error)]
        row = np.concatenate([_picture(tile) for tile in tiles], axis=1)
        row = row.repeat(grow, axis=0).repeat(grow, axis=1)
        labels = [
            f"frame {index}: source",
            f"{float(psnr(y, x)):.2f} dB",
            f"error x{ERROR_GAIN}",
        ]
        rows += [captions(labels, row.shape[1]), row]
    return np.concatenate(rows)


def side_by_side(x: Tensor, y: Tensor) -> Picture:
    """Return source | reconstruction, (h, 2 w, 3), with sides cut to even numbers."""
    height, width = (side // 2 * 2 for side in x.shape[-2:])
    tiles = [_picture(v[:, :height, :width]) for v in (x, y)]
    return np.concatenate(tiles, axis=1)


def _picture(x: Tensor) -> Picture:
    """Turn (3, H, W) in [0, 1] into (H, W, 3) of 8 bits."""
    rounded = (x.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    picture: Picture = rounded.cpu().numpy()
    return picture


def captions(labels: list[str], width: int) -> Picture:
    """Draw a dark line of text, one label at the left of each tile."""
    import cv2

    bar = np.full((CAPTION_HEIGHT, width, 3), 32, dtype=np.uint8)
    tile = width // len(labels)
    for column, label in enumerate(labels):
        place = (column * tile + 3, CAPTION_HEIGHT - 5)
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(bar, label, place, font, 0.42, (230, 230, 230), 1, cv2.LINE_AA)
    return bar


def write_png(picture: Picture, path: Path) -> None:
    """Write RGB (H, W, 3) as PNG, whole or not at all; its folder is made too.

    Raises:
        OSError: The file cannot be written.
    """
    import cv2

    _, data = cv2.imencode(".png", picture[..., ::-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_or_nothing(path) as temporary:
        temporary.write_bytes(data.tobytes())


def write_video(pictures: list[Picture], path: Path) -> None:
    """Write RGB pictures of even sides as H.264 that browsers play.

    Raises:
        OSError: The file cannot be written, or the encoder fails.
    """
    import av

    height, width = pictures[0].shape[:2]
    try:
        with (
            whole_or_nothing(path) as temporary,
            av.open(str(temporary), "w", format="mp4") as container,
        ):
            stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"crf": "14", "preset": "veryfast"}
            for picture in pictures:
                # Made from an array, a frame leaves its type to x264's choice.
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except av.error.FFmpegError as error:
        raise OSError(f"cannot write {path}: {error}") from error
