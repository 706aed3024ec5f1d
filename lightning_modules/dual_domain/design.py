"""DualDomain's dimensions: widths by size, and what the ablations change.

Source: arXiv 2512.10450, of which only the abstract is public: the equations, widths
and numbers in this folder are our design, unless a source is named.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_modules.dual_domain.options import check_choices
from lightning_modules.entropy.z_prior import PriorForm

StepKind = Literal["moe", "moe_hyper", "gain8", "single", "scalar"]
StepOffset = Literal["frame", "learned"]
Quantiser = Literal["lattice", "mean_centred"]
Scales = Literal["free", "gained"]
Transform = Literal["unified", "separate"]

LATENT_STRIDE = 16
MAX_REFERENCES = 3
LMBDA_RANGE = (0.0018, 0.0483)
"""On 255^2 times the mean squared error of RGB in [0, 1].

Source: the range of the same authors' FTIC (ICLR 2024)."""


def lagrangian(quality: Tensor) -> Tensor:
    """Return the weight of the mean squared error on [0, 1] against bits per pixel.

    Args:
        quality: Any shape, in [0, 1].
    """
    low, high = LMBDA_RANGE
    return 255.0**2 * low * torch.pow(high / low, quality.float())


@dataclass(frozen=True)
class Widths:
    """Channels and depths, of 15.6 M parameters by default.

    Attributes:
        transform: Channels at 1/2, 1/4 and 1/8 of the sides.
        latent: Channels of the latent, at 1/16.
        blocks: Residual blocks at each of the three.
        hyper: Hidden channels of the hyper transforms.
        z: Channels of z, at 1/64.
        experts: Experts of a step map.
        heads: Attention heads, which are the groups of offsets too.
        offsets: Hidden channels of the network that gives offsets.
        groups: Channels of the latent that are coded together; they add up to it.
        context: Hidden channels of a group's parameters.
        anchors: Side of the kernel that sees the checkerboard's other colour; odd.
        temporal: Channels of the alignment, a multiple of ``heads``; those of the
            latent by default, ``None``.
        flow: Hidden channels of each level of the flow network.
        flow_kernel: Their kernels' side.
        motion: Channels of the motion codec.
        motion_latent: Channels of its latent, at 1/16.
        motion_z: Channels of its z, at 1/64.
    """

    transform: tuple[int, int, int] = (128, 160, 192)
    latent: int = 192
    blocks: int = 3
    hyper: int = 128
    z: int = 64
    experts: int = 8
    heads: int = 8
    offsets: int = 64
    groups: tuple[int, ...] = (16, 32, 48, 96)
    context: tuple[int, int] = (256, 192)
    anchors: int = 5
    temporal: int | None = None
    flow: tuple[int, int, int, int] = (32, 64, 32, 16)
    flow_kernel: int = 7
    motion: int = 64
    motion_latent: int = 64
    motion_z: int = 32

    @property
    def aligned(self) -> int:
        """Channels of the alignment."""
        return self.temporal or self.latent


SIZES: dict[str, Widths] = {
    "base": Widths(),
    # Hours on a CPU, for rehearsals on real video: as many latents as the upper
    # qualities need (README), and around them little.
    "small": Widths(
        transform=(64, 96, 128),
        latent=192,
        blocks=2,
        hyper=96,
        z=48,
        experts=6,
        heads=8,
        offsets=48,
        groups=(16, 32, 48, 96),
        context=(192, 128),
        anchors=3,
        temporal=96,
        flow=(24, 48, 24, 12),
        flow_kernel=7,
        motion=48,
        motion_latent=48,
        motion_z=24,
    ),
    # Half an hour on one core: of as many latents, so few weights that 16 bits of each
    # ship in 6 MB.
    "mini": Widths(
        transform=(32, 64, 64),
        latent=192,
        blocks=2,
        hyper=32,
        z=16,
        experts=3,
        heads=4,
        offsets=24,
        groups=(16, 32, 48, 96),
        context=(64, 64),
        anchors=3,
        temporal=48,
        flow=(12, 24, 16, 8),
        flow_kernel=5,
        motion=24,
        motion_latent=16,
        motion_z=8,
    ),
    # What "small" was at first: 128 latents end near 35 dB. For checkpoints of it.
    "small_128": Widths(
        transform=(64, 96, 128),
        latent=128,
        blocks=2,
        hyper=96,
        z=48,
        experts=6,
        heads=8,
        offsets=48,
        groups=(12, 20, 32, 64),
        context=(192, 128),
        flow=(24, 48, 24, 12),
        flow_kernel=7,
        motion=48,
        motion_latent=48,
        motion_z=24,
    ),
    # Minutes on a CPU: shows that everything works, not how well.
    "tiny": Widths(
        transform=(24, 32, 48),
        latent=48,
        blocks=1,
        hyper=32,
        z=16,
        experts=4,
        heads=4,
        offsets=16,
        groups=(16, 32),
        context=(64, 48),
        flow=(12, 16, 12, 8),
        flow_kernel=5,
        motion=16,
        motion_latent=16,
        motion_z=8,
    ),
}


