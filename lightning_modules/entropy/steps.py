"""The order in which elements of a latent are coded, so that some can see others."""

from functools import lru_cache

import torch
from torch import Tensor

from lightning_modules.entropy.lasting import lasting

TILES = {2: [[0, 1], [1, 0]], 4: [[0, 1], [2, 3]]}
"""The places of a 2 x 2 tile by the number of coding steps."""
ORDERS = {2: [0, 1], 4: [0, 3, 2, 1]}
"""What moves the groups in each step; of 4, to the opposite corner first."""


@lru_cache(maxsize=8)
@lasting()
def step_masks(
    steps: int, channels: int, height: int, width: int, device: torch.device
) -> Tensor:
    """Return which elements of a latent each coding step codes.

    The channels fall into ``steps`` groups and the positions into as many places of
    a 2 x 2 tile (the two colours of a checkerboard for 2 steps, a quad-tree for 4).

    Returns:
        bool (steps, channels, height, width); over the steps each element once.

    Source: DCVC-RT (arXiv 2502.20762), section 3.
    """
    places = torch.tensor(TILES[steps]).repeat(height // 2 + 1, width // 2 + 1)
    places = places[:height, :width]
    step, group = torch.tensor(ORDERS[steps])[:, None], torch.arange(steps)[None, :]
    # Exclusive or: in every step the groups sit on different places, and over all
    # steps each group visits every place once.
    masks = places == (step ^ group)[:, :, None, None]
    return masks.repeat_interleave(channels // steps, dim=1).to(device)


@lru_cache(maxsize=8)
@lasting()
def step_positions(
    steps: int, channels: int, height: int, width: int, device: torch.device
) -> tuple[Tensor, ...]:
    """Return the flat positions at which each of :func:`step_masks` holds, int64."""
    # Found on the host: a GPU would be waited for, and "meta" has nothing to find.
    masks = step_masks(steps, channels, height, width, torch.device("cpu"))
    return tuple(mask.flatten().nonzero()[:, 0].to(device) for mask in masks)


def checkerboard(height: int, width: int, device: torch.device) -> Tensor:
    """Return the two colours of a board, bool (2, height, width)."""
    return step_masks(2, 2, height, width, device)[:, 0]


@lru_cache(maxsize=8)
@lasting()
def checkerboard_positions(
    height: int, width: int, device: torch.device
) -> tuple[Tensor, ...]:
    """Return the flat positions of each colour of :func:`checkerboard`, int64."""
    board = checkerboard(height, width, torch.device("cpu"))
    return tuple(colour.flatten().nonzero()[:, 0].to(device) for colour in board)
