"""The latent codec: a video VAE's latent to few symbols, and back.

Source: the layer table of the paper's figure is not public. Kernels, numbers of layers
and the spatial stride are choices, which its text allows: 3-D convolutions throughout,
the latent's channels everywhere, and no stride in time.
"""

from math import prod

from torch import Tensor, nn

from lightning_modules.entropy.distributions import Factorised
from lightning_modules.entropy.ports import Port
from lightning_modules.entropy.z_prior import PriorForm, build_prior
from lightning_modules.float32 import Float32Ends
from lightning_modules.video_vae.context import CHANNEL_CONTEXT, SpaceChannelContext

BLOCKS = 3
"""Residual blocks between two changes of resolution (ELIC's)."""


class Bottleneck(nn.Sequential):
    """A residual block of half the width inside."""

    def __init__(self, channels: int) -> None:
        half = channels // 2
        super().__init__(
            nn.Conv3d(channels, half, 1),
            nn.ReLU(inplace=True),
            nn.Conv3d(half, half, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv3d(half, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, t, h, w) to as much."""
        return x + super().forward(x)


def _blocks(channels: int) -> list[nn.Module]:
    return [Bottleneck(channels) for _ in range(BLOCKS)]


def _same(inputs: int, outputs: int) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, 3, padding=1)


def _halve(channels: int) -> nn.Conv3d:
    return nn.Conv3d(channels, channels, 3, stride=(1, 2, 2), padding=1)


def _double(inputs: int, outputs: int) -> nn.ConvTranspose3d:
    return nn.ConvTranspose3d(
        inputs, outputs, (3, 4, 4), stride=(1, 2, 2), padding=(1, 1, 1)
    )


class LatentCodec(nn.Module):
    """Transforms, hyperprior and context on the latent of a video VAE.

    Args:
        channels: Of the latent, of y and of z.
        halvings: How often y's sides are half of the latent's: 0, 1 or 2.
        groups: Sizes of the context's channel groups.
        z_prior: Form of z's distribution.
        narrower: Divisor of the context's inner widths, for sizes below the paper's.
    """

    def __init__(
        self,
        channels: int,
        halvings: int,
        groups: tuple[int, ...],
        z_prior: PriorForm,
        narrower: int = 1,
    ) -> None:
        super().__init__()
        analysis = _blocks(channels)
        synthesis: list[nn.Module] = [_same(channels, channels), *_blocks(channels)]
        for _ in range(halvings):
            analysis += [_halve(channels), *_blocks(channels)]
            synthesis += [_double(channels, channels), *_blocks(channels)]
        self.encoder = Float32Ends(*analysis, _same(channels, channels), last=True)
        end = _same(channels, channels)
        self.decoder = Float32Ends(*synthesis, end, first=True)
        self.hyper_encoder = nn.Sequential(
            _same(channels, channels),
            nn.ReLU(),
            _halve(channels),
            nn.ReLU(),
            _halve(channels),
        )
        wider = channels * 3 // 2
        self.hyper_decoder = nn.Sequential(
            _double(channels, channels),
            nn.ReLU(),
            _double(channels, wider),
            nn.ReLU(),
            _same(wider, 2 * channels),
        )
        self.prior = build_prior(z_prior, channels)
        first, second = CHANNEL_CONTEXT
        inner = (first // narrower, second // narrower)
        self.context = SpaceChannelContext(groups, 2 * channels, inner)
        self.channels = channels

    def forward(self, latent: Tensor, port: Port) -> Tensor:
        """Code a latent (B, C, t, h, w) and return what the decoder makes of it."""
        y = self.encoder(latent)
        decoded: Tensor = self.decoder(self.code(y, y.shape, port))
        return decoded

    def symbols(self, shape: tuple[int, ...]) -> dict[str, int]:
        """Return how many symbols a y of a shape (1, C, t, h, w) takes, by table."""
        return {"z": prod(self._z_shape(shape)), "y": prod(shape)}

    def _z_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        batch, channels, steps, height, width = shape
        return batch, channels, steps, *self.prior.shape(1, height, width)[2:]

    def code(self, y: Tensor | None, shape: tuple[int, ...], port: Port) -> Tensor:
        """Code y and return y_hat, both (B, C, t, h, w).

        Args:
            y: ``None`` to decode.
            shape: Of y; its sides are multiples of 4.
            port: Takes or gives the symbols.
        """
        z = None if y is None else self.hyper_encoder(y).float()
        z_hat = port.code(z, Factorised(self.prior, self._z_shape(shape)))
        hyper = self.hyper_decoder(z_hat.to(self.prior.like.dtype))
        folded = None if y is None else _fold(y)
        y_hat: Tensor = self.context(folded, _fold(hyper), port)
        return y_hat.unflatten(0, (shape[0], shape[2])).transpose(1, 2)


def _fold(x: Tensor) -> Tensor:
    """Make time a part of the batch: (B, C, t, h, w) to (B t, C, h, w)."""
    return x.transpose(1, 2).flatten(0, 1)