def size_of(name: str, latents: int) -> str:
    """Return what a preset is called now that had a name and so many latents."""
    return f"{name}_{latents}" if f"{name}_{latents}" in SIZES else name


@dataclass(frozen=True)
class Options:
    """What the ablations change in the network.

    Attributes:
        pixel_alignment: Whether a flow is coded, the last frame warped by it and
            transformed anew; otherwise its latent is the prediction as it is.
        fgdt: Whether latents are aligned by the deformable transformer.
        ltmr: Whether it has its second layer, which attends to all references
            (long-term motion refinement); the first sees the newest alone.
        references: Previous frames that the transformer sees, 1 to 3.
        step: What gives the quantisation steps: experts by content and quality
            (``moe``; ``moe_hyper`` reads the hyper-latent instead of the symbols), a
            gain per channel (``single``, or 8 interpolated vectors ``gain8``), or one
            for all (``scalar``).
        step_offset: What is subtracted from the experts' say: a number per channel and
            quality that they learn (``learned``), or its mean over the frame
            (``frame``), which makes each step depend on the whole frame. Checkpoints
            and runs that do not name it have the second.
        experts: How many there are; null leaves it to the size.
        top_k: How many of them count at a position, those that the router finds most
            fitting there; null is all.
        quantiser: ``lattice``: symbols are whole numbers of the latent itself;
            ``mean_centred``: of the latent less its predicted mean (errors propagate;
            needs ``mode_decision`` inter).
        transform: ``unified``: pixels follow from a frame's own symbols; ``separate``:
            inter frames have transforms of their own that see the warped frame
            (likewise).
        scales: Deviations of symbols: as the networks say (``free``), which must learn
            the quality from z; or that times the gain of the quality (``gained``).
        z_prior: Form of the distributions of both hyper-latents: CompressAI's
            ``bottleneck`` (new models', by their configuration), or ``scalar``, with
            one unit between its layers (of all models that do not name one).
    """

    pixel_alignment: bool = True
    fgdt: bool = True
    ltmr: bool = True
    references: int = MAX_REFERENCES
    step: StepKind = "moe"
    step_offset: StepOffset = "frame"
    experts: int | None = None
    top_k: int | None = None
    quantiser: Quantiser = "lattice"
    transform: Transform = "unified"
    scales: Scales = "free"
    z_prior: PriorForm = "scalar"

    @property
    def propagates(self) -> bool:
        """Whether pixels depend on other frames' (ablations only)."""
        return self.quantiser != "lattice" or self.transform != "unified"

    def __post_init__(self) -> None:
        """Refuse what makes no network.

        Raises:
            ValueError: A value is not one of the allowed ones, or two exclude each
                other.
        """
        check_choices(self)
        if not 1 <= self.references <= MAX_REFERENCES:
            raise ValueError(
                f"references is {self.references}: it must be 1 to {MAX_REFERENCES}"
            )
        if not self.ltmr and self.references > 1:
            raise ValueError(
                f"references is {self.references}, and without ltmr only the newest is "
                "seen: set references to 1, or ltmr to true"
            )
        for name in ("experts", "top_k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1, or null")
        if self.transform == "separate" and not self.pixel_alignment:
            raise ValueError(
                "separate transforms see the warped frame: set pixel_alignment to "
                "true, or transform to unified"
            )
