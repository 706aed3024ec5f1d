"""DHVC's entropy model: Gaussian priors of latents that are coded less their mean.

Source: arXiv 2410.02598, equations 13 to 16.
"""

from functools import cache
from math import log

import torch.nn.functional as F
from torch import Tensor

from lightning_modules.entropy.distributions import Gaussians
from lightning_modules.entropy.estimates import lower_bound, training_bits
from lightning_modules.entropy.priors import ScaleLevels
from lightning_modules.entropy.tables import CdfTables
from lightning_modules.layers import at_least_float32

SIGMA_LEVELS = ScaleLevels(0.11, 256.0, 95)
"""QARV has 64 levels from 0.11 to 20, but networks may say more (up to e^10 in DHVC
1.0): the rate that trains would not be the one that is coded. Same spacing, further."""
SOFTPLUS_SHIFT = 2.3
"""log sigma = softplus(x + 2.3) - 2.3: linear for large x, and never below -2.3, where
sigma is 0.100 and a residual of 0 costs nothing any more."""


def split_prior(parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of (B, 2 z, h, w), each (B, z, h, w).

    Sigma lies within the range of the tables. Both are float32 at least, whatever the
    layers run in.
    """
    mean, raw = at_least_float32(parameters).chunk(2, dim=1)
    log_sigma = F.softplus(raw + SOFTPLUS_SHIFT) - SOFTPLUS_SHIFT
    log_sigma = lower_bound(log_sigma, log(SIGMA_LEVELS.low))
    # Likewise from above: a gradient passes wherever descent would lower it.
    log_sigma = -lower_bound(-log_sigma, -log(SIGMA_LEVELS.high))
    return mean, log_sigma.exp()


def gaussians(sigma: Tensor) -> Gaussians:
    """Return how latents less their mean are distributed."""
    return Gaussians(sigma, SIGMA_LEVELS, table="z", noisy_bits=training_bits)


@cache
def sigma_tables() -> CdfTables:
    """Return the tables of ``SIGMA_LEVELS``, which no weight changes."""
    return SIGMA_LEVELS.tables()
