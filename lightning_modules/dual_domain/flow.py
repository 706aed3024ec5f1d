"""Optical flow: estimated from coarse to fine, composed, and applied.

A flow (B, 2, H, W) holds, for each pixel of a frame, how far to the right and how far
down in the reference its content lies, in pixels of that resolution.

Source: the pyramid of SpyNet (arXiv 1611.00850), without its finest level; it is
trained here, no weights of others are used.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.dual_domain.design import LATENT_STRIDE, Widths
from lightning_modules.float32 import Float32Ends
from lightning_modules.frames import pad_to_multiple
from lightning_modules.layers import at_least_float32

LEVELS = 5
EDGE = 10.0
"""How fast smoothness gives way where the frame's own gradient grows."""
SMOOTHNESS = 0.02
FIRST_FLOWS = 0.1
"""Gain of a level's last layer at first: flows begin within a pixel or so."""


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Fetch each position's content from where a flow points; see :func:`sample_at`.

    Args:
        x: (B, C, H, W).
        flow: (B, 2, H, W), in pixels.
    """
    return sample_at(at_least_float32(x), at_least_float32(flow), 1)


def sample_at(x: Tensor, offsets: Tensor, points: int) -> Tensor:
    """Sample ``x`` bilinearly at several places around each position.

    Args:
        x: (B, C, H, W); beyond the border its nearest value counts.
        offsets: (B, 2, points * H, W): right and down from each position, all
            positions of the first point, then all of the second.
        points: How many there are.

    Returns:
        (B, C, points * H, W).
    """
    height, width = x.shape[-2:]
    rows = torch.arange(height, device=x.device, dtype=offsets.dtype).repeat(points)
    columns = torch.arange(width, device=x.device, dtype=offsets.dtype)
    # Positions of centres in [-1, 1]: align_corners would divide by W - 1.
    places = torch.stack(
        (
            (columns + offsets[:, 0] + 0.5) * (2.0 / width) - 1.0,
            (rows[:, None] + offsets[:, 1] + 0.5) * (2.0 / height) - 1.0,
        ),
        dim=-1,
    )
    return F.grid_sample(x, places.to(x), padding_mode="border", align_corners=False)


def compose(flows: list[Tensor]) -> list[Tensor]:
    """Return flows from the current frame to each of its references.

    Args:
        flows: Each (B, 2, H, W), from a frame to the one before it, the current
            frame's first.
    """
    composed = [flows[0]]
    for flow in flows[1:]:
        composed.append(composed[-1] + warp(flow, composed[-1]))
    return composed


def to_latent_scale(flow: Tensor) -> Tensor:
    """Return (B, 2, H/16, W/16) in latent positions: fewer of them, and shorter."""
    return F.avg_pool2d(flow, LATENT_STRIDE) / LATENT_STRIDE


def enlarge(flow: Tensor) -> Tensor:
    """Return the flow of frames with twice the sides."""
    larger = F.interpolate(
        at_least_float32(flow), scale_factor=2, mode="bilinear", align_corners=False
    )
    return 2.0 * larger


class FlowNet(nn.Module):
    """Estimates the flow from a frame to its reference; runs in the encoder only.

    Five levels from 1/32 to 1/2 of the sides, each of which refines what the one
    before it found.

    Args:
        widths: Channels.
    """

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        channels = (8, *widths.flow)
        kernel = widths.flow_kernel

        def level() -> nn.Sequential:
            layers: list[nn.Module] = []
            for inputs, outputs in pairwise(channels):
                conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
                # From PyTorch's own weights, five levels of 7x7 hardly begin to learn.
                nn.init.kaiming_normal_(conv.weight)
                layers += [conv, nn.ReLU()]
            last = nn.Conv2d(channels[-1], 2, kernel, padding=kernel // 2)
            nn.init.kaiming_normal_(last.weight)
            last.weight.data *= FIRST_FLOWS
            return Float32Ends(*layers, last, last=True)

        self.levels = nn.ModuleList(level() for _ in range(LEVELS))

    def forward(self, frame: Tensor, reference: Tensor) -> list[Tensor]:
        """Return the flow of each level, coarsest first.

        Args:
            frame: (B, 3, H, W), RGB in [0, 1], sides even.
            reference: Of the same shape.

        Returns:
            The last is (B, 2, H/2, W/2), in pixels of half the resolution.
        """
        height, width = frame.shape[-2] // 2, frame.shape[-1] // 2
        flow: Tensor | None = None
        flows = []
        for level, (x, r) in zip(self.levels, pyramid(frame, reference), strict=True):
            start = x.new_zeros(len(x), 2, *x.shape[-2:])
            if flow is not None:
                start = enlarge(flow)
            seen = torch.cat([x, warp(r, start).to(x), start.to(x)], dim=1)
            flow = start + level(seen)
            flows.append(flow)
        flows[-1] = flows[-1][..., :height, :width]
        return flows

    def full_size(self, frame: Tensor, reference: Tensor) -> Tensor:
        """Return the finest level's flow (B, 2, H, W) in pixels."""
        flow: Tensor = self(frame, reference)[-1]
        return enlarge(flow)


def pyramid(frame: Tensor, reference: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return both frames, about 0, at 1/32, 1/16, ... 1/2 of their sides."""
    scale = 2**LEVELS
    pair = torch.cat([frame, reference]) - 0.5
    level = F.avg_pool2d(pad_to_multiple(pair, scale), 2)
    levels = [level]
    while len(levels) < LEVELS:
        level = F.avg_pool2d(level, 2)
        levels.append(level)
    halves = [level.chunk(2) for level in reversed(levels)]
    return [(x, r) for x, r in halves]


def flow_loss(flows: list[Tensor], frame: Tensor, reference: Tensor) -> Tensor:
    """Return how badly flows of all levels warp the reference, and how rough they are.

    Charbonnier errors, and the flow's own gradient where the frame has none.

    Args:
        flows: Of :meth:`FlowNet.forward`.
        frame: (B, 3, H, W), RGB in [0, 1].
        reference: Of the same shape.
    """
    losses = []
    for flow, (x, r) in zip(flows, pyramid(frame, reference), strict=True):
        height, width = flow.shape[-2:]
        x, r = x[..., :height, :width].float(), r[..., :height, :width].float()
        error = charbonnier(warp(r, flow) - x).mean()
        losses.append(error + SMOOTHNESS * _roughness(flow.float(), x))
    return torch.stack(losses).mean()


def charbonnier(x: Tensor) -> Tensor:
    """Return ``sqrt(x^2 + 10^-6)``."""
    return (x.square() + 1e-6).sqrt()


def _roughness(flow: Tensor, frame: Tensor) -> Tensor:
    total = flow.new_zeros(())
    for axis in (-2, -1):
        if flow.shape[axis] > 1:
            edge = frame.diff(dim=axis).abs().mean(dim=1, keepdim=True)
            steps = charbonnier(flow.diff(dim=axis)) * torch.exp(-EDGE * edge)
            total = total + steps.mean()
    return total
