"""The parts of CompressAI that networks here consist of, and what loads its models.

Importing them takes 3 s of a CPU in every process, mostly for torch_geometric. So
only who builds such a network imports this file, and not before.
"""

import warnings

import torch

# On this device, whatever a caller builds networks on.
with torch.device("cpu"), warnings.catch_warnings():
    # torch_geometric compiles functions in a way that torch announces to drop.
    warnings.simplefilter("ignore", FutureWarning)
    from compressai.entropy_models import EntropyBottleneck, GaussianConditional
    from compressai.layers import subpel_conv3x3
    from compressai.models.utils import conv, deconv
    from compressai.models.video import ScaleSpaceFlow
    from compressai.registry import MODELS
    from compressai.zoo import image, video
    from compressai.zoo.pretrained import load_pretrained

__all__ = [
    "MODELS",
    "EntropyBottleneck",
    "GaussianConditional",
    "ScaleSpaceFlow",
    "conv",
    "deconv",
    "image",
    "load_pretrained",
    "subpel_conv3x3",
    "video",
]
