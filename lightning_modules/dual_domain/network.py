"""DualDomain's transforms of one frame; knows nothing of padding or bytes.

The invariants of the codec can be read off the arguments: :meth:`analyse` and
:meth:`synthesise` have none that stems from another frame. What does, enters
:meth:`code` alone, where it decides what symbols cost.
"""

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum
from math import prod

import torch
from torch import Tensor, nn

from lightning_modules.dual_domain.alignment import Alignment
from lightning_modules.dual_domain.design import LATENT_STRIDE, Options, Widths
from lightning_modules.dual_domain.entropy_model import ContextModel
from lightning_modules.dual_domain.experts import StepScale, regularisers
from lightning_modules.dual_domain.flow import FlowNet, compose, to_latent_scale, warp
from lightning_modules.dual_domain.motion import (
    MotionDecoder,
    MotionEncoder,
    MotionTarget,
)
from lightning_modules.dual_domain.transforms import (
    ConditionalDecoder,
    Decoder,
    Encoder,
    HyperDecoder,
    HyperEncoder,
    squash,
)
from lightning_modules.entropy.distributions import Factorised
from lightning_modules.entropy.ports import Port
from lightning_modules.entropy.priors import HYPER_STRIDE
from lightning_modules.entropy.z_prior import build_prior
from lightning_modules.frames import pad_to_multiple
from lightning_modules.layers import at_least_float32


@dataclass(frozen=True)
class Target:
    """What the encoder wants to code of a frame.

    Attributes:
        y: The latent (B, C, h, w).
        values: The same in units of symbols; ``None`` where steps follow from z.
        z: The hyper-latent.
    """

    y: Tensor
    values: Tensor | None
    z: Tensor


@dataclass(frozen=True)
class Reference:
    """What a decoded frame leaves to the next ones.

    Attributes:
        x_hat: (B, 3, H, W), padded, in [0, 1].
        y_hat: Its latent (B, C, h, w).
        flow: (B, 2, H, W), to the frame before it; ``None`` without pixel alignment.
    """

    x_hat: Tensor
    y_hat: Tensor
    flow: Tensor | None


State = tuple[Reference, ...]
"""The last frames, the newest first; none before an intra frame."""


class Mode(IntEnum):
    """How a frame is coded."""

    INTRA = 0
    INTER = 1
    STILL = 2


@dataclass(frozen=True)
class Coded:
    """A frame's own symbols: all that its pixels depend on.

    Attributes:
        values: (B, C, h, w), whole numbers (unless they are mean-centred).
        hyper: (B, C, h, w), features from z.
    """

    values: Tensor
    hyper: Tensor


