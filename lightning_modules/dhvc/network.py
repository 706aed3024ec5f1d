"""DHVC's network: one bottom-up path, two top-down paths, a latent per scale.

::

                        past features of this scale (auxiliary features)
                                    |                      |
    frame --encoder--> X_l          v                      v
                        |   S_<l --> context predictor --> C_l --> mean, sigma
                        v    |                             |
                   posterior-+                             |
                        |    |                             |
                       mu ---|--(less mean, rounded, coded)--> z_hat
                             |                             |
                             +--> S_l = S_<l + W z_hat     |
                                   |                       v
                                   +-----------> D_l = f(D_<l, C_l, S_l) --> later
                                   v                       |                 frames
                                 S_<l+1                    +--> D_<l+1 .. tail

Scales count from 1, the coarsest. S, the spatial reference, and the posterior never see
another frame; D, the decoded feature, does.

Source: arXiv 2410.02598, sections 4 and 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.clock import uncounted
from lightning_modules.dhvc.blocks import (
    AttentionPredictor,
    BlockStyle,
    LambdaEmbedding,
    ResBlock,
    Stack,
    UNetPredictor,
)
from lightning_modules.dhvc.design import (
    KERNELS,
    PATH_RATIOS,
    Options,
    Recipe,
    Widths,
    latents_of,
)
from lightning_modules.dhvc.entropy_model import LEVELS, gaussians, split_prior
from lightning_modules.entropy.ports import Port
from lightning_modules.float32 import in_float32, island_dtype
from lightning_modules.layers import Pointwise, SubpelUp, at_least_float32


@dataclass(frozen=True)
class Path:
    """Where both top-down paths stand.

    Attributes:
        spatial: (B, C, h, w), S.
        decoded: (B, C, h, w), D; ``None`` if nobody asked for it.
    """

    spatial: Tensor
    decoded: Tensor | None


Feature = tuple[Tensor, ...]
"""What a scale keeps of a frame: one tensor (B, C, h, w) for each of its latents."""


class Pyramid(nn.Module):
    """A bottom-up path: the encoder and, narrower, the auxiliary path.

    Args:
        stem: Stride of the finest level.
        channels: By level, finest first.
        blocks: Residual blocks by level.
        ratio: Of the blocks.
        before_down: Whether a block of kernel 7 goes before each halving.
        down_kernel: Of the convolutions that halve.
        style: Of the blocks.
    """

    def __init__(
        self,
        stem: int,
        channels: tuple[int, ...],
        blocks: tuple[int, ...],
        ratio: float,
        before_down: bool,
        down_kernel: int,
        style: BlockStyle,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels[0], stem, stem)
        self.levels = nn.ModuleList(
            Stack(count, width, kernel, ratio, style)
            for count, width, kernel in zip(blocks, channels, KERNELS, strict=True)
        )
        self.before_down = nn.ModuleList(
            Stack(int(before_down), width, 7, ratio, style) for width in channels[:-1]
        )
        self.down = nn.ModuleList(
            nn.Conv2d(fine, coarse, down_kernel, 2, padding=(down_kernel - 1) // 2)
            for fine, coarse in pairwise(channels)
        )

    def forward(self, frame: Tensor, embedding: Tensor | None) -> list[Tensor]:
        """Map (B, 3, H, W) to its features at every scale, coarsest first."""
        x = self.levels[0](self.stem(frame), embedding)
        found: list[Tensor] = []
        for before, down, level in zip(
            self.before_down, self.down, self.levels[1:], strict=True
        ):
            x = level(down(before(x, embedding)), embedding)
            found.insert(0, x)
        return found


class Posterior(nn.ModuleList):
    """From what a latent observes and what is known of it to its location.

    Args:
        merge: Of all parts.
        mu: The last layer: in float32, for its values are rounded.
        between: Blocks between the two.
    """

    def __init__(self, merge: Pointwise, mu: nn.Conv2d, between: Stack) -> None:
        super().__init__([merge, mu])
        self.between = between

    def forward(self, parts: Tensor, embedding: Tensor | None) -> Tensor:
        """Map (B, C, h, w), all parts, to (B, z, h, w)."""
        return in_float32(self[1], self.between(self[0](parts), embedding))


class LatentBlock(nn.Module):
    """One latent: its posterior, its prior, and what it adds to both paths.

    Args:
        observed: Channels of the encoder at this level.
        channels: Channels of both paths.
        coarser: Channels of the paths one scale before, if the block begins a scale.
        level: Counted from the finest.
        z: Channels of the latent.
        begins: Whether it is the first of all, before which there is no D.
        ends: Whether it is the last of its scale.
        last: Whether it is the last of all, behind which nothing refers to S.
        widths: Of the network.
        options: Of the network.
        style: Of the residual blocks.
    """

    def __init__(
        self,
        observed: int,
        channels: int,
        coarser: int | None,
        level: int,
        z: int,
        begins: bool,
        ends: bool,
        last: bool,
        widths: Widths,
        options: Options,
        style: BlockStyle,
    ) -> None:
        super().__init__()
        c, kernel = channels, KERNELS[level]
        ratio = PATH_RATIOS[level]
        path_block = partial(ResBlock, c, kernel, ratio, style)
        self.around = around = options.layout.blocks_around

        def where(wanted: bool) -> Stack:
            """Return a block of DHVC 1.0 in a place where it has one, or nothing."""
            return Stack(int(around and wanted), c, kernel, ratio, style)

        self.levels = LEVELS[options.structure]
        self.keeps_decoded = options.reference == "decoded"
        self.refers_to_decoded = options.auxiliary or self.keeps_decoded
        self.slots = options.reference_frames
        self.temporal_constant = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.auxiliary_constant = (
            nn.Parameter(torch.zeros(1, c, 1, 1)) if options.auxiliary else None
        )
        self.up_spatial = SubpelUp(coarser, c) if coarser else nn.Identity()
        self.up_decoded = SubpelUp(coarser, c) if coarser else nn.Identity()
        self.enter_spatial = where(bool(coarser))
        self.spatial = path_block()
        self.from_observed = ResBlock(observed, kernel, 2, style)
        self.from_spatial = ResBlock(c, kernel, 2, style)
        mu = nn.Conv2d(c, z, 3, padding=1)
        mu.weight.data *= widths.recipe.latent_gain
        between = Stack(int(around), c, kernel, 2, style)
        self.posterior = Posterior(Pointwise(observed + c, c), mu, between)
        past = (self.slots + options.auxiliary) * c
        self.predictor: nn.Module = (
            AttentionPredictor(c + past, c, *widths.prediction)
            if options.predictor == "attention"
            else UNetPredictor(past, c, kernel, widths.unet, widths.recipe.gain)
        )
        self.prior = Pointwise(c, 2 * z)
        self.log_step: nn.Linear | None = None
        if options.steps == "learned":
            self.log_step = nn.Linear(style.embedding, z)
            nn.init.zeros_(self.log_step.weight)
            nn.init.zeros_(self.log_step.bias)
        self.sees_itself = options.missing == "spatial"
        self.restore = Pointwise(z, c)
        self.end = where(True)
        alone = not coarser if around else begins
        self.decoded = nn.Identity() if alone else path_block()
        self.merge = Pointwise(3 * c, c)
        self.decode = path_block()
        self.leave_spatial = where(ends and not last)
        self.leave_decoded = where(ends)

    def forward(
        self,
        observed: Tensor | None,
        path: Path,
        past: Feature,
        auxiliary: Tensor | None,
        embedding: Tensor | None,
        port: Port,
    ) -> tuple[Path, Tensor]:
        """Code the latent, or decode it where ``observed`` is ``None``.

        Args:
            observed: (B, C, h, w), the encoder's feature.
            path: From the latent before.
            past: Features of the last frames, oldest first, as many as there are up
                to ``reference_frames``; constants stand for the others.
            auxiliary: Feature of the previous reconstruction; ``None`` for a constant.
            embedding: (B, E), of lambda.
            port: Takes or gives the symbols.

        Returns:
            Where the paths stand now, and what later frames may refer to.
        """
        entered = self.enter_spatial(self.up_spatial(path.spatial), embedding)
        spatial = self.spatial(entered, embedding)
        mu = None
        if observed is not None:
            parts = [
                self.from_observed(observed, embedding),
                self.from_spatial(spatial, embedding),
            ]
            mu = self.posterior(self._joined(parts), embedding)
        missing = self.temporal_constant.expand_as(spatial)
        if self.sees_itself:
            missing = missing + spatial
        known = [spatial, *[missing] * (self.slots - len(past)), *past]
        if self.auxiliary_constant is not None:
            if auxiliary is None:
                auxiliary = self.auxiliary_constant.expand_as(spatial)
            known.append(auxiliary)
        context = self.predictor(torch.cat(known, dim=1))
        z_hat = self._code(mu, self.prior(context), embedding, port)
        restored = in_float32(self.restore, z_hat.to(island_dtype(spatial)))
        spatial = self.end(spatial + restored, embedding)
        left = self.leave_spatial(spatial, embedding)
        if path.decoded is None:
            return Path(left, None), spatial
        # Where nothing refers to it, an encoder needs it for a viewer alone.
        with uncounted(unless=observed is None or self.refers_to_decoded):
            decoded = self.up_decoded(path.decoded)
            if isinstance(self.decoded, ResBlock):
                decoded = self.decoded(decoded, embedding)
            parts = [decoded, context, spatial]
            decoded = self.decode(self.merge(self._joined(parts)), embedding)
            path = Path(left, self.leave_decoded(decoded, embedding))
        return path, decoded if self.keeps_decoded else spatial

    def _code(
        self, mu: Tensor | None, prior: Tensor, embedding: Tensor | None, port: Port
    ) -> Tensor:
        """Return the latent as decoded, (B, z, h, w), from its location or without."""
        if self.log_step is None:
            mean, sigma = split_prior(prior, self.levels)
            residual = None if mu is None else at_least_float32(mu) - mean
            return mean + port.code(residual, gaussians(sigma, self.levels))
        assert embedding is not None
        log_step = at_least_float32(in_float32(self.log_step, embedding))
        log_step = log_step[:, :, None, None]
        step = log_step.exp()
        mean, sigma = split_prior(prior, self.levels, log_step)
        residual = None if mu is None else (at_least_float32(mu) - mean) / step
        return mean + step * port.code(residual, gaussians(sigma, self.levels))

    def _joined(self, parts: list[Tensor]) -> Tensor:
        """Join parts whose last one is S, which DHVC 1.0 has first."""
        return torch.cat([parts[-1], *parts[:-1]] if self.around else parts, dim=1)


class Scale(nn.ModuleList):
    """The latents of one scale, in coding order."""

    def forward(
        self,
        observed: Tensor | None,
        path: Path,
        past: tuple[Feature, ...],
        auxiliary: Tensor | None,
        embedding: Tensor | None,
        port: Port,
    ) -> tuple[Path, Feature]:
        """Code or decode each; see :class:`LatentBlock`.

        ``past`` holds the scale's features of the last frames, oldest first; the second
        part of the result is that of this one.
        """
        feature: list[Tensor] = []
        for number, latent in enumerate(self):
            own_past = tuple(frame[number] for frame in past)
            path, own = latent(observed, path, own_past, auxiliary, embedding, port)
            feature.append(own)
        return path, tuple(feature)


class Tail(nn.Module):
    """From the last scale's decoded feature to pixels."""

    def __init__(self, coarser: int, channels: int, stem: int, blocks: Stack) -> None:
        super().__init__()
        self.up = SubpelUp(coarser, channels)
        self.blocks = blocks
        self.out = Pointwise(channels, 3 * stem**2)
        self.stem = stem

    def forward(self, decoded: Tensor, embedding: Tensor | None) -> Tensor:
        """Map (B, C, h, w) at the finest scale's stride to (B, 3, H, W)."""
        pixels = self.out(self.blocks(self.up(decoded), embedding))
        return F.pixel_shuffle(pixels, self.stem)


