"""LeanVAE: wavelets, patches, depthwise convolutions and compressed sensing.

Source: arXiv 2503.14325. The head for a variance and the loss on it are left out: a
codec neither samples nor asks the latent to be a normal distribution.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.float32 import widened
from lightning_modules.layers import Dense
from lightning_modules.video_vae.backbone import Backbone, Run
from lightning_modules.video_vae.wavelets import (
    FRAME_AXES,
    PAIR_AXES,
    haar,
    inverse_haar,
)

PATCH = 4
"""Positions of the wavelet domain along each side of a patch."""

WEIGHT_SPREAD = 0.02
"""Standard deviation of a linear layer's first weights."""


@dataclass(frozen=True)
class LeanVAEWidths:
    """Channels and depths.

    Attributes:
        low: Channels of the low band's tokens.
        high: Channels of the other bands' tokens.
        separate: Layers on each of them alone.
        fused: Layers on both together.
        iterations: Steps of the recovery from the latent.
        recovery: Layers of each network in such a step.
    """

    low: int
    high: int
    separate: int
    fused: int
    iterations: int
    recovery: int


LEAN_VAE_WIDTHS = {
    "paper": LeanVAEWidths(128, 384, 2, 4, 2, 2),
    "small": LeanVAEWidths(64, 192, 1, 2, 2, 1),
    "mini": LeanVAEWidths(48, 96, 1, 2, 1, 1),
    "tiny": LeanVAEWidths(32, 96, 1, 1, 1, 1),
}
"""By the names that ``build_backbone`` takes."""


class TokenLayer(nn.Module):
    """A causal depthwise convolution, then a gated layer on each token.

    Args:
        width: Channels of a token.
        residual: Whether each of the two is added to its input.
    """

    def __init__(self, width: int, residual: bool) -> None:
        super().__init__()
        hidden = int(8 / 3 * width)
        self.residual = residual
        self.depthwise = nn.Conv3d(width, width, 3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = Dense(width, 2 * hidden, bias=False)
        self.narrow = Dense(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, t, h, w, C) to as many."""
        mixed = self._mix(x)
        x = x + mixed if self.residual else mixed
        value, gate = self.widen(self.norm(x)).chunk(2, dim=-1)
        gated = self.narrow(F.gelu(gate) * value)
        return x + gated if self.residual else gated

    def _mix(self, x: Tensor) -> Tensor:
        # A 2-D convolution for each delay, which views the tokens as they lie in
        # memory: three to six times faster to train on a CPU than the 3-D one.
        mixed = self._mix_frames(x, 0)
        for delay in range(1, min(x.shape[1], 3)):
            mixed[:, delay:] += self._mix_frames(x[:, :-delay], delay)
        return mixed

    def _mix_frames(self, x: Tensor, delay: int) -> Tensor:
        frames = F.conv2d(
            x.flatten(0, 1).movedim(-1, 1),
            self.depthwise.weight[:, :, 2 - delay],
            None if delay else self.depthwise.bias,
            padding=1,
            groups=x.shape[-1],
        )
        return frames.movedim(1, -1).unflatten(0, x.shape[:2])


def token_layers(count: int, width: int, residual: bool = True) -> nn.Sequential:
    """Return ``count`` layers one after the other."""
    return nn.Sequential(*(TokenLayer(width, residual) for _ in range(count)))


class PatchLayers(nn.ModuleDict):
    """Linear layers between tokens and patches of bands, without overlap.

    Args:
        widths: Of the tokens.
        to_tokens: The direction.
    """

    def __init__(self, widths: LeanVAEWidths, to_tokens: bool) -> None:
        layers = {}
        for kind, bands, frames in (("image", 4, 1), ("video", 8, 2)):
            samples = 3 * frames * PATCH**2
            for part, token, patch in (
                ("low", widths.low, samples),
                ("high", widths.high, (bands - 1) * samples),
            ):
                sides = (patch, token) if to_tokens else (token, patch)
                layers[f"{kind}_{part}"] = Dense(*sides)
        super().__init__(layers)


class LeanEncoder(nn.Module):
    """From a clip to its latent; built of what :class:`LeanVAE` is."""

    def __init__(self, channels: int, widths: LeanVAEWidths) -> None:
        super().__init__()
        width = widths.low + widths.high
        self.patches = PatchLayers(widths, to_tokens=True)
        self.low = token_layers(widths.separate, widths.low)
        self.high = token_layers(widths.separate, widths.high)
        self.fused = token_layers(widths.fused, width)
        self.sensing = nn.Linear(width, channels, bias=False)

    def forward(self, clip: Tensor, run: Run) -> Tensor:
        """Map (B, 3, 4 n + 1, H, W) in [-0.5, 0.5] to (B, c, n + 1, H / 8, W / 8)."""
        low, high = self._tokens(haar(clip[:, :, :1], FRAME_AXES), "image")
        if clip.shape[2] > 1:
            pairs = self._tokens(haar(clip[:, :, 1:], PAIR_AXES), "video")
            low = torch.cat([low, pairs[0]], dim=1)
            high = torch.cat([high, pairs[1]], dim=1)
        parts = [run(self.low, low), run(self.high, high)]
        tokens = run(self.fused, torch.cat(parts, dim=-1))
        return self.sensing(tokens).movedim(-1, 1)

    def _tokens(self, bands: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        frames = 1 if kind == "image" else 2
        # (B, C, t, pt, h, ph, w, pw) to (B, t, h, w, C, pt, ph, pw)
        patches = (
            bands.unflatten(4, (-1, PATCH))
            .unflatten(3, (-1, PATCH))
            .unflatten(2, (-1, frames))
            .permute(0, 2, 4, 6, 1, 3, 5, 7)
        )
        low, high = patches[..., :3, :, :, :], patches[..., 3:, :, :, :]
        return (
            self.patches[f"{kind}_low"](low.flatten(4)),
            self.patches[f"{kind}_high"](high.flatten(4)),
        )


class Iteration(nn.Module):
    """A step of the recovery: towards the latent, then towards what clips look like.

    Args:
        width: Channels of a token.
        layers: Of each of the two networks.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.tensor(1.0))
        self.threshold = nn.Parameter(torch.tensor([0.01]))
        self.analysis = token_layers(layers, width, residual=False)
        self.synthesis = token_layers(layers, width, residual=False)

    def forward(self, tokens: Tensor, latent: Tensor, phi: Tensor) -> Tensor:
        """Improve tokens (B, t, h, w, C), whose sensing ``phi`` gives the latent."""
        error = F.linear(tokens, phi) - latent
        tokens = tokens - self.step * (error @ phi)
        sparse = self.analysis(tokens)
        sparse = sparse.sign() * F.relu(sparse.abs() - self.threshold)
        return tokens + self.synthesis(sparse)


