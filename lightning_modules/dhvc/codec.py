"""DHVC as a video codec: padding, references, packets and what becomes of lost ones.

A frame is as many packets as there are scales, coarsest first; the last one completes
it. Each can be decoded without those of finer scales.

A scale that has no packet takes the mean of its prior. Its features are then not the
encoder's, so the scale stays undecodable, and all finer ones with it, until a packet
refers to no earlier frame.

Source: arXiv 2410.02598, sections 4, 7.3 and 7.4.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lightning_modules.codec import (
    CodecOutput,
    RateKnob,
    Released,
    Schedule,
    VideoCodec,
)
from lightning_modules.dhvc.blocks import PredictionBlock, ResBlock
from lightning_modules.dhvc.design import DHVC_1, PUBLISHED, SIZES, Options
from lightning_modules.dhvc.entropy_model import LEVELS, sigma_tables
from lightning_modules.dhvc.frame_coder import FrameCoder, Work
from lightning_modules.dhvc.network import DHVCNetwork
from lightning_modules.dhvc.options import CodingOptions
from lightning_modules.dhvc.pipeline import PipelinedDHVC, spread
from lightning_modules.dhvc.released import (
    KIND,
    is_released,
    released_lmbda,
    released_weights,
)
from lightning_modules.dhvc.walk import FrameWalk, State, complete
from lightning_modules.entropy.ports import SilentPort
from lightning_modules.entropy.tables import CdfTables
from lightning_modules.latents import Latents
from lightning_modules.packets import Packet, Pending, Received

R = TypeVar("R")

SAFE_CONFIG = "experiments/configs/ablations/dhvc/plus_dec_parallel.yaml"
"""Of a model that survives losses."""


class DHVCCodec(VideoCodec):
    """Hierarchical predictive coding, with one packet per scale.

    Args:
        size: Widths: ``paper`` (108 M parameters), ``small``, ``mini`` or ``tiny`` (CPU
            rehearsals; ``mini`` is what ships).
        lmbda_range: Smallest and largest lambda, both above 0: what training draws
            from and what coding allows.
        network: Fields of :class:`~lightning_modules.dhvc.design.Options`.

    Raises:
        ValueError: An argument is out of range, or two exclude each other.
    """

    frames_per_unit = 1
    can_resync = True
    compiled_blocks = (PredictionBlock, ResBlock)
    coding_options = CodingOptions
    coding: CodingOptions
    options: Options

    def __init__(
        self,
        size: Literal["paper", "small", "mini", "tiny"] = "paper",
        lmbda_range: tuple[float, float] = (256.0, 2048.0),
        **network: Any,
    ) -> None:
        options = Options(**network)
        super().__init__(size=size, lmbda_range=tuple(lmbda_range), **vars(options))
        if size not in SIZES:
            raise ValueError(f"size {size!r} is unknown: choose from {list(SIZES)}")
        self.rate_knob = _knob(*lmbda_range, options.variable_rate)
        self.pad_multiple = options.strides[0]
        self.options = options
        self.scales = len(options.strides)
        if size == "paper":
            self.published = PUBLISHED.get(options, {})
        self.network = DHVCNetwork(SIZES[size], options)
        # A tenth faster on a CPU; layer norms and MLPs want channels last.
        self.network.to(memory_format=torch.channels_last)

    def find_released(self, weights: Mapping[str, Tensor]) -> Released | None:
        """Return DHVC 1.0's weights under this network's names; see the base class."""
        return released_weights(weights, self.state_dict())

    @classmethod
    def from_released(cls, weights: Mapping[str, Tensor], path: Path) -> Self | None:
        """Build DHVC 1.0 of its published weights, one file for each lambda.

        The lambda is that of the file's name, and the only rate.
        """
        if not is_released(weights):
            return None
        with torch.device("meta"):
            wanted = cls("paper", (1, 1), **vars(DHVC_1))
        found = wanted.find_released(weights)
        assert found is not None, "they are"
        lmbda = released_lmbda(path)
        codec = cls("paper", (lmbda, lmbda), **vars(DHVC_1))
        codec.load_state_dict(found.weights)
        codec.trained_with = {"released": KIND}
        return codec

    # Training and estimates.

    def forward(self, clip: Tensor, rate: Tensor, **conditions: Tensor) -> CodecOutput:
        """Code a clip differentiably; see :meth:`VideoCodec.forward`.

        Args:
            clip: (B, T, 3, H, W), RGB in [0, 1].
            rate: (B,), lambda.
            conditions: ``seeds`` (B,) int64, optional: per-sample noise of the rate
                estimate (training draws it where absent).

        Returns:
            ``x_hat`` is clamped to [0, 1] in eval mode only, so that training feels
            how far it overshoots. ``parts`` has the bits of each scale.
        """
        batch, count = clip.shape[:2]
        seeds = conditions.get("seeds")
        if seeds is None and self.training:
            seeds = torch.randint(0, 2**62, (batch,), device=clip.device)
        embedding = self.network.embed(rate)
        coder = self.coder
        state = coder.start
        pixels: list[Tensor] = []
        bits: list[Tensor] = []
        for number in range(count):
            frame = clip[:, number]
            run = partial(coder.estimate, frame, state, embedding, seeds, number)
            if self.checkpoint_activations and self.training:
                shown, spent, state = checkpoint(run, use_reentrant=False)
            else:
                shown, spent, state = run()
            pixels.append(shown)
            bits.append(spent)
        by_scale = torch.stack(bits, dim=1)
        parts = {f"scale{i + 1}": by_scale[..., i] for i in range(self.scales)}
        return CodecOutput(torch.stack(pixels, dim=1), by_scale.sum(-1), parts=parts)

    @property
    def coder(self) -> FrameCoder:
        """What codes a frame, with the weights and tables as they are now."""
        return FrameCoder(self.network, self.rate_knob, self.tables)

    # Packets.

    def _pipeline(self) -> PipelinedDHVC | None:
        """Return what works on several frames at once, if it shall."""
        workers = self.devices
        return PipelinedDHVC(self.coder, workers) if len(workers) > 1 else None

    def _compress(
        self, frames: Iterator[Tensor], schedule: Schedule, reconstruct: bool
    ) -> Iterator[Pending]:
        """Code frames; see :meth:`VideoCodec.compress`.

        A frame that ``resync`` asks to begin anew at scale 1 is an intra frame, and
        that is all that the auxiliary path allows.

        Raises:
            ValueError: A scale is not one that can begin anew.
        """
        # Several workers make their bytes beside each other.
        at_once = len(self.devices) > 1
        coder = self.coder
        yield from self._do(coder.encoding(frames, schedule, reconstruct, at_once))

    def _receive(
        self, packets: Iterable[Packet | None], height: int, width: int, scales: int
    ) -> Iterator[Received]:
        """Decode packets; see :meth:`VideoCodec.receive`."""
        yield from self._do(self.coder.decoding(packets, scales, height, width))

    def _do(self, frames: Iterator[Work[R]]) -> Iterator[R]:
        """Do the work of frames in turn, or on workers, and give the results."""
        if pipeline := self._pipeline():
            yield from pipeline.run(frames)
            return
        coder = self.coder
        state = coder.start
        for work in frames:
            if work.first:
                state = state.without(work.first)
            result, state = complete(work.steps(coder, state))
            yield result

    def check_scales(self, scales: int) -> None:
        """Refuse scales that there are not, or that need each other."""
        super().check_scales(scales)
        if scales < self.scales and self.options.auxiliary:
            raise ValueError(
                f"{scales} of {self.scales} scales cannot be decoded alone: with an "
                "auxiliary path every scale depends on the whole previous frame; use a "
                "model without it (auxiliary: false)"
            )

    def check_losses(self) -> None:
        """Refuse the auxiliary path, through which a loss reaches every scale."""
        if self.options.auxiliary:
            raise ValueError(
                "this DHVC has an auxiliary path: from the frame after a lost packet "
                "on none of its scales can be decoded. Use a model trained without it "
                f"(auxiliary: false, as in {SAFE_CONFIG})"
            )

    def check_coding(self, coding: CodingOptions) -> None:
        """Refuse several workers if frames cannot overlap."""
        if coding.pipeline > 1:
            PipelinedDHVC(self.coder, [self.network.like.device] * coding.pipeline)

    @property
    def devices(self) -> list[torch.device]:
        """Those of the pipeline: its own, or all GPUs in turn if it is one."""
        return spread(self.network.like.device, self.coding.pipeline)

    # The rest of the contract.

    @property
    def latents(self) -> Latents:
        """Those of all scales, for a position of the coarsest; see the base class."""
        block = 1, self.pad_multiple, self.pad_multiple
        numbers = range(1, self.scales + 1)
        scales = {f"z{n}": self.network.symbols(n, block)["z"] for n in numbers}
        return Latents(block, scales)

    def build_tables(self) -> dict[str, CdfTables]:
        """Return the Gaussian tables, which all scales share."""
        return {"z": sigma_tables(LEVELS[self.options.structure])}

    def passes(self, height: int, width: int) -> dict[str, Callable[[], object]]:
        """Return a frame with all its references; see the base class.

        ``encode`` ends with what the next frame refers to, ``decode`` leaves out the
        encoder and posteriors. ``forward`` is what the paper counts: all of it once.
        """
        coder, like = self.coder, self.network.like
        shape = coder.padded(height, width)
        pixels = like.new_zeros(1, 3, *shape[1:])
        past = tuple(
            (feature,) * self.options.reference_frames for feature in self._blank(shape)
        )
        state = State(past, pixels if self.options.auxiliary else None)

        def walk(encode: bool, decode: bool, reconstruct: bool) -> State:
            embedding = coder.embed(self.rate_knob.points[0])
            frame = FrameWalk(self.network, state, embedding, shape, decode)
            observed = [None] * self.scales
            if encode:
                observed = self.network.encoder(pixels, embedding)
            for feature in observed:
                frame.step(feature, SilentPort())
            return frame.finish(reconstruct)[1]

        auxiliary = self.options.auxiliary
        in_loop = auxiliary or self.options.reference == "decoded"
        return {
            "encode": partial(walk, True, in_loop, auxiliary),
            "decode": partial(walk, False, True, True),
            "forward": partial(walk, True, True, True),
        }

    def _blank(self, shape: tuple[int, int, int]) -> Iterator[tuple[Tensor, ...]]:
        widths = reversed(SIZES[self.architecture["size"]].decoder)
        latents = self.network.latents
        for stride, width, own in zip(
            self.options.strides, widths, latents, strict=False
        ):
            sides = (shape[1] // stride, shape[2] // stride)
            yield (self.network.like.new_zeros(1, width, *sides),) * len(own)


def _knob(low: float, high: float, variable: bool) -> RateKnob:
    """Return the rate control: four points that double, or one for a fixed rate."""
    if not 0 < low <= high:
        raise ValueError(
            f"lmbda_range is {(low, high)}: it must rise from a number above 0"
        )
    if not variable and low != high:
        raise ValueError(
            f"a model of fixed rate has one lambda, not {(low, high)}: set both ends "
            "of lmbda_range to it, or variable_rate to true"
        )
    points = {float(f"{low * (high / low) ** (i / 3):.6g}") for i in range(4)}
    return RateKnob("lmbda", low, high, tuple(sorted(points)))
