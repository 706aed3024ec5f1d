"""Quantisation steps: by quality and, with experts, by content.

A latent y becomes symbols by a scale S(y, q), and symbols become a latent again by
another, which the decoder knows from symbols and quality alone; or both follow from the
frame's own hyper-latent. So a step never depends on other frames. The effective step is
1 / S.
"""

from functools import partial
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.dual_domain.design import LMBDA_RANGE, Options, StepKind, Widths
from lightning_modules.dual_domain.transforms import squash
from lightning_modules.float32 import in_float32, widened, without_autocast
from lightning_modules.layers import at_least_float32

SLOPE = 0.5 * log(LMBDA_RANGE[1] / LMBDA_RANGE[0])
"""Of log S over quality, at first: at high rates a step goes with lambda^(-1/2)."""
REACH = log(2.0)
"""Largest change of log S by the experts."""
HIDDEN, ROUTER, EMBEDDING = 32, 64, 32
GAINS = 8
"""Vectors between which ``gain8`` interpolates."""
STEEPEST = 0.2
"""log S shall rise by at least this over quality 0 to 1, everywhere."""
PROBE = 1 / 64
"""Half the distance of the two qualities that the slope is measured with."""
BALANCE_WEIGHT, ROUTER_WEIGHT = 1e-2, 1e-3


class Gain(nn.Module):
    """log S as a function of quality alone, (B, C, 1, 1).

    Args:
        channels: C.
        kind: ``scalar``, ``gain8``, or one straight line per channel.
    """

    def __init__(self, channels: int, kind: StepKind) -> None:
        super().__init__()
        own = 1 if kind == "scalar" else channels
        places = GAINS if kind == "gain8" else 2
        line = SLOPE * torch.linspace(0.0, 1.0, places)
        self.points = nn.Parameter(line[:, None].repeat(1, own))

    def forward(self, quality: Tensor) -> Tensor:
        """Interpolate between the points; quality is (B,), 0 at the first."""
        last = len(self.points) - 1
        place = (quality * last).clamp(0.0, float(last))
        low = place.detach().floor().clamp(max=last - 1).long()
        # Beyond both ends the line goes on.
        share = (quality * last - low)[:, None]
        points = at_least_float32(self.points)
        value = points[low] * (1.0 - share) + points[low + 1] * share
        return value[..., None, None]


