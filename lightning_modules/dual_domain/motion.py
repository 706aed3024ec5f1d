"""The motion codec: a flow becomes symbols and a flow again.

It is coded against one reference only; flows to older ones follow by composition.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from lightning_modules.dual_domain.design import Widths
from lightning_modules.dual_domain.entropy_model import bounded_log_scale, code_values
from lightning_modules.dual_domain.experts import SLOPE
from lightning_modules.dual_domain.transforms import (
    LATENT_GAIN,
    HyperDecoder,
    HyperEncoder,
    ResidualBlock,
    down,
    squash,
    up,
)
from lightning_modules.entropy.distributions import Factorised
from lightning_modules.entropy.ports import Port
from lightning_modules.entropy.priors import HYPER_STRIDE
from lightning_modules.entropy.z_prior import PriorForm, build_prior
from lightning_modules.float32 import Float32Ends
from lightning_modules.frames import pad_to_multiple
from lightning_modules.layers import at_least_float32


@dataclass(frozen=True)
class MotionTarget:
    """What the encoder wants to code of a flow.

    Attributes:
        values: (B, C, H/16, W/16), in units of symbols.
        z: (B, C_z, H/64, W/64).
    """

    values: Tensor
    z: Tensor


class _Gain(nn.Module):
    """A factor per channel that grows with quality."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(channels))
        self.slope = nn.Parameter(torch.full((channels,), SLOPE))

    def forward(self, quality: Tensor) -> Tensor:
        """Return (B, C, 1, 1)."""
        exponent = self.start + self.slope * quality[:, None]
        return exponent.exp()[..., None, None]


class MotionEncoder(nn.Module):
    """The encoder's half of the transforms of a flow.

    Args:
        widths: Channels.
    """

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        n, latent = widths.motion, widths.motion_latent
        layers: list[nn.Module] = []
        before = 2
        for _ in range(3):
            layers += [down(before, n), ResidualBlock(n)]
            before = n
        last = down(n, latent)
        last.weight.data *= LATENT_GAIN
        self.encoder = Float32Ends(*layers, last, first=True, last=True)
        self.hyper_encoder = HyperEncoder(latent, n, widths.motion_z)
        self.gain = _Gain(latent)

    def forward(self, flow: Tensor, quality: Tensor) -> MotionTarget:
        """Return what to code of a flow (B, 2, H, W), sides multiples of 16."""
        values = self.encoder(flow) * self.gain(quality)
        padded = pad_to_multiple(squash(values), HYPER_STRIDE)
        return MotionTarget(values, self.hyper_encoder(padded.to(flow)))


class MotionDecoder(nn.Module):
    """The entropy model of a flow, and the decoder's half of its transforms.

    Args:
        widths: Channels.
        z_prior: Form of its z's distribution.
    """

    def __init__(self, widths: Widths, z_prior: PriorForm) -> None:
        super().__init__()
        n = widths.motion
        self.latent = latent = widths.motion_latent
        layers: list[nn.Module] = []
        before = latent
        for _ in range(3):
            layers += [up(before, n), ResidualBlock(n)]
            before = n
        self.decoder = Float32Ends(*layers, up(n, 2), first=True, last=True)
        self.hyper_decoder = HyperDecoder(widths.motion_z, n, 2 * latent)
        self.z_prior = build_prior(z_prior, widths.motion_z)
        self.gain = _Gain(latent)

    def symbols(self, shape: tuple[int, int, int]) -> dict[str, int]:
        """Return how many symbols a flow takes, by the names of tables."""
        values = self.latent * prod(shape)
        return {"motion": prod(self.z_prior.shape(*shape)), "symbols": values}

    def forward(
        self,
        target: MotionTarget | None,
        quality: Tensor,
        shape: tuple[int, int, int],
        port: Port,
        *,
        centred: bool = False,
    ) -> Tensor:
        """Code a flow's symbols and return the decoded flow (B, 2, H, W).

        Args:
            target: ``None`` to decode.
            quality: (B,).
            shape: Batch, height and width of the latent.
            port: Takes or gives the symbols.
            centred: As in :func:`code_values`.
        """
        batch, height, width = shape
        z_shape = self.z_prior.shape(batch, height, width)
        z = None if target is None else at_least_float32(target.z)
        like = self.z_prior.like
        z_hat = port.code(z, Factorised(self.z_prior, z_shape, "motion"))
        prior = self.hyper_decoder(z_hat.to(like))[..., :height, :width]
        mean, raw = at_least_float32(prior).chunk(2, dim=1)
        values = code_values(
            None if target is None else target.values,
            mean,
            bounded_log_scale(raw),
            port,
            "motion",
            centred=centred,
        )
        flow = self.decoder((values / self.gain(quality)).to(like))
        return at_least_float32(flow)
