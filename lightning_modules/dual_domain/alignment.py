"""Alignment in the latent domain: a transformer that looks where flows point.

Each position of the predicted latent samples every reference at a few places around
the flow's end, and weighs all samples of all references in one softmax, in which a
learned null sample lets it reject them all: at occlusions, at scene cuts.
"""

from math import sqrt

import torch
from torch import Tensor, nn

from lightning_modules.dual_domain.design import Options, Widths
from lightning_modules.dual_domain.flow import sample_at, warp
from lightning_modules.dual_domain.transforms import blocks, squash
from lightning_modules.float32 import Float32Ends
from lightning_modules.layers import at_least_float32

POINTS = 9
"""Samples of a reference by one head: a 3 x 3 grid before offsets."""
REACH = 4.0
"""Largest offset from the flow's end, in latent positions (64 pixels)."""


class DeformableAttention(nn.Module):
    """Attention to samples of references, joint over all of them.

    Args:
        widths: Channels, and heads, each with offsets of its own.
        references: Most references.
    """

    grid: Tensor

    def __init__(self, widths: Widths, references: int) -> None:
        super().__init__()
        d, hidden = widths.aligned, widths.offsets
        self.heads = widths.heads
        self.offset_net = Float32Ends(
            nn.Conv2d(2 * d + 2, hidden, 1),
            nn.GELU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(hidden, self.heads * POINTS * 2, 1),
            last=True,
        )
        # The first steps look exactly where the flow points.
        last = self.offset_net[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.query = nn.Conv2d(d, d, 1)
        self.key_value = nn.Conv2d(d, 2 * d, 1)
        self.out = nn.Conv2d(d, d, 1)
        self.bias = nn.Parameter(torch.zeros(references, self.heads, POINTS))
        self.null_key = nn.Parameter(torch.zeros(d))
        self.null_value = nn.Parameter(torch.zeros(d))
        places = torch.tensor([-1.0, 0.0, 1.0])
        grid = torch.stack(torch.meshgrid(places, places, indexing="xy"))
        self.register_buffer("grid", grid.flatten(1), persistent=False)

    def forward(self, x: Tensor, references: Tensor, flows: Tensor) -> Tensor:
        """Return what the references say, of the shape of ``x``.

        Args:
            x: (B, d, h, w), features of the prediction.
            references: (B, R, d, h, w), the newest first.
            flows: To each, (B, R, 2, h, w), in latent positions.
        """
        batch, ages = references.shape[:2]
        query = at_least_float32(self._heads(self.query(x)))
        # All references at once, as if each were a sample of its own.
        known = references.flatten(0, 1)
        asked = x[:, None].expand(-1, ages, -1, -1, -1).flatten(0, 1)
        places = self._places(asked, known, flows.flatten(0, 1))
        samples = sample(self.key_value(known), places).unflatten(0, (batch, ages))
        keys, values = samples.chunk(2, dim=3)
        match = (query[:, None, :, :, None] * keys).sum(dim=3) / sqrt(keys.shape[3])
        match = match + self.bias[:ages, ..., None, None]
        # (B, heads, samples, h, w): one softmax over all ages and points.
        weights = torch.cat(
            [self._null_logit(query), match.transpose(1, 2).flatten(2, 3)], dim=2
        ).softmax(dim=2)
        seen = values.permute(0, 2, 3, 1, 4, 5, 6).flatten(3, 4)
        seen = torch.cat([self._null(self.null_value, query), seen], dim=3)
        mixed = (seen * weights[:, :, None]).sum(dim=3)
        gathered: Tensor = self.out(mixed.flatten(1, 2).to(x))
        return gathered

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.heads, -1))

    def _null(self, vector: Tensor, query: Tensor) -> Tensor:
        heads = vector.unflatten(0, (self.heads, -1))[None, :, :, None, None, None]
        batch, _, _, height, width = query.shape
        return heads.to(query).expand(batch, -1, -1, 1, height, width)

    def _null_logit(self, query: Tensor) -> Tensor:
        key = self._null(self.null_key, query)
        return (query[:, :, :, None] * key).sum(dim=2) / sqrt(query.shape[2])

    def _places(self, x: Tensor, reference: Tensor, flow: Tensor) -> Tensor:
        """Return where each head looks, relative: (B, heads, points, 2, h, w)."""
        flow = at_least_float32(flow)
        seen = [x, warp(reference, flow).to(x), flow.to(x)]
        offsets = self.offset_net(torch.cat(seen, dim=1))
        offsets = REACH * torch.tanh(at_least_float32(offsets))
        offsets = offsets.unflatten(1, (self.heads, POINTS, 2))
        grid = self.grid.T.to(flow)[None, None, :, :, None, None]
        return offsets + grid + flow[:, None, None]


