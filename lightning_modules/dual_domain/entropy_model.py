"""DualDomain's entropy model: Gaussians with a mean, over the whole numbers.

Symbols are whole numbers on a grid that nothing moves; where a Gaussian's mean lies
only changes what each of them costs. So tables exist for means between two numbers
too: 16 fractions, one of them 0, for each of 64 standard deviations.

Source: the bottleneck of VCT (arXiv 2206.07307) and FTIC; the numbers are ours.
"""

from dataclasses import dataclass
from functools import cache
from math import ceil, log, sqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.dual_domain.design import Widths
from lightning_modules.entropy.distributions import Distributions, Whole
from lightning_modules.entropy.estimates import (
    gaussian_bits,
    lower_bound,
    training_bits,
)
from lightning_modules.entropy.ports import Port
from lightning_modules.entropy.priors import ScaleLevels
from lightning_modules.entropy.steps import checkerboard
from lightning_modules.entropy.symbols import OverflowingError
from lightning_modules.entropy.tables import CdfTables, tables_from_pmf
from lightning_modules.layers import at_least_float32

LEVELS = ScaleLevels(0.11, 64.0, 64)
FRACTIONS = 16
"""Of a mean, with one at 0. More would save less than 0.1 % of the bits, 4 cost 1 %."""
LARGEST_MEAN = 2.0**20
GUARD = 1e-9
"""Machines whose float64 results differ by less agree on all tables."""


