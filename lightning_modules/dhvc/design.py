"""DHVC's dimensions: widths by size, and what the paper's ablations change.

Source: arXiv 2410.02598, section 5, and DHVC 1.0's public code (NJUVISION/DHVC), which
has all widths. Numbers of blocks of 2.0 are not public: they are the ones that give the
paper's complexity. Those of 1.0 are the code's.
"""

from dataclasses import dataclass
from typing import Literal

KERNELS = (7, 7, 5, 3, 1)
"""Of the residual blocks, from the finest level (the stem, without a latent) up."""
SCALES = 4
PATH_RATIOS = (1.5, 1.75, 2.0, 3.0, 4.0)
"""Hidden widths of the blocks of both top-down paths, by level."""


@dataclass(frozen=True)
class Layout:
    """What one version of DHVC has throughout, whatever ablations change.

    Attributes:
        latents: Channels of the latents of each scale, coarsest first; empty where they
            go with the size.
        down: Side of the kernels that halve.
        black: What the network knows black as; white is 1.
        sigma: Largest standard deviation that has a table, and how many have one.
        blocks_around: Whether residual blocks also go where DHVC 1.0 has them: on S
            where a scale begins and ends and behind each latent, on D where a scale
            ends (not before a second latent), and in the middle of a posterior. D then
            begins as zeros, not as a constant that is learned.
    """

    latents: tuple[tuple[int, ...], ...]
    down: int
    black: float
    sigma: tuple[float, int]
    blocks_around: bool


LAYOUTS = {
    "dhvc2": Layout((), 2, -1.0, (256.0, 95), False),
    "dhvc1": Layout(((32,), (32, 32), (96,), (8,)), 3, 0.0, (20.0, 64), True),
}


@dataclass(frozen=True)
class Recipe:
    """How training begins; the paper's size has the default.

    Attributes:
        gain: Initial gain of residual branches.
        latent_gain: Factor on the initial weights of the latents' last layers.
        embedding_rate: Factor on the learning rate of the lambda embedding.
    """

    gain: float = 1e-6
    latent_gain: float = 1.0
    embedding_rate: float = 1.0


QUICK = Recipe(gain=1.0, latent_gain=8.0, embedding_rate=0.01)
"""For few steps at large learning rates.

Lambda acts through the residual branches alone: with a gain of 1e-6 or 0.1 it has no
effect for thousands of steps. Latents that begin within +-0.1 round to 0 for hundreds.
Every block pulls at the embedding: at their rate its units die within as many.

Both train. 400 steps of the tiny rehearsal end at a loss of 3.58 so and of 3.49 by the
paper's recipe (25.16 dB at 0.301 bpp, 25.28 dB at 0.275); from lambda 256 to 2048 the
bits differ by 2 % and by 0.1 %.
"""


@dataclass(frozen=True)
class Widths:
    """Channels and depths, the paper's by default: 108.3 M parameters, 405 kMACs/pixel.

    Tuples go from the finest level to the coarsest. Without the auxiliary path there
    are 91.2 M and 350 (the paper: 107.97 M and 400.71, 91.07 M and 349.44).

    Attributes:
        encoder: Channels of the bottom-up path.
        encoder_blocks: Its residual blocks.
        encoder_blocks_1: As many in the structure of DHVC 1.0.
        decoder: Channels of both top-down paths.
        prediction: Blocks of a context predictor, and the ratio of their MLP.
        unet: Hidden channels of a U-Net predictor.
        tail: Residual blocks at the finest level, behind the last scale.
        auxiliary: Blocks per level of the auxiliary path, and their ratio.
        embedding: Width of the lambda embedding.
        latents: Channels of the latent of each scale of 2.0's structure, coarsest
            first.
        recipe: How training begins.
    """

    encoder: tuple[int, ...] = (192, 384, 512, 512, 512)
    encoder_blocks: tuple[int, ...] = (6, 6, 6, 4, 2)
    encoder_blocks_1: tuple[int, ...] = (6, 2, 2, 4, 4)
    decoder: tuple[int, ...] = (128, 256, 384, 512, 512)
    prediction: tuple[int, int] = (4, 4)
    unet: int = 128
    tail: int = 8
    auxiliary: tuple[int, int] = (2, 4)
    embedding: int = 256
    latents: tuple[int, int, int, int] = (32, 96, 8, 8)
    recipe: Recipe = Recipe()


