"""CompressAI's network in three widths, and its prediction in any precision.

CompressAI takes seconds to import: that happens when a network is built, so that other
codecs and ``--help`` do not wait for it.

Source: Agustsson et al., "Scale-space flow for end-to-end optimized video compression",
CVPR 2020; ``compressai.models.video.ScaleSpaceFlow`` (CompressAI 1.2.8).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.layers import at_least_float32

NARROWER = {"paper": 1, "small": 2, "tiny": 8}
"""Divisor of the library's widths, which are 128 channels and 192 in latents."""
WIDEST_PICTURE = 6
"""Two RGB frames: layers have these channels in all widths."""
PARTS = ("img", "motion", "res")
"""What a frame is coded as: the first alone, then motion and a residual. The library
has an encoder, a decoder and a hyperprior for each, under these names."""


def build_network(size: str) -> Any:
    """Return a ``ScaleSpaceFlow`` of CompressAI with new weights.

    The library's class has one width; for the others each of its layers is replaced by
    one of the same kind with fewer channels.

    Args:
        size: A key of :data:`NARROWER`.
    """
    from lightning_modules.compressai import (
        EntropyBottleneck,
        ScaleSpaceFlow,
        conv,
        deconv,
    )

    def narrow(channels: int) -> int:
        return channels if channels <= WIDEST_PICTURE else channels // NARROWER[size]

    # Only the names and kinds of its layers are wanted, not a paper's size of weights.
    with torch.device("meta"):
        network = ScaleSpaceFlow()
    for name, layer in list(network.named_modules()):
        if isinstance(layer, EntropyBottleneck):
            network.set_submodule(name, EntropyBottleneck(narrow(layer.channels)))
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            make = conv if isinstance(layer, nn.Conv2d) else deconv
            channels = narrow(layer.in_channels), narrow(layer.out_channels)
            network.set_submodule(name, make(*channels))
    # The library's own parameters do not ask where they should be.
    return network.to(torch.get_default_device())


def predict(network: Any, reference: Tensor, motion: Tensor) -> Tensor:
    """Return the reference as the motion moves and blurs it.

    The library's own method computes in float32 always: decoders on two machines would
    not agree in float64.

    Args:
        network: Blurs as it was built to.
        reference: (N, 3, H, W), sides that 16 divides.
        motion: (N, 3, H, W): how far from itself a pixel looks, right and down in half
            frames, and where in the blurred copies, from -1 (sharp) to 1.

    Returns:
        (N, 3, H, W), float32 at least.

    Source: the paper's scale-space warp.
    """
    motion = at_least_float32(motion).permute(0, 2, 3, 1)
    volume = network.gaussian_volume(
        at_least_float32(reference), network.sigma0, network.num_levels
    )
    # Not by affine_grid, which autocast takes to half precision.
    rows, columns = (_centres(side, motion) for side in motion.shape[1:3])
    down, right = torch.meshgrid(rows, columns, indexing="ij")
    still = torch.stack([right, down, torch.zeros_like(down)], dim=-1)
    moved = F.grid_sample(
        at_least_float32(volume),
        (still + motion)[:, None],
        padding_mode="border",
        align_corners=False,
    )
    return moved[:, :, 0]


def _centres(side: int, like: Tensor) -> Tensor:
    """Return the centres of a row of pixels that reaches from -1 to 1."""
    # Made where they are needed: a copy to the device waits for all of its work.
    places = torch.arange(side, dtype=torch.float64, device=like.device)
    return ((2 * places + 1) / side - 1).to(like)
