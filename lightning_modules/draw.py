"""What a codec's training draws of a batch."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass
class Draw:
    """What one step codes and how it is weighed.

    Attributes:
        clip: Frames to code, (B, T, 3, H, W).
        rate: (B,), in the codec's own unit.
        lmbda: (B,), weight of the distortion against bits per pixel.
        frame_weights: (B, T), weight of each frame's distortion.
        conditions: Keyword arguments of the codec's ``forward``.
        groups: Named subsets of the frames, bool (B, T), whose bpp and PSNR are
            logged apart, for example ``slot1`` or ``blank``.
    """

    clip: Tensor
    rate: Tensor
    lmbda: Tensor
    frame_weights: Tensor
    conditions: dict[str, Tensor] = field(default_factory=dict)
    groups: dict[str, Tensor] = field(default_factory=dict)

    def between(self, start: int, stop: int) -> "Draw":
        """Return what concerns some of the frames; the conditions stay as they are."""
        frames = slice(start, stop)
        return replace(
            self,
            clip=self.clip[:, frames],
            frame_weights=self.frame_weights[:, frames],
            groups={name: mask[:, frames] for name, mask in self.groups.items()},
        )

    def to(self, device: torch.device) -> "Draw":
        """Return it on a device, which nothing waits for.

        Conditions without dimensions stay: a codec that decides by one reads it here.
        """

        def sent_all(values: dict[str, Tensor]) -> dict[str, Tensor]:
            return {n: sent(v, device) if v.ndim else v for n, v in values.items()}

        return replace(
            self,
            clip=sent(self.clip, device),
            rate=sent(self.rate, device),
            lmbda=sent(self.lmbda, device),
            frame_weights=sent(self.frame_weights, device),
            conditions=sent_all(self.conditions),
            groups=sent_all(self.groups),
        )


def sent(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; a copy to a GPU begins, and nobody waits for it."""
    if x.device == device:
        return x
    if x.device.type == "cpu" and device.type == "cuda" and torch.cuda.is_available():
        # From other memory a GPU copies at once, behind all that it has to do.
        x = x.pin_memory()
    return x.to(device, non_blocking=True)
