"""Steps that would do harm, judged where the gradients are: nobody waits for a GPU."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_modules.draw import sent

NORMS = 100
"""Gradient norms whose median tells what is usual."""


def skips_on_device(trainer: Trainer, optimizer: Any, norm: Tensor) -> bool:
    """Return whether the optimizer itself can pass over a step that a tensor forbids.

    Fused ones can, by the protocol of torch's gradient scaler. On a CPU there is
    nothing to wait for, and a scaler of Lightning's has the protocol to itself.
    """
    scaler = getattr(getattr(trainer, "precision_plugin", None), "scaler", None)
    fused = all(group.get("fused") for group in optimizer.param_groups)
    return norm.device.type != "cpu" and fused and scaler is None


class DeviceCounts:
    """What a step guard counts, in tensors on the gradients' device.

    Args:
        skipped: Steps that were skipped so far.
        bad_in_a_row: The last ones whose gradient was not finite.
        worst_in_a_row: The most of those in a row so far.
        norms: The last finite norms, the newest last.
        device: Where to count.
    """

    def __init__(
        self,
        skipped: int,
        bad_in_a_row: int,
        worst_in_a_row: int,
        norms: list[float],
        device: torch.device,
    ) -> None:
        counts = torch.tensor([skipped, bad_in_a_row, worst_in_a_row])
        self._counts = sent(counts, device)
        # The oldest places are empty until there are so many.
        known = [torch.nan] * (NORMS - len(norms)) + norms[-NORMS:]
        self._norms = sent(torch.tensor(known, dtype=torch.float64), device)

    @torch.no_grad()
    def judge(self, norm: Tensor, skip_factor: float | None) -> Tensor:
        """Note a norm and return 1.0 where its step must be skipped, else 0.0.

        Args:
            norm: Of all gradients, a scalar.
            skip_factor: As the guard has it.
        """
        finite = norm.isfinite()
        skips = ~finite
        if skip_factor is not None:
            usual, known = self._median()
            sticks_out = norm.double() > skip_factor * usual
            skips = skips | (sticks_out & (known >= NORMS // 10))
            newer = torch.cat([self._norms[1:], norm.double().reshape(1)])
            self._norms = torch.where(finite, newer, self._norms)
        skipped, in_a_row, worst = self._counts.unbind()
        in_a_row = torch.where(finite, 0, in_a_row + 1)
        self._counts = torch.stack(
            [skipped + skips, in_a_row, torch.maximum(worst, in_a_row)]
        )
        return skips.float()

    def _median(self) -> tuple[Tensor, Tensor]:
        """Return the median of the known norms, and how many they are."""
        known = self._norms.isfinite().sum()
        ordered = self._norms.sort().values  # What is no number comes last.
        middle = torch.stack([(known - 1).clamp_min(0) // 2, known // 2])
        return ordered.index_select(0, middle.clamp_max(NORMS - 1)).mean(), known

    def read(self) -> tuple[int, int, int, list[float]]:
        """Wait for the device; return its counts and the norms.

        Returns:
            Steps skipped; bad ones in a row, now and at most; and the last norms.
        """
        skipped, in_a_row, worst = self._counts.tolist()
        norms = self._norms[self._norms.isfinite()].tolist()
        return skipped, in_a_row, worst, norms
