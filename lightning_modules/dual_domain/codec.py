"""DualDomain as a video codec: what is tried for each frame, and what losses do.

Whatever decides what symbols cost runs in float64, on both sides: one table chosen
differently turns the rest of a frame into noise, and float32 results differ between
machines, threads and libraries by enough for that. Training and estimates run in the
weights' own type.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_modules.codec import (
    CodecOutput,
    RateKnob,
    Schedule,
    VideoCodec,
)
from lightning_modules.dual_domain.alignment import AlignmentLayer
from lightning_modules.dual_domain.design import LATENT_STRIDE, SIZES, Options, size_of
from lightning_modules.dual_domain.entropy_model import Group, symbol_tables
from lightning_modules.dual_domain.estimation import (
    CODES_FRAMES,
    PARTS,
    Clip,
    Objective,
    code_frames,
    estimate_clip,
)
from lightning_modules.dual_domain.frame_coder import FrameCoder
from lightning_modules.dual_domain.network import (
    DualDomainNetwork,
    Mode,
    Reference,
    State,
    latent_shape,
)
from lightning_modules.dual_domain.options import CodingOptions, ModeDecision, Numeric
from lightning_modules.dual_domain.packets import QUALITY_STEPS, read_head
from lightning_modules.dual_domain.transforms import ResidualBlock
from lightning_modules.entropy.ports import EstimatePort, SilentPort
from lightning_modules.entropy.tables import CdfTables
from lightning_modules.frames import pad_to_multiple, padded_size
from lightning_modules.latents import Latents
from lightning_modules.packets import Packet, Pending, Received


class DualDomainCodec(VideoCodec):
    """Coding in which no frame's pixels depend on another frame's.

    Args:
        size: Widths: ``base`` (15.6 M parameters), ``small`` (hours of a CPU),
            ``mini`` (one of them), ``small_128`` (an earlier ``small``) or ``tiny``
            (rehearsals).
        mode_decision: How the encoder chooses between intra, inter, and inter without
            motion for each frame: by their ``real`` or ``estimated`` bits; or always
            ``inter``, after the first.
        numeric: What everything that chooses tables is computed in. ``float32`` is
            faster, and decodes on the encoder's own kind of machine only.
        network: Fields of :class:`~lightning_modules.dual_domain.design.Options`.

    Raises:
        ValueError: An argument is out of range, or two exclude each other.
    """

    rate_knob = RateKnob("quality", 0.0, 1.0, (0.0, 0.33, 0.67, 1.0))
    frames_per_unit = 1
    pad_multiple = LATENT_STRIDE
    compiled_blocks = (AlignmentLayer, Group, ResidualBlock)
    coding_options = CodingOptions
    coding: CodingOptions
    options: Options
    loss_terms = (
        "flow",
        "flow_distillation",
        "load_balance",
        "router_z",
        "monotonicity",
    )

    def __init__(
        self,
        size: Literal["base", "small", "mini", "small_128", "tiny"] = "base",
        mode_decision: ModeDecision = "real",
        numeric: Numeric = "float64",
        **network: Any,
    ) -> None:
        options = Options(**network)
        super().__init__(
            size=size, **vars(options), mode_decision=mode_decision, numeric=numeric
        )
        if size not in SIZES:
            raise ValueError(f"size {size!r} is unknown: choose from {list(SIZES)}")
        experts = options.experts or SIZES[size].experts
        if (options.top_k or 1) > experts:
            raise ValueError(
                f"top_k is {options.top_k}, and there are {experts} experts: set it to "
                f"1 to {experts}, or null for all"
            )
        self.options = options
        self.configure(mode_decision=mode_decision, numeric=numeric)
        self.objective: Objective = "joint"
        self.network = DualDomainNetwork(SIZES[size], options)
        # No registered children: they repeat the network's weights.
        self._copies: dict[str, DualDomainNetwork] = {}

    @classmethod
    def architecture_of(
        cls, named: Mapping[str, Any], weights: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """Find an earlier ``small`` by its latents; see the base class."""
        found = super().architecture_of(named, weights)
        start = weights.get("network.context.start")
        latents = 0 if start is None else start.numel()
        return {**found, "size": size_of(found.get("size", "base"), latents)}

    def check_coding(self, coding: CodingOptions) -> None:
        """Refuse to compare modes whose pixels differ."""
        if self.options.propagates and coding.mode_decision != "inter":
            raise ValueError(
                "modes can be compared by their bits only where pixels are the same: "
                "with mean_centred or separate, set mode_decision to inter"
            )

    @property
    def exact(self) -> bool:
        """Whether decoders show the same frames whatever they run with."""
        return self.coding.numeric == "float64" or super().exact

    # Training and estimates.

    def forward(self, clip: Tensor, rate: Tensor, **conditions: Tensor) -> CodecOutput:
        """Code a clip differentiably; see :meth:`VideoCodec.forward`.

        What is coded follows from :attr:`objective`. In eval mode nothing is noisy,
        and where whole frames are coded, modes are chosen as the encoder does.

        Args:
            clip: (B, T, 3, H, W), RGB in [0, 1].
            rate: (B,), quality in [0, 1].
            conditions: Both optional. ``quality`` (B, T): of each frame, instead of
                ``rate``. ``seeds`` (B,) int64: per-sample noise of the rate estimate
                (training draws it where absent).

        Returns:
            ``x_hat`` is clamped to [0, 1] in eval mode only, so that training feels
            how far it overshoots. ``parts`` has the bits of motion, hyper-latent and
            latent.
        """
        batch, count, _, height, width = clip.shape
        chooses = not self.training and self.objective in CODES_FRAMES
        if chooses and batch > 1:
            return self._one_by_one(clip, rate, conditions)
        seeds = conditions.get("seeds")
        if seeds is None and self.training:
            seeds = torch.randint(0, 2**62, (batch,), device=clip.device)
        quality = conditions.get("quality", rate[:, None].expand(-1, count))
        steps = (quality.double() * QUALITY_STEPS).round()
        frames = pad_to_multiple(clip.flatten(0, 1), self.pad_multiple)
        padded = Clip(
            frames.unflatten(0, (batch, count)),
            (steps / QUALITY_STEPS).float(),
            seeds,
            self.weighed_terms,
        )
        if chooses:
            out = code_frames(self.network, padded, modes=self._modes)
        else:
            recompute = self.training and self.checkpoint_activations
            out = estimate_clip(self.network, padded, self.objective, recompute)
        x_hat = torch.stack(out.pixels, dim=1)[..., :height, :width].float()
        bits = torch.stack(out.bits, dim=1)
        return CodecOutput(
            x_hat if self.training else x_hat.clamp(0.0, 1.0),
            bits.sum(-1),
            out.terms,
            {part: bits[..., number] for number, part in enumerate(PARTS)},
        )

    def _one_by_one(
        self, clip: Tensor, rate: Tensor, conditions: dict[str, Tensor]
    ) -> CodecOutput:
        """Code samples apart: each frame of each chooses its mode."""
        outs = [
            self(
                clip[i : i + 1],
                rate[i : i + 1],
                **{name: value[i : i + 1] for name, value in conditions.items()},
            )
            for i in range(len(clip))
        ]
        return CodecOutput(
            torch.cat([out.x_hat for out in outs]),
            torch.cat([out.bits for out in outs]),
            outs[0].terms,
            {part: torch.cat([out.parts[part] for out in outs]) for part in PARTS},
        )

    def _modes(self, state: State) -> list[Mode]:
        """Return the ways to code a frame that are tried."""
        if not state or self.objective == "image":
            return [Mode.INTRA]
        if self.coding.mode_decision == "inter":
            return [Mode.INTER]
        if not self.options.pixel_alignment:
            return [Mode.INTER, Mode.INTRA]
        return [Mode.INTER, Mode.STILL, Mode.INTRA]

    # Packets.

    def _compress(
        self, frames: Iterator[Tensor], schedule: Schedule, reconstruct: bool
    ) -> Iterator[Pending]:
        """Code frames; see :meth:`VideoCodec.compress`.

        Frames between starts may come out intra too, where that takes fewer bits.
        Pixels of a frame do not depend on the quality of another.
        """
        coder = self.frame_coder(self.coding.numeric)
        state: State = ()
        for number, frame in enumerate(frames):
            if schedule.starts(number):
                state = ()
            quality = schedule.rate_at(number)
            unit, state = coder.encode(frame, quality, state, reconstruct=reconstruct)
            yield unit

    def frame_coder(self, numeric: Numeric) -> FrameCoder:
        """Return what codes and decodes frames, with the weights as they are now."""
        return FrameCoder(
            self.network,
            self._exact(numeric),
            self.tables,
            self._modes,
            self.coding.mode_decision == "estimated",
        )

    @torch.inference_mode()
    def _exact(self, numeric: Numeric) -> DualDomainNetwork:
        """Return the network in another type."""
        like = self.network.like
        dtype = getattr(torch, numeric)
        if like.dtype == dtype:
            return self.network
        copy = self._copies.get(numeric)
        if copy is None or copy.like.device != like.device:
            copy = deepcopy(self.network).to(dtype).eval().requires_grad_(False)
            self._copies[numeric] = copy
            return copy
        weights = zip(copy.parameters(), self.network.parameters(), strict=True)
        for mine, theirs in weights:
            mine.copy_(theirs)
        return copy

    def train(self, mode: bool = True) -> "DualDomainCodec":
        """Switch mode; going back to training drops the networks' copies."""
        if mode:
            self._copies = {}
        super().train(mode)
        return self

    def _receive(
        self, packets: Iterable[Packet | None], height: int, width: int, scales: int
    ) -> Iterator[Received]:
        """Decode packets; see :meth:`VideoCodec.receive`.

        A lost packet, and every one after it that refers to it, shows the last good
        frame again (mid grey before the first), until an intra frame.
        """
        coders: dict[Numeric, FrameCoder] = {}
        state: State = ()
        lost = False
        last = torch.full((), 0.5).expand(3, height, width)
        for packet in packets:
            head = None if packet is None else read_head(packet)[0]
            if packet is None or head is None or (lost and head.mode != Mode.INTRA):
                lost = True
                yield Received(last)
                continue
            lost = False
            if head.numeric not in coders:
                coders[head.numeric] = self.frame_coder(head.numeric)
            coder = coders[head.numeric]
            last, state = coder.decode(packet, state, height, width)
            yield Received(last)

    # The rest of the contract.

    @torch.no_grad()
    def maps(self, frame: Tensor, rate: float) -> dict[str, Tensor]:
        """Return a frame's steps and experts; see :meth:`VideoCodec.maps`.

        ``log_step`` is the mean over channels of the logarithm of the quantisation
        step. A dead mixture shows as a standard deviation near 0. ``expert<i>`` is the
        share of an expert; its mean is how much it is used.
        """
        network = self.network
        padded = pad_to_multiple(frame[None].to(self.like.device), self.pad_multiple)
        quality = torch.tensor([rate], device=self.like.device)
        content = network.transform(padded)
        if network.steps_by_hyper:
            target = network.analyse(padded, quality)
            port = EstimatePort(None)
            shape = latent_shape(padded)
            content = network.code(target, (), None, quality, shape, port).hyper
        steps = network.encoder_steps
        size = content.shape[-2:]
        step = -steps(content, quality).mean(dim=1)[0]
        maps = {"log_step": step.expand(size)}
        if steps.experts is not None:
            shares = steps.experts.shares(content, quality)[0]
            maps |= {f"expert{i}": share for i, share in enumerate(shares, start=1)}
        return maps

    @property
    def latents(self) -> Latents:
        """The symbols of a frame, without its motion; see the base class."""
        block = 1, LATENT_STRIDE, LATENT_STRIDE
        symbols = self.network.symbols(Mode.INTRA, (1, 1, 1))["symbols"]
        return Latents(block, {"symbols": symbols}, "motion is not counted")

    def build_tables(self) -> dict[str, CdfTables]:
        """Return the Gaussian tables and the factorised ones of each z."""
        tables = {
            "symbols": symbol_tables(),
            "hyper": self.network.z_prior.tables(),
        }
        if self.options.pixel_alignment:
            tables["motion"] = self.network.motion_decoder.z_prior.tables()
        return tables

    def passes(self, height: int, width: int) -> dict[str, Callable[[], object]]:
        """Return an inter frame with all its references; see the base class.

        One way of coding it: where the encoder chooses between modes, the two others
        cost a pass of ``decode`` without the decoder's transform each.
        """
        rows, columns = padded_size(height, width, self.pad_multiple)
        frame = self.like.new_zeros(1, 3, rows, columns)
        shape = latent_shape(frame)
        # Not the preset's of the architecture's name, which may be a former one.
        channels = self.network.context.start.shape[1]
        latent = frame.new_zeros(1, channels, *shape[1:])
        still = frame.new_zeros(1, 2, rows, columns)
        quality = torch.tensor([0.5], device=self.like.device)
        known = Reference(frame, latent, still)
        state = (known,) * self.options.references

        def run(coded: bool) -> tuple[Tensor, Reference]:
            network, port = self.network, SilentPort()
            motion = target = None
            if coded and self.options.pixel_alignment:
                motion = network.analyse_flow(frame, frame, quality)
            flow = network.code_motion(Mode.INTER, motion, quality, shape, port)
            if coded and self.options.transform == "unified":
                target = network.analyse(frame, quality)
            elif coded:
                assert flow is not None
                target = network.analyse_inter(frame, frame, flow, quality)
            symbols = network.code(target, state, flow, quality, shape, port)
            return network.finish(symbols, state, flow, quality)

        return {"encode": partial(run, True), "decode": partial(run, False)}