class LeanDecoder(nn.Module):
    """From a latent back to its clip; built of what :class:`LeanVAE` is."""

    def __init__(self, channels: int, widths: LeanVAEWidths) -> None:
        super().__init__()
        width = widths.low + widths.high
        self.split = [widths.low, widths.high]
        self.guess = nn.Linear(channels, width, bias=False)
        self.iterations = nn.ModuleList(
            Iteration(width, widths.recovery) for _ in range(widths.iterations)
        )
        self.fused = token_layers(widths.fused, width)
        self.low = token_layers(widths.separate, widths.low)
        self.high = token_layers(widths.separate, widths.high)
        self.patches = PatchLayers(widths, to_tokens=False)

    def forward(self, latent: Tensor, phi: Tensor, run: Run) -> Tensor:
        """Map (B, c, n + 1, h, w) to (B, 3, 4 n + 1, 8 h, 8 w), near [-0.5, 0.5].

        ``phi``, (c, C), is the weight of the encoder's sensing.
        """
        latent = latent.movedim(1, -1)
        tokens = self.guess(latent)
        for iteration in self.iterations:
            tokens = run(iteration, tokens, latent, phi)
        parts = run(self.fused, tokens).split(self.split, dim=-1)
        low, high = run(self.low, parts[0]), run(self.high, parts[1])
        first = self._bands(low[:, :1], high[:, :1], "image")
        clip = inverse_haar(first, FRAME_AXES)
        if latent.shape[1] == 1:
            return clip
        pairs = self._bands(low[:, 1:], high[:, 1:], "video")
        return torch.cat([clip, inverse_haar(pairs, PAIR_AXES)], dim=2)

    def _bands(self, low: Tensor, high: Tensor, kind: str) -> Tensor:
        frames = 1 if kind == "image" else 2
        parts = [self.patches[f"{kind}_low"](low), self.patches[f"{kind}_high"](high)]
        # (B, t, h, w, C, pt, ph, pw) to (B, C, t, pt, h, ph, w, pw)
        # Samples are sums of bands, most of which cancel.
        return (
            widened(torch.cat(parts, dim=-1))
            .unflatten(-1, (-1, frames, PATCH, PATCH))
            .permute(0, 4, 1, 5, 2, 6, 3, 7)
            .flatten(6, 7)
            .flatten(4, 5)
            .flatten(2, 3)
        )


class LeanVAE(Backbone):
    """The light backbone. Encoder and decoder are causal: no step sees a later one.

    Args:
        channels: Of the latent.
        widths: Channels and depths.
    """

    encoder: LeanEncoder
    decoder: LeanDecoder
    low = -0.5
    high = 0.5

    def __init__(self, channels: int, widths: LeanVAEWidths) -> None:
        super().__init__(channels)
        self.encoder = LeanEncoder(channels, widths)
        self.decoder = LeanDecoder(channels, widths)
        self.apply(_initialise)
        phi, guess = self.encoder.sensing.weight, self.decoder.guess.weight
        nn.init.normal_(phi, std=phi.shape[1] ** -0.5)
        with torch.no_grad():
            guess.copy_(phi.T)

    def _encode(self, clip: Tensor) -> Tensor:
        return self.encoder(clip, self.run)

    def _decode(self, latent: Tensor) -> Tensor:
        return self.decoder(latent, self.encoder.sensing.weight, self.run)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=WEIGHT_SPREAD)
    elif isinstance(module, nn.Conv3d):
        nn.init.xavier_uniform_(module.weight)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)
