"""The interface of the video VAEs that the perceptual codec stands on."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_modules.float32 import widened

Name = Literal["cv_vae", "lean_vae"]
Size = Literal["paper", "small", "mini", "tiny"]
Norm = Literal["clip", "frame"]

TIME_STRIDE = 4
"""Frames per latent step; the first frame has a step of its own."""

SPACE_STRIDE = 8
"""Pixels per latent position, along each side."""

Run = Callable[..., Tensor]
"""Applies a part of a network to its inputs, as :meth:`Backbone.run` does."""


class Backbone(nn.Module, ABC):
    """A video VAE without sampling: a clip to a latent and back.

    Everything is deterministic and nothing is clamped or padded. The range that a
    network was trained on is converted to and from in here.

    Args:
        channels: Of the latent.

    Attributes:
        encoder: Clip to latent.
        decoder: Latent to clip.
        low: What the network sees for black.
        high: What the network sees for white.
        checkpoint_activations: Recompute each part in the backward pass.
    """

    encoder: nn.Module
    decoder: nn.Module
    low: float
    high: float

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels {channels}: a latent has at least 1, as 128")
        self.channels = channels
        self.checkpoint_activations = False

    def encode(self, clip: Tensor) -> Tensor:
        """Return the latent (B, c, 1 + (T - 1) / 4, H / 8, W / 8) of a clip.

        Args:
            clip: (B, T, 3, H, W), RGB in [0, 1]; T is 4 n + 1, H and W are multiples
                of 8.

        Raises:
            ValueError: The clip has another shape.
        """
        check_clip(clip)
        ranged = clip.transpose(1, 2) * (self.high - self.low) + self.low
        return self._encode(ranged)

    def decode(self, latent: Tensor) -> Tensor:
        """Return the clip (B, T, 3, H, W) of a latent: RGB near [0, 1], not clamped.

        Args:
            latent: (B, c, t, H / 8, W / 8), for T = 4 (t - 1) + 1 frames.

        Raises:
            ValueError: The latent has another number of channels or of dimensions.
        """
        if latent.ndim != 5 or latent.shape[1] != self.channels:
            raise ValueError(
                f"a latent of shape {tuple(latent.shape)} is not (B, {self.channels}, "
                "t, h, w)"
            )
        ranged = widened(self._decode(latent))
        return ((ranged - self.low) / (self.high - self.low)).transpose(1, 2)

    def run(self, part: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Apply a part of the network, which may be recomputed in the backward pass."""
        if not self.checkpoint_activations:
            return part(*inputs)
        # The reentrant kind desynchronises ranks where frames are unrolled.
        result: Tensor = checkpoint(part, *inputs, use_reentrant=False)
        return result

    @abstractmethod
    def _encode(self, clip: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) in the network's range to the latent."""

    @abstractmethod
    def _decode(self, latent: Tensor) -> Tensor:
        """Map the latent to (B, 3, T, H, W) in the network's range."""


def check_clip(clip: Tensor) -> None:
    """Refuse a clip whose shape no backbone can code.

    Raises:
        ValueError: It is not (B, 4 n + 1, 3, 8 h, 8 w).
    """
    if clip.ndim != 5 or clip.shape[2] != 3:
        raise ValueError(f"a clip of shape {tuple(clip.shape)} is not (B, T, 3, H, W)")
    frames, _, height, width = clip.shape[1:]
    if frames % TIME_STRIDE != 1:
        raise ValueError(
            f"{frames} frames cannot be coded together: the number must be "
            f"{TIME_STRIDE} n + 1, as 9; repeat the last frame"
        )
    if height % SPACE_STRIDE or width % SPACE_STRIDE or not height or not width:
        raise ValueError(
            f"frames of {width}x{height} cannot be coded: both sides must be "
            f"multiples of {SPACE_STRIDE}; pad them"
        )