class DHVCNetwork(nn.Module):
    """The transforms of one frame; knows nothing of padding, state or bytes.

    Args:
        widths: Channels and depths.
        options: What ablations change.
    """

    def __init__(self, widths: Widths, options: Options) -> None:
        super().__init__()
        w = widths
        embedding = w.embedding if options.variable_rate else 0
        style = BlockStyle(embedding, w.recipe.gain)
        self.options = options
        self.recipe = w.recipe
        self.count = len(options.strides)
        self.latents = latents_of(w, options)
        stem = options.strides[-1] // 2
        self.embedding: nn.Module = (
            LambdaEmbedding(embedding) if embedding else nn.Identity()
        )
        layout = options.layout
        down = layout.down
        counts = w.encoder_blocks_1 if layout.blocks_around else w.encoder_blocks
        self.encoder = Pyramid(stem, w.encoder, counts, 2, True, down, style)
        # Always there, so that a schedule can name it as frozen.
        self.auxiliary: nn.Module = nn.Identity()
        if options.auxiliary:
            count, ratio = w.auxiliary
            counts = (count,) * len(w.decoder)
            self.auxiliary = Pyramid(stem, w.decoder, counts, ratio, False, down, style)
        coarsest = w.decoder[-1]
        self.spatial_constant = nn.Parameter(torch.zeros(1, coarsest, 1, 1))
        self.decoded_constant = (
            None
            if layout.blocks_around
            else nn.Parameter(torch.zeros(1, coarsest, 1, 1))
        )
        for number, latents in enumerate(self.latents, start=1):
            level = len(w.decoder) - number
            blocks = (
                LatentBlock(
                    observed=w.encoder[level],
                    channels=w.decoder[level],
                    coarser=w.decoder[level + 1] if number > 1 and not i else None,
                    level=level,
                    z=z,
                    begins=number == 1 and not i,
                    ends=i == len(latents) - 1,
                    last=number == self.count,
                    widths=w,
                    options=options,
                    style=style,
                )
                for i, z in enumerate(latents)
            )
            # By name, so that schedules and tables can name each scale.
            self.add_module(f"scale{number}", Scale(blocks))
        finest = Stack(w.tail, w.decoder[0], KERNELS[0], PATH_RATIOS[0], style)
        self.tail = Tail(w.decoder[1], w.decoder[0], stem, finest)

    def begin_by(self, recipe: Recipe) -> None:
        """Set how training begins; the network must not have trained yet."""
        for module in self.modules():
            if isinstance(module, ResBlock):
                nn.init.constant_(module.gain, recipe.gain)
            elif isinstance(module, LatentBlock):
                weights = module.posterior[1].get_parameter("weight")
                weights.data *= recipe.latent_gain / self.recipe.latent_gain
        self.recipe = recipe

    @property
    def like(self) -> Tensor:
        """A parameter: says device and dtype."""
        return self.spatial_constant

    def embed(self, lmbda: Tensor) -> Tensor | None:
        """Return the embedding (B, E) of each sample's lambda (B,)."""
        if not self.options.variable_rate:
            return None
        # Neighbours among lambdas differ in the last digits of bfloat16.
        return in_float32(self.embedding, lmbda)

    def refer(
        self, previous: Tensor | None, embedding: Tensor | None
    ) -> Sequence[Tensor | None]:
        """Return auxiliary features by scale; none where there is no such frame."""
        if previous is None or not self.options.auxiliary:
            return [None] * self.count
        return self.auxiliary(previous, embedding)

    def start(self, shape: tuple[int, int, int], decode: bool) -> Path:
        """Return where both paths begin; the shape is batch, height and width."""
        batch, height, width = shape
        stride = self.options.strides[0]
        times = (batch, 1, height // stride, width // stride)
        # Copies: without gradients a view of a parameter still asks for one, which the
        # counter of MACs does not bear.
        spatial = self.spatial_constant.repeat(times)
        if not decode:
            return Path(spatial, None)
        constant = self.decoded_constant
        if constant is None:
            return Path(spatial, torch.zeros_like(spatial))
        return Path(spatial, constant.repeat(times))

    def symbols(self, number: int, shape: tuple[int, int, int]) -> dict[str, int]:
        """Return how many symbols a scale of a padded frame takes, by table."""
        stride = self.options.strides[number - 1]
        channels = sum(self.latents[number - 1])
        return {"z": channels * prod(shape) // stride**2}

    def scale(self, number: int) -> Scale:
        """Return scale ``number``, from 1, the coarsest."""
        found = self.get_submodule(f"scale{number}")
        assert isinstance(found, Scale)
        return found
