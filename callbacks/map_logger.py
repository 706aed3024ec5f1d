"""Pictures of how a frame is coded, at each validation: quantisation steps, experts."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from callbacks.clip_logger import TILE_WIDTHS, captions, write_png
from callbacks.first_clip import PictureLogger
from lightning_modules.base import CodecModule, ValidationResult

COLUMNS = 4


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


def draw_maps(maps: dict[str, Tensor]) -> npt.NDArray[np.uint8]:
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


def _tile(values: Tensor, grow: int) -> npt.NDArray[np.uint8]:
    values = values.float().cpu()
    low, high = values.min(), values.max()
    scaled = (values - low) / (high - low).clamp_min(1e-12)
    grey: npt.NDArray[np.uint8] = (scaled * 255).round().byte().numpy()
    tall = grey.repeat(grow, axis=0).repeat(grow, axis=1)
    return np.stack([tall] * 3, axis=-1)
