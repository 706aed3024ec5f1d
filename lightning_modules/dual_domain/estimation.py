"""Differentiable passes over a clip: what each stage minimises, and is validated by.

=========  ===========================================================================
objective  what is coded
=========  ===========================================================================
flow       nothing; flows to noisy references are estimated
image      each frame alone
motion     flows to reconstructions, which the image codec gives as they are
prior      everything, but only the entropy model learns: latents are exact
joint      everything; gradients reach references through the rate
=========  ===========================================================================
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lightning_modules.dual_domain.attempts import Attempt, attempts
from lightning_modules.dual_domain.flow import charbonnier, enlarge, flow_loss, warp
from lightning_modules.dual_domain.network import (
    DualDomainNetwork,
    Mode,
    State,
    latent_shape,
)
from lightning_modules.entropy.estimates import uniform_noise
from lightning_modules.entropy.ports import EstimatePort

Objective = Literal["flow", "image", "motion", "prior", "joint"]
CODES_FRAMES: tuple[Objective, ...] = ("image", "prior", "joint")
"""Objectives whose pixels are those of coded frames; the others' are warped ones."""

PARTS = ("motion", "hyper", "latent")
"""What bits are spent on."""
STREAMS_PER_FRAME = 16
"""Noise streams kept for a frame: two for z's, and one for each step of values."""
REFERENCE_STREAM = 2**20
REFERENCE_NOISE = 0.08
"""Width of the noise on references that flows are estimated to: what coding leaves."""


@dataclass
class Estimate:
    """What a pass over a clip gives, padded.

    Attributes:
        pixels: Of each frame, (B, 3, H, W).
        bits: Of each frame, (B, 3), by part.
        terms: Loss terms of its own, by name: those that it has and that are weighed.
    """

    pixels: list[Tensor] = field(default_factory=list)
    bits: list[Tensor] = field(default_factory=list)
    terms: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Clip:
    """What a pass reads.

    Attributes:
        frames: (B, T, 3, H, W), padded, RGB in [0, 1].
        quality: (B, T).
        seeds: (B,), for noise; ``None`` to round instead.
        weighed: Names of the loss terms to compute.
    """

    frames: Tensor
    quality: Tensor
    seeds: Tensor | None
    weighed: frozenset[str]


Coding = tuple[Tensor, Tensor, State, Attempt[EstimatePort]]
"""Pixels (B, 3, H, W) and bits (B, 3) by part of a frame, what the next one may refer
to, and the attempt that was taken."""


def code_frames(
    network: DualDomainNetwork,
    clip: Clip,
    *,
    modes: Callable[[State], list[Mode]],
    exact: bool = False,
    recompute: bool = False,
) -> Estimate:
    """Code a clip frame by frame.

    Args:
        network: Its transforms.
        clip: What to code.
        modes: Which ways to code a frame after a state are tried.
        exact: Estimate the bits of latents as they are, which no gradient reaches.
        recompute: Activations in the backward pass.
    """
    estimate = Estimate()
    state: State = ()
    for number in range(clip.frames.shape[1]):
        run = partial(_code_frame, network, clip, number, state, modes(state), exact)
        out: Coding = checkpoint(run, use_reentrant=False) if recompute else run()
        pixels, spent, state, best = out
        if number == 0 and clip.seeds is not None and not exact:
            quality = clip.quality[:, 0]
            estimate.terms = network.regularisers(
                best.y, best.coded, quality, clip.weighed
            )
        estimate.pixels.append(pixels)
        estimate.bits.append(spent)
    return estimate


def _code_frame(
    network: DualDomainNetwork,
    clip: Clip,
    number: int,
    state: State,
    modes: list[Mode],
    exact: bool,
) -> Coding:
    frame, quality = clip.frames[:, number], clip.quality[:, number]
    first = number * STREAMS_PER_FRAME
    port = partial(EstimatePort, clip.seeds, first, exact=exact)
    tried = attempts(network, network, frame, quality, state, modes, port)
    best = tried[0]
    if len(tried) > 1:
        best = min(tried, key=lambda attempt: float(_bits(attempt.port, frame).sum()))
    with torch.set_grad_enabled(torch.is_grad_enabled() and not exact):
        pixels, left = network.finish(best.coded, best.seen, best.flow, quality)
    state = (left, *best.seen)[: network.options.references]
    return pixels, _bits(best.port, frame), state, best


def _bits(port: EstimatePort, frame: Tensor) -> Tensor:
    nothing = frame.new_zeros(len(frame), dtype=torch.float32)
    return torch.stack([port.parts.get(part, nothing) for part in PARTS], dim=1)


def code_motion(network: DualDomainNetwork, clip: Clip) -> Estimate:
    """Code flows to reconstructions; pixels are the warped ones.

    ``flow_distillation`` pulls a decoded flow to the one that was coded, which starts
    what the warped frame's error cannot.
    """
    with torch.no_grad():
        images = code_frames(network, clip, modes=lambda state: [Mode.INTRA])
    nothing = torch.zeros_like(images.bits[0])
    estimate = Estimate([images.pixels[0]], [nothing])
    distances = []
    for number in range(1, clip.frames.shape[1]):
        frame, quality = clip.frames[:, number], clip.quality[:, number]
        reference = images.pixels[number - 1].clamp(0.0, 1.0)
        port = EstimatePort(clip.seeds, number * STREAMS_PER_FRAME)
        flow = network.flow.full_size(frame, reference)
        target = network.motion_encoder(flow, quality)
        decoded = network.motion_decoder(target, quality, latent_shape(frame), port)
        if "flow_distillation" in clip.weighed:
            distances.append(charbonnier(decoded - flow.detach()).mean())
        estimate.pixels.append(warp(reference, decoded))
        estimate.bits.append(_bits(port, frame))
    if distances:
        estimate.terms["flow_distillation"] = torch.stack(distances).mean()
    return estimate


def estimate_flow(network: DualDomainNetwork, clip: Clip) -> Estimate:
    """Estimate flows to noisy references; pixels are the warped ones."""
    estimate = Estimate([clip.frames[:, 0]])
    losses = []
    for number in range(1, clip.frames.shape[1]):
        frame, reference = clip.frames[:, number], clip.frames[:, number - 1]
        if clip.seeds is not None:
            stream = REFERENCE_STREAM + number
            noise = uniform_noise(reference, clip.seeds, stream)
            reference = reference + REFERENCE_NOISE * noise
        flows = network.flow(frame, reference)
        if "flow" in clip.weighed:
            losses.append(flow_loss(flows, frame, reference))
        estimate.pixels.append(warp(reference, enlarge(flows[-1].detach())))
    if losses:
        estimate.terms["flow"] = torch.stack(losses).mean()
    nothing = clip.frames.new_zeros(len(clip.frames), len(PARTS))
    estimate.bits = [nothing for _ in estimate.pixels]
    return estimate


def estimate_clip(
    network: DualDomainNetwork, clip: Clip, objective: Objective, recompute: bool
) -> Estimate:
    """Return what training for an objective minimises.

    Args:
        network: Its transforms.
        clip: What to code.
        objective: See the table above.
        recompute: Activations in the backward pass.
    """
    if objective == "flow":
        return estimate_flow(network, clip)
    if objective == "motion":
        return code_motion(network, clip)
    return code_frames(
        network,
        clip,
        modes=lambda state: [
            Mode.INTER if state and objective != "image" else Mode.INTRA
        ],
        exact=objective == "prior",
        recompute=recompute,
    )
