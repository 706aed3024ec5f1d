"""What a codec's training draws of a batch."""

from dataclasses import dataclass, field, replace

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
