"""Whether errors add up from frame to frame: PSNR at both ends of a clip."""

from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_modules.base import CodecModule
from lightning_modules.psnr import psnr

ENDS = 8
"""Frames at either end: a whole group by whose place in it a codec shares out quality,
so that both ends aim at the same."""


class ErrorAccumulation(Callback):
    """Compare the PSNR of the last frames of validation and test clips with the first.

    Logs ``<split>/psnr_first8``, ``<split>/psnr_last8`` and their difference
    ``<split>/psnr_drop``, in dB of RGB, also for each rate point as
    ``<split>/<point>/psnr_drop``. They are means over frames and clips, of all ranks.
    Clips of less than 16 frames have none, for their ends would share frames.
    """

    def __init__(self) -> None:
        # By rate point: the sums of both ends' decibels, and their number of clips.
        self._sums: dict[str, torch.Tensor] = {}

    def on_validation_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Forget the previous clips."""
        # Of all points, since a rank without a clip takes part in the sum.
        self._sums = {
            point: torch.zeros(3, dtype=torch.float64, device=pl_module.device)
            for point in cast(CodecModule, pl_module).rate_points()
        }

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the ends of one batch's clips."""
        for result in outputs:
            if not result.decoded or result.clip.shape[1] < 2 * ENDS:
                continue
            for place, frames in enumerate((slice(None, ENDS), slice(-ENDS, None))):
                quality = psnr(result.x_hat[:, frames], result.clip[:, frames])
                self._sums[result.point][place] += quality.mean(dim=1).sum()
            self._sums[result.point][2] += len(result.clip)

    def on_validation_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Log the means over all ranks."""
        split = "test" if trainer.testing else "val"
        own = torch.stack(list(self._sums.values()))
        sums = trainer.strategy.reduce(own, reduce_op="sum")
        if not bool(sums[:, 2].all()):
            return
        first, last = (sums[:, :2] / sums[:, 2:]).unbind(dim=1)
        figures = {"psnr_first8": first, "psnr_last8": last, "psnr_drop": first - last}
        for name, values in figures.items():
            by_point = zip(self._sums, values.float(), strict=True)
            logged = {f"{split}/{point}/{name}": value for point, value in by_point}
            logged[f"{split}/{name}"] = values.mean().float()
            # The ranks hold equal values; syncing them only silences Lightning.
            pl_module.log_dict(logged, sync_dist=True)

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end