class QualityEmbedding(nn.Module):
    """Quality (B,) to (B, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(10, EMBEDDING)
        self.second = nn.Linear(EMBEDDING, EMBEDDING)

    def forward(self, quality: Tensor) -> Tensor:
        """Embed q, q^2 and four octaves of sine and cosine."""
        octaves = torch.arange(4, dtype=quality.dtype, device=quality.device)
        angles = quality[:, None] * (torch.pi * 2.0**octaves)
        powers = torch.stack([quality, quality.square()], dim=1)
        features = torch.cat([powers, angles.sin(), angles.cos()], dim=1)
        hidden = F.gelu(self.first(features.to(self.first.weight)))
        embedded: Tensor = self.second(hidden)
        return embedded


class Experts(nn.Module):
    """A mixture, position by position, of networks that see content and quality.

    All experts run everywhere, since they are small, and by default all count
    everywhere: a choice of some (``top_k``) is a discontinuity, and another machine may
    fall on the other side of it.

    A position's answer depends on the 3 x 3 positions around it and on nothing else. So
    it is the same in a crop and in the frame.

    Args:
        channels: Of the content and of log S.
        count: Number of experts; one needs no router.
        options: ``top_k`` and ``step_offset``.
    """

    def __init__(self, channels: int, count: int, options: Options) -> None:
        super().__init__()
        self.count = count
        self.top_k = options.top_k or count
        self.by_frame = options.step_offset == "frame"
        self.embed = QualityEmbedding()
        if count > 1:
            self.router_in = nn.Conv2d(channels, ROUTER, 1)
            self.router_quality = nn.Linear(EMBEDDING, ROUTER)
            around = nn.Conv2d(
                ROUTER, ROUTER, 3, padding=1, padding_mode="replicate", groups=ROUTER
            )
            # Zeros around would mark the frame's edge, and steps follow whatever
            # differs: of the 4 x 4 positions of a small crop 12 lie there (0.5 dB in a
            # rehearsal).
            self.router_out = nn.Sequential(
                nn.GELU(),
                around,
                nn.GELU(),
                nn.Conv2d(ROUTER, count, 1),
            )
        hidden = count * HIDDEN
        self.expert_in = nn.Conv2d(channels, hidden, 1)
        self.film = nn.Linear(EMBEDDING, 2 * hidden)
        self.expert_out = nn.Conv2d(hidden, count * channels, 1, groups=count)

    def route(self, content: Tensor, quality: Tensor) -> Tensor:
        """Return the router's logits (B, count, h, w)."""
        if self.count == 1:
            return at_least_float32(content[:, :1]).new_zeros(content[:, :1].shape)
        asked = self.router_quality(self.embed(quality))[..., None, None]
        logits: Tensor = self.router_out(self.router_in(squash(content)) + asked)
        return at_least_float32(logits)

    def shares(self, content: Tensor, quality: Tensor) -> Tensor:
        """Return how much each expert counts (B, count, h, w), 1 together."""
        logits = self.route(content, quality)
        if self.top_k < self.count:
            least = logits.topk(self.top_k, dim=1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        return logits.softmax(dim=1)

    def forward(self, content: Tensor, quality: Tensor) -> Tensor:
        """Return the change of log S, (B, C, h, w), within +-ln 2.

        What all positions of a channel want alike is the gain's business: left to the
        experts, which learn faster, it drives every tanh into saturation (seen within
        300 steps: no position differed from another any more). So the experts' say is
        less an offset per channel and quality, which is what they say where there is no
        content: what moves them all at once moves no step. And in training they do not
        feel the share of a frame's gradient that all of its positions have in common;
        no value depends on that, as it would if the frame's mean were the offset
        (``step_offset: frame``).
        """
        mixed = self._mix(content, quality)
        common = mixed.mean(dim=(-2, -1), keepdim=True)
        if self.by_frame:
            return REACH * torch.tanh(mixed - common)
        # Not without gradients from the start: autocast would keep such weights.
        offset = self._mix(torch.zeros_like(content[..., :1, :1]), quality).detach()
        return REACH * torch.tanh(mixed - offset - (common - common.detach()))

    def _mix(self, content: Tensor, quality: Tensor) -> Tensor:
        """Return what the experts say, (B, C, h, w)."""
        shares = self.shares(content, quality)
        film = self.film(self.embed(quality))[..., None, None]
        factor, offset = film.chunk(2, dim=1)
        hidden = F.gelu(self.expert_in(squash(content)) * (1.0 + factor) + offset)
        opinions = self.expert_out(hidden).unflatten(1, (self.count, -1))
        return (at_least_float32(opinions) * shares[:, :, None]).sum(dim=1)


class StepScale(nn.Module):
    """log S of content and quality.

    Args:
        widths: Channels and number of experts.
        options: Of them ``step`` and what is said of experts.
    """

    def __init__(self, widths: Widths, options: Options) -> None:
        super().__init__()
        self.gain = Gain(widths.latent, options.step)
        self.experts = (
            Experts(widths.latent, options.experts or widths.experts, options)
            if options.step in ("moe", "moe_hyper")
            else None
        )

    def forward(self, content: Tensor, quality: Tensor) -> Tensor:
        """Return log S, (B, C, h, w), or (B, C, 1, 1) without experts.

        Args:
            content: (B, C, h, w), what the experts see.
            quality: (B,), in [0, 1].
        """
        gain: Tensor = self.gain(quality)
        if self.experts is None:
            return gain
        # Here bfloat16 would save nothing, and its digits of log S are digits of y.
        return gain + in_float32(partial(self.experts, quality=quality), content)

    def unscale(self, symbols: Tensor, quality: Tensor) -> Tensor:
        """Return symbols (B, C, h, w) as content: less the share of quality alone."""
        return symbols * torch.exp(-self.gain(quality))


def regularisers(
    scales: list[tuple[StepScale, Tensor]], quality: Tensor, weighed: frozenset[str]
) -> dict[str, Tensor]:
    """Return the loss terms that keep experts alive and scales rising.

    ``load_balance`` is smallest when all experts are used alike, ``router_z`` keeps
    their logits small, and ``monotonicity`` is 0 where log S rises with quality.

    Args:
        scales: Each with the content that it sees, which is taken as constant.
        quality: (B,), in [0, 1].
        weighed: Names of the terms to compute.
    """
    # Slopes are small differences, of less than bfloat16 tells apart.
    scales = [(scale, widened(content.detach())) for scale, content in scales]
    with without_autocast(quality):
        return _regularisers(scales, quality, weighed)


def _regularisers(
    scales: list[tuple[StepScale, Tensor]], quality: Tensor, weighed: frozenset[str]
) -> dict[str, Tensor]:
    terms: dict[str, Tensor] = {}
    unrouted = weighed.isdisjoint({"load_balance", "router_z"})

    def add(name: str, value: Tensor) -> None:
        terms[name] = terms[name] + value if name in terms else value

    for scale, content in scales:
        if "monotonicity" in weighed:
            rise = scale(content, quality + PROBE) - scale(content, quality - PROBE)
            add("monotonicity", F.relu(STEEPEST - rise / (2 * PROBE)).mean())
        experts = scale.experts
        if experts is None or experts.count == 1 or unrouted:
            continue
        logits = experts.route(content, quality)
        if "load_balance" in weighed:
            shares = logits.softmax(dim=1).mean(dim=(0, 2, 3))
            chosen = F.one_hot(logits.argmax(dim=1), experts.count).float()
            balance = experts.count * (chosen.mean(dim=(0, 1, 2)) * shares).sum()
            add("load_balance", BALANCE_WEIGHT * balance)
        if "router_z" in weighed:
            peak = logits.logsumexp(dim=1).square().mean()
            add("router_z", ROUTER_WEIGHT * peak)
    return terms
