"""The blocks that DHVC's networks are made of.

Source: DHVC 2.0 (arXiv 2410.02598, section 5 and Fig. 6); the lambda embedding and
the branch gain are QARV's (arXiv 2302.08899), the attention of the prediction blocks
is SimVP v2's (arXiv 2211.12509), the U-Net DHVC 1.0's (arXiv 2312.07126).
"""

from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.layers import Dense, Pointwise

FREQUENCIES = 64.0
LARGEST_LMBDA = 8192.0
NORM_EPS = 1e-6
MODULATION_STD = 1e-3


class LambdaEmbedding(nn.Module):
    """Turn a Lagrangian into what every adaptive layer norm is modulated by.

    Args:
        width: Of the embedding, E.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        enter, leave = nn.Linear(width, width), nn.Linear(width, width)
        for layer in (enter, leave):
            # Torch's own start leaves a signal of 5 %, and 2 % of it tells one lambda
            # from another: thousands of steps in which lambda does nothing.
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        # The last one once here, and not in every block.
        self.layers = nn.Sequential(enter, nn.GELU(), leave, nn.GELU())

    def forward(self, lmbda: Tensor) -> Tensor:
        """Map (B,) to (B, E): sinusoids of its logarithm, then two layers."""
        like = next(self.parameters())
        half = self.width // 2
        dtype = torch.promote_types(like.dtype, torch.float32)
        steps = torch.arange(half, dtype=dtype, device=like.device)
        frequencies = FREQUENCIES ** (-steps / (half - 1))
        position = FREQUENCIES * lmbda.to(dtype).log() / log(LARGEST_LMBDA)
        angles = position[:, None] * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        embedded: Tensor = self.layers(waves.to(like.dtype))
        return embedded


@dataclass(frozen=True)
class BlockStyle:
    """What all residual blocks of a network have in common.

    Attributes:
        embedding: Width E of the lambda embedding that their layer norm follows; 0 if
            it has weights of its own.
        gain: Initial gain of the residual branch.
    """

    embedding: int
    gain: float


class DepthwiseConv(nn.Conv2d):
    """A depthwise convolution that keeps the size.

    With a kernel of 1 it is a product, for which torch on a CPU would run a general
    convolution once per channel.
    """

    def __init__(self, channels: int, kernel: int, dilation: int = 1) -> None:
        super().__init__(
            channels,
            channels,
            kernel,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=channels,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        if self.kernel_size == (1, 1):
            assert self.bias is not None
            return x * self.weight[:, 0] + self.bias[:, None, None]
        return super().forward(x)


class ResBlock(nn.Module):
    """A ConvNeXt block whose layer norm is modulated by the lambda embedding.

    Args:
        channels: In and out.
        kernel: Side of the depthwise convolution, odd.
        ratio: Width of the hidden layer over ``channels``.
        style: Of the network.
    """

    def __init__(
        self, channels: int, kernel: int, ratio: float, style: BlockStyle
    ) -> None:
        super().__init__()
        hidden = int(ratio * channels)
        self.spatial = DepthwiseConv(channels, kernel)
        self.norm = nn.LayerNorm(channels, NORM_EPS, not style.embedding)
        self.modulation: nn.Module = nn.Identity()
        if style.embedding:
            self.modulation = nn.Linear(style.embedding, 2 * channels)
            # What lambda does begins near nothing: a random modulation is noise, and
            # training silences the embedding before it finds a use for it.
            nn.init.normal_(self.modulation.weight, std=MODULATION_STD)
            nn.init.zeros_(self.modulation.bias)
        self.expand = Dense(channels, hidden)
        self.reduce = Dense(hidden, channels)
        self.gain = nn.Parameter(torch.full((channels,), style.gain))
        self.adaptive = bool(style.embedding)

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """Map (B, C, H, W) to the same shape.

        Args:
            x: Features.
            embedding: (B, E); not used by blocks that are not adaptive.
        """
        y = self.norm(self.spatial(x).permute(0, 2, 3, 1))
        if self.adaptive:
            assert embedding is not None
            modulation = self.modulation(embedding)[:, None, None]
            shift, scale = modulation.chunk(2, dim=-1)
            y = y * (1.0 + scale) + shift
        y = self.reduce(F.gelu(self.expand(y))) * self.gain
        out: Tensor = x + y.permute(0, 3, 1, 2)
        return out


class Stack(nn.ModuleList):
    """Residual blocks in a row."""

    def __init__(
        self, count: int, channels: int, kernel: int, ratio: float, style: BlockStyle
    ) -> None:
        super().__init__(ResBlock(channels, kernel, ratio, style) for _ in range(count))

    def forward(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        for block in self:
            x = block(x, embedding)
        return x


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each position by itself."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PredictionBlock(nn.Module):
    """A spatial-temporal prediction block: attention by convolution, then an MLP.

    ``x += u sigmoid(W conv7, dilated by 3 (conv5(u)))`` with ``u = norm(x)``, both
    convolutions depthwise; then ``x += mlp(norm(x))``. No input of lambda.
    """

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        c = channels
        near, far = DepthwiseConv(c, 5), DepthwiseConv(c, 7, dilation=3)
        for conv in (near, far):
            # At 1/64 a crop of 256 pixels is 4 positions wide: what reaches further
            # never trains, and would be noise in every larger picture.
            nn.init.dirac_(conv.weight, groups=c)
        self.norm_attention = ChannelNorm(c, NORM_EPS)
        self.attention = nn.Sequential(near, far, Pointwise(c, c))
        self.norm_mlp = ChannelNorm(c, NORM_EPS)
        self.mlp = nn.Sequential(
            Pointwise(c, ratio * c), nn.GELU(), Pointwise(ratio * c, c)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        u = self.norm_attention(x)
        x = x + u * torch.sigmoid(self.attention(u))
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out


class AttentionPredictor(nn.Sequential):
    """Predict a context from everything a scale knows: DHVC 2.0's.

    Args:
        inputs: Channels of spatial, temporal and auxiliary references together.
        channels: Of the context.
        blocks: Prediction blocks.
        ratio: Of their MLP.
    """

    def __init__(self, inputs: int, channels: int, blocks: int, ratio: int) -> None:
        super().__init__(
            Pointwise(inputs, channels),
            *(PredictionBlock(channels, ratio) for _ in range(blocks)),
        )


class UNet(nn.Module):
    """Four levels down, four up, skips in between, and all at one resolution.

    Args:
        inputs: Channels that come in.
        channels: Channels that go out.
        kernel: Of the residual blocks.
        hidden: Width of the levels.
        style: Of the residual blocks; they have no lambda embedding.
    """

    def __init__(
        self, inputs: int, channels: int, kernel: int, hidden: int, style: BlockStyle
    ) -> None:
        super().__init__()

        def block(width: int) -> ResBlock:
            return ResBlock(width, kernel, 2, style)

        self.enter = nn.Conv2d(inputs, hidden, 3, padding=1)
        self.down = nn.ModuleList(block(hidden) for _ in range(3))
        self.middle = block(hidden)
        self.up = nn.ModuleList(block(2 * hidden) for _ in range(2))
        self.narrow = nn.ModuleList(
            nn.Conv2d(2 * hidden, hidden, 3, padding=1) for _ in range(2)
        )
        self.leave = nn.Conv2d(2 * hidden, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, channels, H, W)."""
        skips = [self.enter(x)]
        for block in self.down:
            skips.append(block(skips[-1], None))
        x = self.middle(skips.pop(), None)
        for block, narrow in zip(self.up, self.narrow, strict=True):
            x = narrow(block(torch.cat([x, skips.pop()], dim=1), None))
        out: Tensor = self.leave(torch.cat([x, skips.pop()], dim=1))
        return out


class UNetPredictor(nn.Module):
    """Predict a context in two steps, from the past, then with the present: 1.0's.

    Args:
        past: Channels of temporal and auxiliary references together.
        channels: Of the spatial reference and of the context.
        kernel: Of the residual blocks.
        hidden: Width of the U-Nets.
        gain: Initial gain of the residual branches.
    """

    def __init__(
        self, past: int, channels: int, kernel: int, hidden: int, gain: float
    ) -> None:
        super().__init__()
        style = BlockStyle(0, gain)
        self.channels = channels
        self.temporal = UNet(past, channels, kernel, hidden, style)
        self.fusion = UNet(2 * channels, channels, kernel, hidden, style)
        self.end = ResBlock(channels, kernel, 2, style)

    def forward(self, known: Tensor) -> Tensor:
        """Map the spatial reference followed by all others to a context."""
        present, past = known[:, : self.channels], known[:, self.channels :]
        fused = self.fusion(torch.cat([present, self.temporal(past)], dim=1))
        context: Tensor = self.end(fused, None)
        return context