class DualDomainNetwork(nn.Module):
    """The networks that code one frame.

    Args:
        widths: Channels and depths.
        options: What the ablations change.
    """

    def __init__(self, widths: Widths, options: Options) -> None:
        super().__init__()
        self.options = options
        self.centred = options.quantiser == "mean_centred"
        self.encoder = Encoder(widths)
        self.decoder = Decoder(widths)
        self.encoder_steps = StepScale(widths, options)
        # What hyper-latents say, both sides know: the one is the other's inverse.
        self.steps_by_hyper = options.step == "moe_hyper"
        self.decoder_steps = None if self.steps_by_hyper else StepScale(widths, options)
        self.hyper_encoder = HyperEncoder(widths.latent, widths.hyper, widths.z)
        self.hyper_decoder = HyperDecoder(widths.z, widths.hyper, widths.latent)
        self.z_prior = build_prior(options.z_prior, widths.z)
        self.context = ContextModel(widths)
        self.alignment = Alignment(widths, options)
        if options.pixel_alignment:
            self.flow = FlowNet(widths)
            self.motion_encoder = MotionEncoder(widths)
            self.motion_decoder = MotionDecoder(widths, options.z_prior)
        if options.transform == "separate":
            self.inter_encoder = Encoder(widths, inputs=6)
            self.inter_decoder = ConditionalDecoder(widths)

    @property
    def like(self) -> Tensor:
        """A parameter: says device and dtype."""
        return self.context.start

    # Own data only.

    def transform(self, frame: Tensor) -> Tensor:
        """Return the latent of a frame (B, 3, H, W), coded or warped."""
        y: Tensor = self.encoder(frame.to(self.like) - 0.5)
        return y

    def analyse(self, frame: Tensor, quality: Tensor) -> Target:
        """Return what to code of a frame (B, 3, H, W), RGB in [0, 1]."""
        return self._target(self.transform(frame), quality)

    def _target(self, y: Tensor, quality: Tensor) -> Target:
        values = None if self.steps_by_hyper else self.to_symbols(y, quality, None)
        seen = squash(y if values is None else values)
        z = self.hyper_encoder(pad_to_multiple(seen, HYPER_STRIDE).to(self.like))
        return Target(y, values, z)

    def to_symbols(self, y: Tensor, quality: Tensor, hyper: Tensor | None) -> Tensor:
        """Return a latent in units of its steps, not yet rounded.

        Args:
            y: (B, C, h, w).
            quality: (B,).
            hyper: (B, C, h, w), features from the frame's z, where steps follow
                from them.
        """
        content = hyper if self.steps_by_hyper else y
        return y * self.encoder_steps(content, quality).exp()

    def to_latent(self, coded: Coded, quality: Tensor) -> Tensor:
        """Return y_hat of a frame's symbols."""
        if self.decoder_steps is None:
            scale = self.encoder_steps(coded.hyper, quality)
        else:
            content = self.decoder_steps.unscale(coded.values, quality)
            scale = self.decoder_steps(content.to(self.like), quality)
        y_hat: Tensor = coded.values * torch.exp(-scale)
        return y_hat.to(self.like)

    def synthesise(self, coded: Coded, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Return latent and pixels of a frame; pixels are not clamped."""
        y_hat = self.to_latent(coded, quality)
        return y_hat, at_least_float32(self.decoder(y_hat)) + 0.5

    def regularisers(
        self, y: Tensor, coded: Coded, quality: Tensor, weighed: frozenset[str]
    ) -> dict[str, Tensor]:
        """Return the loss terms of the step maps; see ``experts.regularisers``."""
        if self.decoder_steps is None:
            scales = [(self.encoder_steps, coded.hyper)]
        else:
            symbols = self.decoder_steps.unscale(coded.values, quality)
            scales = [
                (self.encoder_steps, y),
                (self.decoder_steps, symbols.to(self.like)),
            ]
        return regularisers(scales, quality, weighed)

    # With references: for the rate.

    def analyse_flow(
        self, frame: Tensor, reference: Tensor, quality: Tensor
    ) -> MotionTarget:
        """Return what to code of the flow between two frames (B, 3, H, W)."""
        flow = self.flow.full_size(frame.to(self.like), reference.to(self.like))
        target: MotionTarget = self.motion_encoder(flow.to(self.like), quality)
        return target

    def code_motion(
        self,
        mode: Mode,
        target: MotionTarget | None,
        quality: Tensor,
        shape: tuple[int, int, int],
        port: Port,
    ) -> Tensor | None:
        """Code the flow to the newest reference, or decode it, if the mode has one.

        Args:
            mode: How the frame is coded.
            target: ``None`` to decode.
            quality: (B,).
            shape: Batch, height and width of the latent.
            port: Takes or gives the symbols.

        Returns:
            (B, 2, H, W); ``None`` for intra frames and without pixel alignment.
        """
        if mode == Mode.INTRA or not self.options.pixel_alignment:
            return None
        if mode == Mode.STILL:
            batch, height, width = shape
            sides = height * LATENT_STRIDE, width * LATENT_STRIDE
            return at_least_float32(self.like).new_zeros(batch, 2, *sides)
        flow: Tensor = self.motion_decoder(
            target, quality, shape, port, centred=self.centred
        )
        return flow

    def symbols(self, mode: Mode, shape: tuple[int, int, int]) -> Counter[str]:
        """Return how many symbols a frame of a mode takes, by the names of tables."""
        found = Counter(hyper=prod(self.z_prior.shape(*shape)))
        found["symbols"] = self.context.start.numel() * prod(shape)
        if mode == Mode.INTER and self.options.pixel_alignment:
            found.update(self.motion_decoder.symbols(shape))
        return found

    def code(
        self,
        target: Target | None,
        references: State,
        flow: Tensor | None,
        quality: Tensor,
        shape: tuple[int, int, int],
        port: Port,
    ) -> Coded:
        """Code a frame's symbols, or decode them.

        Args:
            target: ``None`` to decode.
            references: The last frames, the newest first; none for an intra frame.
            flow: Decoded, to the newest of them.
            quality: (B,), in [0, 1].
            shape: Batch, height and width of the latent.
            port: Takes or gives the symbols.
        """
        batch, height, width = shape
        z_shape = self.z_prior.shape(batch, height, width)
        z = None if target is None else at_least_float32(target.z)
        z_hat = port.code(z, Factorised(self.z_prior, z_shape, "hyper"))
        hyper = self.hyper_decoder(z_hat.to(self.like))[..., :height, :width]
        values = None if target is None else target.values
        if target is not None and values is None:
            values = self.to_symbols(target.y.to(hyper), quality, hyper)
        temporal = coarse = None
        if references:
            temporal, coarse = self._predict(references, flow, quality, hyper)
        gained = self.options.scales == "gained"
        coded = self.context(
            values,
            hyper,
            temporal,
            coarse,
            port,
            centred=self.centred,
            gain=self.encoder_steps.gain(quality) if gained else None,
        )
        return Coded(coded, hyper)

    def _predict(
        self,
        references: State,
        flow: Tensor | None,
        quality: Tensor,
        hyper: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the temporal context and the coarse prediction, in symbols' units."""
        latents = torch.stack([r.y_hat for r in references], dim=1)
        batch, ages, _, height, width = latents.shape
        if flow is None:
            coarse = latents[:, 0]
            flows = latents.new_zeros(batch, ages, 2, height, width)
        else:
            coarse = self.transform(warp(references[0].x_hat, flow))
            older = [r.flow for r in references[:-1] if r.flow is not None]
            flows = torch.stack(
                [to_latent_scale(f) for f in compose([flow, *older])], dim=1
            )
        # All in units of the current frame's steps, as its symbols are.
        together = torch.cat([coarse[:, None], latents], dim=1).flatten(0, 1)
        scaled = self.to_symbols(
            together,
            quality.repeat_interleave(ages + 1),
            hyper.repeat_interleave(ages + 1, dim=0) if self.steps_by_hyper else None,
        ).unflatten(0, (batch, ages + 1))
        coarse, latents = scaled[:, 0], scaled[:, 1:].to(self.like)
        return self.alignment(coarse.to(self.like), latents, flows), coarse

    def finish(
        self, coded: Coded, references: State, flow: Tensor | None, quality: Tensor
    ) -> tuple[Tensor, Reference]:
        """Return pixels, not clamped, and what the frame leaves to the next ones.

        References and flow are passed on, and no pixel depends on them (but in the
        ablation with separate transforms).
        """
        if self.options.transform == "separate" and flow is not None:
            warped = warp(references[0].x_hat, flow).to(self.like)
            y_hat = self.to_latent(coded, quality)
            pixels = at_least_float32(self.inter_decoder(y_hat, warped)) + 0.5
        else:
            y_hat, pixels = self.synthesise(coded, quality)
        return pixels, Reference(pixels.clamp(0.0, 1.0), y_hat, flow)

    # The ablation in which other frames' pixels decide this one's.

    def analyse_inter(
        self, frame: Tensor, reference: Tensor, flow: Tensor, quality: Tensor
    ) -> Target:
        """As :meth:`analyse`, with a transform that sees the warped reference."""
        warped = warp(reference, flow).to(self.like)
        pair = torch.cat([frame.to(self.like), warped], dim=1)
        return self._target(self.inter_encoder(pair - 0.5), quality)


def latent_shape(frame: Tensor) -> tuple[int, int, int]:
    """Return batch, height and width of the latent of a padded frame."""
    height, width = (side // LATENT_STRIDE for side in frame.shape[-2:])
    return frame.shape[0], height, width