def sample(features: Tensor, places: Tensor) -> Tensor:
    """Sample each head's share of features at its places, bilinearly.

    Args:
        features: (B, 2 d, h, w): for all heads keys, then for all heads values.
        places: (B, heads, points, 2, h, w), (right, down) from each position.

    Returns:
        (B, heads, 2 d / heads, points, h, w): a head's keys, then its values.
    """
    batch, heads, points, _, height, _ = places.shape
    keys, values = at_least_float32(features).chunk(2, dim=1)
    parts = [part.unflatten(1, (heads, -1)) for part in (keys, values)]
    shares = torch.cat(parts, dim=2).flatten(0, 1)
    # Points below each other: one tall picture per head, sampled at once.
    offsets = places.flatten(0, 1).transpose(1, 2).flatten(2, 3)
    tall = sample_at(shares, offsets, points)
    return tall.unflatten(0, (batch, heads)).unflatten(3, (points, height))


class AlignmentLayer(nn.Module):
    """Attention to references, then a feed-forward part, both residual."""

    def __init__(self, widths: Widths, references: int) -> None:
        super().__init__()
        d = widths.aligned
        self.norm = nn.GroupNorm(1, d)
        self.attention = DeformableAttention(widths, references)
        self.feed_forward = nn.Sequential(
            nn.GroupNorm(1, d),
            nn.Conv2d(d, 4 * d, 1),
            nn.Conv2d(4 * d, 4 * d, 3, padding=1, groups=4 * d),
            nn.GELU(),
            nn.Conv2d(4 * d, d, 1),
        )

    def forward(self, x: Tensor, references: Tensor, flows: Tensor) -> Tensor:
        """Refine x (B, d, h, w)."""
        x = x + self.attention(self.norm(x), references, flows)
        refined: Tensor = x + self.feed_forward(x)
        return refined


class Alignment(nn.Module):
    """Turns a coarse prediction and references into the temporal context.

    The first layer attends to the newest reference (short-term refinement), the second
    to all of them (long-term motion refinement).

    Args:
        widths: Channels.
        options: Of them ``fgdt``, ``ltmr`` and ``references``: without the first there
            are no layers, without the second only the first one (ablations).
    """

    def __init__(self, widths: Widths, options: Options) -> None:
        super().__init__()
        latent, d = widths.latent, widths.aligned
        # References that each layer sees.
        seen = [1, options.references] if options.ltmr else [1]
        self.coarse = nn.Conv2d(latent, d, 3, padding=1)
        self.reference = nn.Conv2d(latent, d, 1) if options.fgdt else None
        self.layers = nn.ModuleList(
            AlignmentLayer(widths, count) for count in (seen if options.fgdt else [])
        )
        self.tail = nn.Sequential(blocks(d, 2), nn.Conv2d(d, latent, 3, padding=1))

    def forward(self, coarse: Tensor, references: Tensor, flows: Tensor) -> Tensor:
        """Return the temporal context (B, M, h, w).

        Args:
            coarse: (B, M, h, w), the prediction, in units of the current steps.
            references: (B, R, M, h, w), latents of the last frames likewise, the
                newest first.
            flows: To each, (B, R, 2, h, w), in latent positions.
        """
        x = self.coarse(squash(coarse))
        if self.reference is not None:
            known = self.reference(squash(references).flatten(0, 1))
            known = known.unflatten(0, references.shape[:2])
            # The first layer sees the newest, the last of two all that there are.
            for layer, count in zip(self.layers, (1, None), strict=False):
                x = layer(x, known[:, :count], flows[:, :count])
        context: Tensor = self.tail(x)
        return context