@dataclass(frozen=True)
class TableChoice:
    """Which table codes each element, and by how much its values are shifted.

    Attributes:
        means: int64, the mean in sixteenths.
        levels: int64, number of the standard deviation.
        doubtful: bool, so near to the edge between two that machines may disagree.
    """

    means: Tensor
    levels: Tensor
    doubtful: Tensor

    def numbers(self) -> tuple[Whole, Whole]:
        """Return table and shift of each element."""
        return self.rows.cpu().numpy(), self.shifts.cpu().numpy()

    @property
    def shifts(self) -> Tensor:
        """The whole number nearest to each mean."""
        return (self.means + FRACTIONS // 2).div(FRACTIONS, rounding_mode="floor")

    @property
    def rows(self) -> Tensor:
        """The table of each element."""
        fraction = self.means - FRACTIONS * self.shifts + FRACTIONS // 2
        return self.levels * FRACTIONS + fraction


def choose_tables(mean: Tensor, log_scale: Tensor) -> TableChoice:
    """Return the tables of elements.

    Args:
        mean: (n,), in units of symbols.
        log_scale: (n,), logarithm of the standard deviation.

    Raises:
        OverflowingError: A mean or a scale is not finite.
    """
    if not bool(mean.isfinite().all() and log_scale.isfinite().all()):
        raise OverflowingError(
            "the entropy model is not finite: the weights are untrained, damaged, or "
            "too large for this dtype"
        )
    places = mean.clamp(-LARGEST_MEAN, LARGEST_MEAN) * FRACTIONS
    heights = (log_scale - log(LEVELS.low)) / LEVELS.step
    heights = heights.clamp(0.0, LEVELS.count - 1.0)
    return TableChoice(
        places.round().long(),
        heights.round().long(),
        _near_an_edge(places) | _near_an_edge(heights),
    )


def _near_an_edge(x: Tensor) -> Tensor:
    return (x - x.floor() - 0.5).abs() < GUARD


@cache
def symbol_tables() -> CdfTables:
    """Return the tables that :attr:`TableChoice.rows` points into.

    No weight changes them.
    """
    levels = torch.arange(LEVELS.count, dtype=torch.float64)
    scales = torch.exp(log(LEVELS.low) + LEVELS.step * levels)
    # 3.72 sigma leave 1e-4 above; half a symbol more for the mean's fraction.
    reach = torch.tensor([max(2, ceil(3.72 * float(s) + 0.5)) for s in scales])
    fractions = (torch.arange(FRACTIONS) - FRACTIONS // 2) / FRACTIONS
    values = torch.arange(2 * int(reach.max()) + 1) - reach[:, None, None]
    distance = values.double() - fractions[:, None]
    spread = scales[:, None, None] * sqrt(2)

    def above(x: Tensor) -> Tensor:
        return 0.5 * torch.special.erfc(x / spread)

    # Each in the half where erfc is accurate: 1 - small would lose the tail.
    pmf = above(distance.abs() - 0.5) - above(distance.abs() + 0.5)
    edge = (reach + 0.5)[:, None]
    tails = above((edge - fractions)[..., None]) + above((edge + fractions)[..., None])
    rows = LEVELS.count * FRACTIONS
    length = (2 * reach + 1).repeat_interleave(FRACTIONS)
    return tables_from_pmf(
        pmf.reshape(rows, -1).numpy(),
        length.numpy(),
        -reach.repeat_interleave(FRACTIONS).numpy(),
        np.clip(tails.reshape(rows).numpy(), 0.0, None),
    )


class MeanGaussians(Distributions):
    """Gaussians whose means may lie between whole numbers.

    Args:
        mean: (B, C, h, w), in units of symbols.
        log_scale: Of the same shape, logarithm of the standard deviation.
        part: What the bits are spent on.
        keep: As in the base class.
    """

    def __init__(
        self, mean: Tensor, log_scale: Tensor, part: str, keep: Tensor | None = None
    ) -> None:
        super().__init__(mean, part, "symbols", keep)
        self.log_scale = log_scale

    def taken(self) -> Distributions:
        """Return those that are coded, without the others."""
        mean, log_scale = self.take(self.like), self.take(self.log_scale)
        return MeanGaussians(mean, log_scale, self.part)

    def bits(self, values: Tensor) -> Tensor:
        """Estimate what rounded values cost."""
        return gaussian_bits(values - self.like, self.log_scale.exp())

    def noisy_bits(self, values: Tensor) -> Tensor:
        """Estimate what values with noise cost."""
        return training_bits(values - self.like, self.log_scale.exp())

    def choice(self) -> TableChoice:
        """Return the tables of coded elements, in raster order."""
        mean, log_scale = self.take(self.like), self.take(self.log_scale)
        return choose_tables(mean.flatten(), log_scale.flatten())

    def choose(self) -> tuple[Whole, Whole | int]:
        """Return the same as numbers."""
        return self.choice().numbers()


def code_values(
    target: Tensor | None,
    mean: Tensor,
    log_scale: Tensor,
    port: Port,
    part: str,
    *,
    keep: Tensor | None = None,
    centred: bool = False,
) -> Tensor:
    """Code a latent and return its values where ``keep`` holds, 0 elsewhere.

    Args:
        target: (B, C, h, w), not yet rounded; ``None`` to decode.
        mean: Of the same shape, in units of symbols.
        log_scale: Of the same shape.
        port: Takes or gives the symbols.
        part: What the bits are spent on.
        keep: bool, (h, w), which positions are coded; all by default.
        centred: Symbols are whole numbers of the latent less its mean, and not of the
            latent itself, where the mean only changes what they cost (ablation).
    """
    origin = mean if centred else torch.zeros_like(mean)
    x = None if target is None else target.to(mean) - origin
    of = MeanGaussians(mean - origin, log_scale, part, keep)
    return of.mask(port.code(x, of) + origin)


def bounded_log_scale(raw: Tensor) -> Tensor:
    """Return log sigma within the range of the tables, smoothly at its lower end."""
    shift = -log(LEVELS.low)
    log_scale = F.softplus(raw + shift) - shift
    # From above, a gradient passes wherever descent would lower it.
    return -lower_bound(-log_scale, -log(LEVELS.high))


class Group(nn.Module):
    """Parameters of one group of channels, from all that is known before it.

    Args:
        before: Channels of the groups before it.
        channels: Its own.
        known: Channels of the features that are known from the beginning.
        hidden: Widths of the two hidden layers.
        kernel: Side of the kernel that sees its own coded half.
    """

    def __init__(
        self,
        before: int,
        channels: int,
        known: int,
        hidden: tuple[int, int],
        kernel: int,
    ) -> None:
        super().__init__()
        self.earlier = nn.Conv2d(before, 2 * channels, 3, padding=1) if before else None
        self.anchors = nn.Conv2d(channels, 2 * channels, kernel, padding=kernel // 2)
        inputs = known + (4 if before else 2) * channels
        self.mix = nn.Sequential(
            nn.Conv2d(inputs, hidden[0], 1),
            nn.GELU(),
            nn.Conv2d(hidden[0], hidden[1], 1),
            nn.GELU(),
            nn.Conv2d(hidden[1], 3 * channels, 1),
        )

    def forward(
        self, known: Tensor, before: Tensor, anchors: Tensor
    ) -> tuple[Tensor, ...]:
        """Return mean, raw log sigma and raw gate, each (B, channels, h, w)."""
        seen = [known, self.anchors(anchors.to(known))]
        if self.earlier is not None:
            seen.append(self.earlier(before.to(known)))
        parameters = at_least_float32(self.mix(torch.cat(seen, dim=1)))
        return parameters.chunk(3, dim=1)


class ContextModel(nn.Module):
    """Codes a latent in 4 groups of channels x 2 colours of a checkerboard.

    Args:
        widths: Channels, and how they are grouped.
    """

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        assert sum(widths.groups) == widths.latent, "groups must add up to the latent"
        self.groups = nn.ModuleList()
        self.sizes = widths.groups
        before = 0
        for channels in widths.groups:
            known = 2 * widths.latent
            group = Group(before, channels, known, widths.context, widths.anchors)
            self.groups.append(group)
            before += channels
        # What stands for the temporal context in frames without a reference.
        self.start = nn.Parameter(0.1 * torch.randn(1, widths.latent, 1, 1))

    def forward(
        self,
        target: Tensor | None,
        hyper: Tensor,
        temporal: Tensor | None,
        coarse: Tensor | None,
        port: Port,
        *,
        centred: bool = False,
        gain: Tensor | None = None,
    ) -> Tensor:
        """Code a frame's symbols through a port and return its values.

        Args:
            target: (B, C, h, w), not yet rounded; ``None`` to decode.
            hyper: (B, C, h, w), features from z.
            temporal: (B, C, h, w), features from other frames, if there are any.
            coarse: (B, C, h, w), the prediction in units of symbols, likewise.
            port: Takes or gives the symbols.
            centred: As in :func:`code_values`.
            gain: (B, C, 1, 1), added to the logarithms of deviations, if given.
        """
        if temporal is None:
            temporal = self.start.to(hyper).expand_as(hyper)
        known = torch.cat([hyper, temporal], dim=1)
        height, width = hyper.shape[-2:]
        coded: list[Tensor] = []
        first = 0
        for group, size in zip(self.groups, self.sizes, strict=True):
            part = slice(first, first + size)
            before = torch.cat(coded, dim=1) if coded else hyper[:, :0]
            own = at_least_float32(torch.zeros_like(hyper[:, part]))
            for keep in checkerboard(height, width, hyper.device):
                mean, raw, gate = group(known, before, own)
                if coarse is not None:
                    # The prediction is one in the symbols' own units.
                    share = at_least_float32(coarse[:, part])
                    mean = mean + torch.sigmoid(gate) * share
                if gain is not None:
                    raw = raw + at_least_float32(gain[:, part])
                own = own + code_values(
                    None if target is None else target[:, part],
                    mean,
                    bounded_log_scale(raw),
                    port,
                    "latent",
                    keep=keep,
                    centred=centred,
                )
            coded.append(own)
            first += size
        return torch.cat(coded, dim=1)
