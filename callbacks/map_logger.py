"""Pictures of how a frame is coded, at each validation: quantisation steps, experts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from callbacks.clip_logger import TILE_WIDTHS, captions, write_png

if TYPE_CHECKING:
    from lightning_modules.base import CodecModule

COLUMNS = 4


class MapLogger(Callback):
    """Draw what the codec's ``maps`` give for the first validation frame.

    Writes ``<run>/media/<run_step>_<stage>_maps.png`` and logs each map's mean and
    standard deviation as ``val/map/<name>_mean`` and ``_std``; W&B gets the picture as
    ``val/maps``. Codecs without maps log nothing.

    Args:
        run_dir: The run's folder.
        every_n_validations: 1 for each validation.
    """

    def __init__(self, run_dir: str | Path, every_n_validations: int = 1) -> None:
        self.media = Path(run_dir, "media")
        self.every_n_validations = every_n_validations
        self._validations = 0
        self._figures: dict[str, float] = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw the first frame at the middle rate point."""
        due = self._validations % self.every_n_validations == 0
        first = batch_idx == dataloader_idx == 0
        if not (trainer.is_global_zero and due and first) or trainer.sanity_checking:
            return
        module = cast("CodecModule", pl_module)
        result = outputs[len(outputs) // 2]
        maps = module.codec.maps(result.clip[0, 0], result.rate)
        if not maps:
            return
        for name, values in maps.items():
            self._figures[f"val/map/{name}_mean"] = float(values.mean())
            self._figures[f"val/map/{name}_std"] = float(values.std(correction=0))
        path = self.media / f"{module.run_step:07d}_{module.stage.name}_maps.png"
        try:
            self.media.mkdir(parents=True, exist_ok=True)
            write_png(draw_maps(maps), path)
        except OSError as error:
            # A full disk must not end a run of days.
            rank_zero_warn(f"no picture {path}: {error!r}")
            return
        step = max(0, trainer.global_step - 1)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                text = [f"{result.name} at {result.point}"]
                logger.log_image("val/maps", [str(path)], step, caption=text)

    def on_validation_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Log the figures and count validations."""
        for name, value in self._figures.items():
            pl_module.log(name, value, rank_zero_only=True)
        self._figures = {}
        self._validations += not trainer.sanity_checking

    def state_dict(self) -> dict[str, Any]:
        """Return the number of validations so far."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._validations = state_dict["validations"]


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
        blank = np.zeros_like(tiles[0])
        row = np.concatenate(tiles + [blank] * (COLUMNS - len(tiles)), axis=1)
        labels = [*chosen, *[""] * (COLUMNS - len(chosen))]
        ranges = [
            f"{float(maps[name].min()):.3g} to {float(maps[name].max()):.3g}"
            for name in chosen
        ] + [""] * (COLUMNS - len(chosen))
        rows += [captions(labels, row.shape[1]), row, captions(ranges, row.shape[1])]
    return np.concatenate(rows)


def _tile(values: Tensor, grow: int) -> npt.NDArray[np.uint8]:
    values = values.float().cpu()
    low, high = values.min(), values.max()
    scaled = (values - low) / (high - low).clamp_min(1e-12)
    grey: npt.NDArray[np.uint8] = (scaled * 255).round().byte().numpy()
    tall = grey.repeat(grow, axis=0).repeat(grow, axis=1)
    return np.stack([tall] * 3, axis=-1)
