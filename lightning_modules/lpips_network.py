"""The network of LPIPS: a backbone, and one linear head for each of its layers.

Its convolutions stand here, so that torchvision need not be imported: that takes twice
as long as torch itself. The heads' weights come from the package lpips, the backbones'
from the files that every library looks for.

Source: arXiv 1801.03924; its package's version 0.1.
"""

import importlib.util
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.saved_file import read_saved

HEADS = "weights/v0.1"
"""Folder of the heads' weights in the package lpips."""

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""Mean and deviation, in [-1, 1], of what the backbones were trained on."""

RANDOM_SEED = 0
"""Of the stand-in's weights, so that its values are the same everywhere."""


class Fire(nn.Module):
    """SqueezeNet's block: 1x1 to few channels, from there 1x1 and 3x3 side by side.

    Args:
        inputs: Channels.
        squeezed: Channels in the middle.
        outputs: Channels that each of the two gives.

    Source: arXiv 1602.07360, section 3.2.
    """

    def __init__(self, inputs: int, squeezed: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, outputs, 1)
        self.expand3x3 = nn.Conv2d(squeezed, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, 2 outputs, H, W)."""
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], dim=1)


Stages = list[list[nn.Module]]
"""A backbone's layers, cut behind each one that LPIPS looks at."""


def _conv(inputs: int, outputs: int, side: int, **more: Any) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, side, **more), nn.ReLU(inplace=True)]


def _alexnet() -> Stages:
    """Return the stages of AlexNet (arXiv 1404.5997)."""
    return [
        _conv(3, 64, 11, stride=4, padding=2),
        [nn.MaxPool2d(3, 2), *_conv(64, 192, 5, padding=2)],
        [nn.MaxPool2d(3, 2), *_conv(192, 384, 3, padding=1)],
        _conv(384, 256, 3, padding=1),
        _conv(256, 256, 3, padding=1),
    ]


def _vgg16() -> Stages:
    """Return the stages of VGG-16 (arXiv 1409.1556, configuration D)."""
    stages: Stages = []
    channels = 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        stage: list[nn.Module] = [nn.MaxPool2d(2, 2)] if stages else []
        for _ in range(depth):
            stage += _conv(channels, width, 3, padding=1)
            channels = width
        stages.append(stage)
    return stages


def _squeezenet() -> Stages:
    """Return the stages of SqueezeNet 1.1 (arXiv 1602.07360, and its repository)."""

    def halving() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    return [
        _conv(3, 64, 3, stride=2),
        [halving(), Fire(64, 16, 64), Fire(128, 16, 64)],
        [halving(), Fire(128, 32, 128), Fire(256, 32, 128)],
        [halving(), Fire(256, 48, 192)],
        [Fire(384, 48, 192)],
        [Fire(384, 64, 256)],
        [Fire(512, 64, 256)],
    ]


BACKBONES: dict[str, tuple[Callable[[], Stages], tuple[int, ...]]] = {
    "alex": (_alexnet, (64, 192, 384, 256, 256)),
    "vgg": (_vgg16, (64, 128, 256, 512, 512)),
    "squeeze": (_squeezenet, (64, 128, 256, 384, 384, 512, 512)),
}
"""Each backbone's stages, and the channels that each of them gives."""


class LpipsNetwork(nn.Module):
    """A backbone whose layers are looked at, and their heads; weights are random.

    Args:
        net: One of ``BACKBONES``.

    Attributes:
        features: All layers, numbered as files of weights number them.
        heads: Weigh each channel's squared difference, (N, C, h, w) to (N, 1, h, w).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: str) -> None:
        super().__init__()
        make, channels = BACKBONES[net]
        stages = make()
        self.features = nn.Sequential(*(layer for stage in stages for layer in stage))
        self.heads = nn.ModuleList(nn.Conv2d(c, 1, 1, bias=False) for c in channels)
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self._lengths = [len(stage) for stage in stages]

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Return each stage's maps (N, C, h, w) of frames (N, 3, H, W) in [0, 1]."""
        x = (frames * 2 - 1 - self.shift) / self.scale
        layers: Iterator[nn.Module] = iter(self.features)
        maps = []
        for length in self._lengths:
            for layer in islice(layers, length):
                x = layer(x)
            maps.append(x)
        return maps


def heads_file(net: str) -> Path | None:
    """Return where the package lpips keeps a backbone's heads; ``None`` without it."""
    package = importlib.util.find_spec("lpips")
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent / HEADS / f"{net}.pth"


@cache
def load_network(
    net: str, backbone: Path | None, written: int, heads: Path, device: torch.device
) -> LpipsNetwork:
    """Return a frozen network in evaluation mode; the same one for the same arguments.

    Loading takes as long as several frames, so all metrics and losses share it.

    Args:
        net: One of ``BACKBONES``.
        backbone: File of its weights; ``None`` for random ones, the same everywhere.
        written: When that file was, so that another one is read anew.
        heads: File of the heads' weights.
        device: Where it is; one on each device, for it would move back and forth.

    Raises:
        ValueError: A file is damaged, or holds other weights.
        OSError: It cannot be read.
    """
    # Tensors of inference mode could not pass gradients on later. What is drawn here
    # is no part of a run's random numbers.
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        network = LpipsNetwork(net)
        if backbone:
            _take(network.features, backbone, "features.", net)
        for number, head in enumerate(network.heads):
            _take(head, heads, f"lin{number}.model.1.", net)
        return network.to(device).eval().requires_grad_(False)


def _take(module: nn.Module, file: Path, prefix: str, net: str) -> None:
    """Load those weights of a file whose names begin so.

    Raises:
        ValueError: It is damaged, or they are not this module's.
    """
    try:
        saved: dict[str, Tensor] = read_saved(file)
    except ValueError as error:
        raise ValueError(f"{file} {error}: get the file again") from error
    own = {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)}
    wanted = {name: value.shape for name, value in module.state_dict().items()}
    if {name: value.shape for name, value in own.items()} != wanted:
        raise ValueError(
            f"{file} does not hold the weights of lpips {net} ({len(own)} of "
            f"{len(wanted)} under the name {prefix!r}, or of other shapes): get the "
            "file that torchvision calls so"
        )
    module.load_state_dict(own)
