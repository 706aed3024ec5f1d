"""Layers of CV-VAE: causal convolutions, half-3D residual blocks, attention.

Source: arXiv 2405.20279, with the padding of the released weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.video_vae.backbone import Norm

GROUPS = 32
"""Of a normalisation; narrow layers have fewer, of four channels each."""


class FrameNorm(nn.GroupNorm):
    """A group normalisation whose statistics are each frame's own."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, T, H, W)."""
        frames = super().forward(x.transpose(1, 2).flatten(0, 1))
        return frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


def normalisation(channels: int, norm: Norm) -> nn.GroupNorm:
    """Return a group normalisation over the clip, or over each frame."""
    kind = nn.GroupNorm if norm == "clip" else FrameNorm
    return kind(min(GROUPS, channels // 4), channels, eps=1e-5)


def with_past(x: Tensor) -> Tensor:
    """Put two copies of the first frame before (B, C, T, H, W)."""
    first = x[:, :, :1].expand(-1, -1, 2, -1, -1)
    return torch.cat([first, x], dim=2)


class CausalConv(nn.Conv3d):
    """A 3x3x3 convolution that sees no later frame."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__(inputs, channels, 3, padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T, H, W) to (B, channels, T, H, W)."""
        return super().forward(with_past(x))


def convolution(inputs: int, channels: int, causal: bool) -> nn.Conv3d:
    """Return a 3x3x3 convolution; one that is not causal has zeros around the clip."""
    if causal:
        return CausalConv(inputs, channels)
    return nn.Conv3d(inputs, channels, 3, padding=1)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut.

    Args:
        inputs: Channels that come in.
        channels: Channels that go out.
        causal: Whether it sees no later frame, but for the normalisation.
        half_3d: Whether the second convolution sees one frame only.
        norm: What the statistics are of.
    """

    def __init__(
        self, inputs: int, channels: int, causal: bool, half_3d: bool, norm: Norm
    ) -> None:
        super().__init__()
        self.norm1 = normalisation(inputs, norm)
        self.conv1 = convolution(inputs, channels, causal)
        self.norm2 = normalisation(channels, norm)
        # Three dimensions for a kernel of two: frames need not be moved in memory.
        self.conv2 = (
            nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1))
            if half_3d
            else convolution(channels, channels, causal)
        )
        self.shortcut: nn.Module = (
            nn.Identity() if inputs == channels else nn.Conv3d(inputs, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T, H, W) to (B, channels, T, H, W)."""
        inner = self.conv1(F.silu(self.norm1(x), inplace=True))
        inner = self.conv2(F.silu(self.norm2(inner), inplace=True))
        return self.shortcut(x) + inner


class Downsample(nn.Conv3d):
    """Halve both sides, and the frames after the first if asked.

    Args:
        channels: In and out.
        time: Whether T frames become 1 + (T - 1) / 2.
    """

    def __init__(self, channels: int, time: bool) -> None:
        super().__init__(channels, channels, 3, stride=(2 if time else 1, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to half the size."""
        return super().forward(F.pad(with_past(x), (0, 1, 0, 1)))


class Upsample(nn.Conv3d):
    """Double both sides, and the frames after the first if asked.

    It is not causal: the frame after is seen too.

    Args:
        channels: In and out.
        time: Whether T frames become 1 + 2 (T - 1).
    """

    def __init__(self, channels: int, time: bool) -> None:
        super().__init__(channels, channels * (2 if time else 1), 3, padding=(0, 1, 1))
        self.time = time

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to double the size."""
        # Padded before it grows, which gives the same and copies a quarter.
        x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
        x = super().forward(F.interpolate(x, scale_factor=(1.0, 2.0, 2.0)))
        if not self.time:
            return x
        # Two frames lie in the channels; the first of all is dropped.
        return x.unflatten(1, (2, -1)).movedim(1, 3).flatten(2, 3)[:, :, 1:]


class Head(nn.Module):
    """The layers of an attention with one head.

    Args:
        channels: In and out.
        norm: Comes before it.
    """

    def __init__(self, channels: int, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)


class SpaceAttention(Head):
    """One head over the positions of a frame."""

    def forward(self, x: Tensor) -> Tensor:
        """Map frames (N, C, h, w) to tokens (N, h w, C)."""
        tokens = self.norm(x).flatten(2).transpose(1, 2).unsqueeze(1)
        attended = F.scaled_dot_product_attention(
            self.query(tokens), self.key(tokens), self.value(tokens)
        )
        return self.out(attended).squeeze(1)


class TimeAttention(Head):
    """One head over the frames, at every position."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (N, t, C) to as many."""
        tokens = self.norm(tokens)
        # Written out: fused kernels are made for few long sequences, and a large
        # picture has more positions than they take.
        scale = tokens.shape[-1] ** -0.5
        scores = (self.query(tokens) * scale) @ self.key(tokens).transpose(1, 2)
        return self.out(scores.softmax(dim=-1) @ self.value(tokens))


class Attention(nn.Module):
    """Attention within frames, then over time if asked, beside one shortcut.

    Args:
        channels: In and out.
        time: Whether there is attention over time; it sees all frames.
    """

    def __init__(self, channels: int, time: bool) -> None:
        super().__init__()
        self.space = SpaceAttention(channels, normalisation(channels, "clip"))
        self.time = TimeAttention(channels, nn.LayerNorm(channels)) if time else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, t, h, w) to the same shape."""
        batch, _, count, height, width = x.shape
        tokens = self.space(x.transpose(1, 2).flatten(0, 1))
        if self.time is not None:
            paths = tokens.unflatten(0, (batch, count)).transpose(1, 2)
            tokens = self.time(paths.flatten(0, 1))
            tokens = tokens.unflatten(0, (batch, -1)).permute(0, 3, 2, 1)
        else:
            tokens = tokens.unflatten(0, (batch, count)).permute(0, 3, 1, 2)
        return x + tokens.unflatten(3, (height, width))
