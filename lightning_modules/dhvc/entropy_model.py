"""DHVC's entropy model: Gaussian priors of latents that are coded less their mean.

Source: arXiv 2410.02598, equations 13 to 16.
"""

from functools import cache
from math import log

import torch.nn.functional as F
from torch import Tensor

from lightning_modules.dhvc.design import LAYOUTS
from lightning_modules.entropy.distributions import Gaussians
from lightning_modules.entropy.estimates import lower_bound, training_bits
from lightning_modules.entropy.priors import ScaleLevels
from lightning_modules.entropy.tables import CdfTables
from lightning_modules.layers import at_least_float32

LEVELS = {
    structure: ScaleLevels(0.11, *layout.sigma) for structure, layout in LAYOUTS.items()
}
"""Standard deviations that have tables, by structure.

DHVC 1.0 has QARV's 64 levels from 0.11 to 20, and codes all above as 20. Its networks
may say more (up to e^10), so that the rate that trains would not be the one that is
coded. In 2.0 the same spacing goes on to 256; in both, sigma ends where the tables do.
"""
SIGMA_LEVELS = LEVELS["dhvc2"]
SOFTPLUS_SHIFT = 2.3
"""log sigma = softplus(x + 2.3) - 2.3: linear for large x, and never below -2.3, where
sigma is 0.100 and a residual of 0 costs nothing any more."""


def split_prior(
    parameters: Tensor,
    levels: ScaleLevels = SIGMA_LEVELS,
    log_step: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of (B, 2 z, h, w), each (B, z, h, w).

    Both are float32 at least, whatever the layers run in.

    Args:
        parameters: Of the prior.
        levels: Sigma lies within their range.
        log_step: (B, z, 1, 1), logarithm of the quantiser's step. The sigma that is
            returned counts in steps, the mean does not. ``None`` for a step of 1.
    """
    mean, raw = at_least_float32(parameters).chunk(2, dim=1)
    log_sigma = F.softplus(raw + SOFTPLUS_SHIFT) - SOFTPLUS_SHIFT
    if log_step is not None:
        log_sigma = log_sigma - log_step
    log_sigma = lower_bound(log_sigma, log(levels.low))
    # Likewise from above: a gradient passes wherever descent would lower it.
    log_sigma = -lower_bound(-log_sigma, -log(levels.high))
    return mean, log_sigma.exp()


def gaussians(sigma: Tensor, levels: ScaleLevels = SIGMA_LEVELS) -> Gaussians:
    """Return how latents less their mean are distributed."""
    return Gaussians(sigma, levels, table="z", noisy_bits=training_bits)


@cache
def sigma_tables(levels: ScaleLevels = SIGMA_LEVELS) -> CdfTables:
    """Return the tables of ``levels``, which no weight changes."""
    return levels.tables()
