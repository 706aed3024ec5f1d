"""DHVC as a video codec: padding, references, packets and what becomes of lost ones.

A frame is as many packets as there are scales, coarsest first; the last one completes
it. Each can be decoded without those of finer scales.

A scale that has no packet takes the mean of its prior. Its features are then not the
encoder's, so the scale stays undecodable, and all finer ones with it, until a packet
refers to no earlier frame.

Source: arXiv 2410.02598, sections 4, 7.3 and 7.4.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lightning_modules.codec import (
    CodecOutput,
    Packet,
    RateKnob,
    VideoCodec,
)
from lightning_modules.dhvc.design import PUBLISHED, SIZES, Options
from lightning_modules.dhvc.entropy_model import sigma_tables
from lightning_modules.dhvc.frame_coder import FrameCoder
from lightning_modules.dhvc.network import DHVCNetwork
from lightning_modules.dhvc.pipeline import PipelinedDHVC, spread
from lightning_modules.dhvc.reception import Received
from lightning_modules.dhvc.walk import FrameWalk, State, complete
from lightning_modules.entropy.ports import SilentPort
from lightning_modules.entropy.tables import CdfTables


class DHVCCodec(VideoCodec):
    """Hierarchical predictive coding, with one packet per scale.

    Args:
        size: Widths: ``paper``, ``small`` or ``tiny``.
        lmbda_range: Smallest and largest lambda.
        strides: Of the scales, coarsest first, each half the one before.
        structure: ``dhvc2``, or the base network of ``dhvc1`` (ablation).
        variable_rate: Whether one model serves all lambdas (layer norms follow it).
        predictor: Of contexts: ``attention``, or the ``unet`` of 1.0 (ablation).
        reference: What later frames see of a scale: its ``decoded`` feature, or its
            ``spatial`` one as in 1.0 (ablation).
        reference_frames: Frames that a frame refers to.
        auxiliary: Whether it also sees features of the last reconstruction. Then one
            lost packet spoils every scale, until a frame without a reference.

    Raises:
        ValueError: An argument is out of range, or two exclude each other.
    """

    frames_per_unit = 1

    def __init__(
        self,
        size: Literal["paper", "small", "tiny"] = "paper",
        lmbda_range: tuple[float, float] = (256.0, 2048.0),
        strides: tuple[int, ...] = (64, 32, 16, 8),
        structure: Literal["dhvc1", "dhvc2"] = "dhvc2",
        variable_rate: bool = True,
        predictor: Literal["attention", "unet"] = "attention",
        reference: Literal["decoded", "spatial"] = "decoded",
        reference_frames: int = 2,
        auxiliary: bool = True,
    ) -> None:
        options = Options(
            tuple(strides),
            structure,
            variable_rate,
            predictor,
            reference,
            reference_frames,
            auxiliary,
        )
        super().__init__(size=size, lmbda_range=tuple(lmbda_range), **vars(options))
        if size not in SIZES:
            raise ValueError(f"size {size!r} is unknown: choose from {list(SIZES)}")
        self.rate_knob = _knob(*lmbda_range, variable_rate)
        self.pad_multiple = options.strides[0]
        self.options = options
        self.scales = len(options.strides)
        if size == "paper":
            self.published = PUBLISHED.get(options, {})
        network = DHVCNetwork(SIZES[size], options)
        # A tenth faster on a CPU; layer norms and MLPs want channels last.
        self.network = network.to(memory_format=torch.channels_last)
        self.workers = 1

    def configure(self, **options: Any) -> None:
        """Set how it codes; see :meth:`VideoCodec.configure`.

        Args:
            options: ``pipeline``: frames that are worked on at once, at least 1; it
                changes no bit of streams and frames. See :class:`PipelinedDHVC`.

        Raises:
            ValueError: An option is unknown, or frames cannot overlap.
        """
        workers = options.pop("pipeline", self.workers)
        super().configure(**options)
        if workers < 1:
            raise ValueError(f"pipeline is {workers}: it must be >= 1")
        if workers > 1:
            PipelinedDHVC(self.coder, [self.network.like.device] * workers)
        self.workers = workers

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

    @torch.inference_mode()
    def compress(
        self,
        frames: Iterable[Tensor],
        rate: float,
        *,
        intra_period: int = -1,
        reconstruct: bool = False,
        rate_at: Callable[[int], float] | None = None,
        resync: Callable[[int], int] | None = None,
    ) -> Iterator[Packet]:
        """Code frames into packets; see :meth:`VideoCodec.compress`.

        Args:
            frames: As there.
            rate: Lambda.
            intra_period: As there.
            reconstruct: As there.
            rate_at: As there, lambdas.
            resync: Asked before each frame that is no intra frame anyway, by its number
                from 0: the first scale that this frame codes with spatial references
                only, with all finer ones, or 0 for none. 1 is an intra frame, and all
                that the auxiliary path allows.

        Raises:
            ValueError: The rate is not possible, the intra period below 1, the scale
                not one that can begin anew, or a frame has another size than the first.
        """
        coder = self.coder
        if self.workers > 1:
            yield from spread(coder, self.workers).compress(
                frames,
                rate,
                intra_period=intra_period,
                reconstruct=reconstruct,
                rate_at=rate_at,
                resync=resync,
            )
            return
        state = coder.start
        schedule = coder.schedule(frames, rate, intra_period, rate_at, resync)
        for frame, lmbda, first in schedule:
            if first:
                state = state.without(first)
            steps = coder.encode_steps(frame, lmbda, state, first, reconstruct)
            packets, state = complete(steps)
            yield from packets

    @torch.inference_mode()
    def decompress(
        self,
        packets: Iterable[Packet | None],
        height: int,
        width: int,
        *,
        scales: int | None = None,
    ) -> Iterator[Tensor]:
        """Decode packets; see :meth:`VideoCodec.decompress` and :meth:`receive`."""
        for received in self.receive(packets, height, width, scales=scales):
            yield received.frame

    @torch.inference_mode()
    def receive(
        self,
        packets: Iterable[Packet | None],
        height: int,
        width: int,
        *,
        scales: int | None = None,
    ) -> Iterator[Received]:
        """Decode packets and say how much of each frame could be decoded.

        Args:
            packets: One for each scale of each frame, in coding order; ``None`` stands
                for a lost one.
            height: Height of the frames in pixels.
            width: Width of the frames in pixels.
            scales: Decode only so many scales, coarsest first (progressive decoding);
                all by default.

        Raises:
            ValueError: There are no so many scales, or the codec has an auxiliary path
                and some were left out.
            DesyncError: The decoded symbols are not those that were coded, or packets
                are out of order.
        """
        coder = self.coder
        if self.workers > 1:
            pipeline = spread(coder, self.workers)
            yield from pipeline.receive(packets, height, width, scales=scales)
            return
        state = coder.start
        for frame in coder.decodable(packets, scales):
            steps = coder.decode_steps(frame, state, height, width)
            received, state = complete(steps)
            yield received

    # The rest of the contract.

    def build_tables(self) -> dict[str, CdfTables]:
        """Return the Gaussian tables, which all scales share."""
        return {"z": sigma_tables()}

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
        for number, stride in enumerate(self.options.strides, start=1):
            scale = self.network.scale(number)
            sides = (shape[1] // stride, shape[2] // stride)
            yield (self.network.like.new_zeros(1, scale.channels, *sides),) * len(scale)


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