SIZES: dict[str, Widths] = {
    "paper": Widths(),
    # Hours on a CPU, for rehearsals on real video.
    "small": Widths(
        encoder=(64, 96, 128, 128, 128),
        encoder_blocks=(2, 2, 2, 1, 1),
        encoder_blocks_1=(2, 1, 1, 2, 2),
        decoder=(48, 64, 96, 128, 128),
        prediction=(2, 2),
        unet=32,
        tail=3,
        auxiliary=(1, 2),
        embedding=64,
        recipe=QUICK,
    ),
    # An hour of one core, and a file of 6 MB. Blocks of prediction are where parameters
    # are, those at 1/4 are where time goes. Nothing is narrower than what latents hold.
    "mini": Widths(
        encoder=(48, 96, 96, 128, 64),
        encoder_blocks=(1, 1, 1, 1, 1),
        encoder_blocks_1=(1, 1, 1, 1, 1),
        decoder=(48, 64, 96, 128, 64),
        prediction=(1, 2),
        unet=16,
        tail=2,
        auxiliary=(1, 2),
        embedding=32,
        # The paper's cannot pass 25 dB on photographs.
        latents=(32, 96, 32, 24),
        recipe=QUICK,
    ),
    # Minutes on a CPU: shows that everything works, not how well.
    "tiny": Widths(
        encoder=(32, 48, 64, 64, 64),
        encoder_blocks=(1, 1, 1, 1, 1),
        encoder_blocks_1=(1, 1, 1, 1, 1),
        decoder=(24, 32, 48, 64, 64),
        prediction=(1, 2),
        unet=16,
        tail=2,
        auxiliary=(1, 2),
        embedding=32,
        recipe=QUICK,
    ),
}


def latents_of(widths: Widths, options: "Options") -> tuple[tuple[int, ...], ...]:
    """Return the channels of the latents of each scale, coarsest first."""
    return options.layout.latents or tuple((z,) for z in widths.latents)


@dataclass(frozen=True)
class Options:
    """What the ablations of the paper change.

    Attributes:
        strides: Of the scales, coarsest first, each half the one before.
        structure: A row of ``LAYOUTS``. ``dhvc2``: one latent per scale, halving by 2x2
            convolutions; ``dhvc1`` (ablation): two at 1/32 with other channels, halving
            by 3x3, and more blocks around the latents, as DHVC 1.0's public code has.
        variable_rate: Whether one model serves all lambdas, which the layer norms then
            follow; otherwise ``lmbda_range`` must be one number (ablation).
        predictor: Of contexts: ``attention``, or the ``unet`` of 1.0 (ablation).
        reference: What a scale keeps for later frames: its ``decoded`` feature D, or
            its ``spatial`` one S as in 1.0 (ablation).
        reference_frames: Frames that a frame refers to: 2 (the paper), 1, 3 or 5.
        auxiliary: Whether contexts also see features of the last reconstruction. Then
            one lost packet spoils every scale, until a frame without a reference.
            Without them it is DHVC 2.0 (Parallel).
        steps: Of the quantiser: ``one`` (the paper), or ``learned``, a function of
            lambda for each channel. In the paper lambda acts through residual branches
            alone, whose layer norms keep it from scaling anything.
        missing: What stands for earlier frames that there are not: a ``constant`` that
            is learned (the paper), or it and the ``spatial`` reference together. A
            prior may then predict the difference from an earlier frame, which is none.
    """

    strides: tuple[int, ...] = (64, 32, 16, 8)
    structure: Literal["dhvc1", "dhvc2"] = "dhvc2"
    variable_rate: bool = True
    predictor: Literal["attention", "unet"] = "attention"
    reference: Literal["decoded", "spatial"] = "decoded"
    reference_frames: int = 2
    auxiliary: bool = True
    steps: Literal["one", "learned"] = "one"
    missing: Literal["constant", "spatial"] = "constant"

    def __post_init__(self) -> None:
        """Refuse what makes no network.

        Raises:
            ValueError: Strides do not halve, there is no reference frame, or steps are
                to follow the one lambda that there is.
        """
        object.__setattr__(self, "strides", tuple(self.strides))
        strides, count = self.strides, SCALES
        halves = tuple(strides[0] >> i for i in range(count))
        if strides != halves or strides[0] < 1 or strides[0] % 2**count:
            raise ValueError(
                f"strides are {strides}: there must be {count} even ones, each half "
                "the one before, for example (64, 32, 16, 8)"
            )
        if self.reference_frames < 1:
            raise ValueError(
                f"reference_frames is {self.reference_frames}: it must be at least 1"
            )
        if self.steps == "learned" and not self.variable_rate:
            raise ValueError(
                "steps: learned needs variable_rate: true, for they follow lambda; a "
                "model of one lambda has steps: one"
            )

    @property
    def layout(self) -> Layout:
        """What the structure stands for."""
        return LAYOUTS[self.structure]


DHVC_1 = Options(
    structure="dhvc1",
    variable_rate=False,
    predictor="unet",
    reference="spatial",
    auxiliary=False,
)
"""DHVC 1.0 (arXiv 2312.07126), as ``ablations/dhvc/base_dhvc_1.yaml`` has it.

It is its public code's network without the blocks of S behind the last latent, to which
nothing refers: 831,472 of 117,924,664 parameters, 34 of 442 kMACs per pixel. The table
below has fewer parameters, and counts more."""

PUBLISHED = {
    Options(): {"parameters": 107.97e6, "forward": 400.71},
    Options(auxiliary=False): {"parameters": 91.07e6, "forward": 349.44},
    # Four models of 449.84 M parameters together, one for each lambda.
    DHVC_1: {"parameters": 112.46e6, "forward": 433.81},
}
"""Parameters and kMACs per pixel of a frame, coded and decoded once.

Source: arXiv 2410.02598, Table II."""
