"""LPIPS, the learned perceptual distance: what training minimises and tests measure.

Its weights are never downloaded. A missing file is an error that names it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lightning_modules.lpips_network import LpipsNetwork, heads_file, load_network

LpipsNet = Literal["alex", "vgg", "squeeze", "random"]

LPIPS_SIDE = 32
"""Smallest side of LPIPS: below it the backbones run out of pixels."""

LPIPS_FILES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
PIXELS_AT_ONCE = 2**21
"""Of planes of MS-SSIM and frames of LPIPS that are computed together: one of 1080p,
many of a crop. On a CPU buffers beyond that are twice as slow."""


class UnavailableMetricError(ValueError):
    """A metric cannot be measured here; the message says what it lacks."""


class Lpips:
    """Learned perceptual distance of frames; owns its network outside any module.

    The network is frozen, in evaluation mode, and belongs to no ``nn.Module``: a
    model that owned it would train its heads and save its backbone. Gradients pass
    through it to the frames.

    Args:
        net: Backbone: ``alex``, ``vgg`` or ``squeeze``; name it beside the figure.
            ``random`` is AlexNet with random weights from a fixed seed, a stand-in
            for rehearsals and tests: it needs no file, and its values mean nothing
            beside those of the others.

    Raises:
        UnavailableMetricError: The backbone's weights are not on this machine. They
            are never downloaded.
        ValueError: There is no such backbone.

    Source: arXiv 1801.03924, version 0.1 of the linear heads.
    """

    def __init__(self, net: str = "alex") -> None:
        check_lpips(net)
        self.net = net
        # Settled here: a later change of TORCH_HOME gives no other distances.
        self._file = None if net == "random" else lpips_file(net)
        self._written = self._file.stat().st_mtime_ns if self._file else 0
        self.network = self._on(torch.device("cpu"))

    def __call__(self, x_hat: Tensor, clip: Tensor) -> Tensor:
        """Return each frame's distance, 0 for equal frames.

        Args:
            x_hat: (..., 3, H, W), RGB in [0, 1]; it may leave the range a little, as
                reconstructions in training do.
            clip: Like ``x_hat``.

        Raises:
            UnavailableMetricError: A side is below 32 pixels.
        """

        def of_frames(x: Tensor, y: Tensor) -> Tensor:
            return self.distance(self.features(x), self.features(y))

        return in_groups(of_frames, x_hat, clip)

    def features(self, frames: Tensor) -> list[Tensor]:
        """Return what :meth:`distance` compares, so that it is computed once.

        Args:
            frames: (N, 3, H, W), RGB in [0, 1].

        Returns:
            Maps (N, C, h, w) of unit vectors, one per layer of the backbone.

        Raises:
            UnavailableMetricError: A side is below 32 pixels.
        """
        check_side("lpips needs", frames.shape[-2:], LPIPS_SIDE)
        network = self._on(frames.device)
        # Its heads tell apart what bfloat16 rounds to one value.
        with torch.autocast(frames.device.type, enabled=False):
            return [_unit(layer) for layer in network(frames.float())]

    def distance(self, features: list[Tensor], others: list[Tensor]) -> Tensor:
        """Return the distance (N,) between frames with these features."""
        heads = self._on(features[0].device).heads
        layers = zip(heads, features, others, strict=True)
        with torch.autocast(features[0].device.type, enabled=False):
            return torch.stack(
                [head((x - y).square()).mean(dim=(1, 2, 3)) for head, x, y in layers]
            ).sum(dim=0)

    def _on(self, device: torch.device) -> LpipsNetwork:
        """Return the network on a device; all of one backbone share it."""
        net = "alex" if self._file is None else self.net
        heads = heads_file(net)
        assert heads is not None, "it was looked for"
        return load_network(net, self._file, self._written, heads, device)


def _unit(layer: Tensor) -> Tensor:
    """Scale the vectors of (N, C, h, w) to length 1; zeros stay zeros."""
    # The library's root has an infinite slope at zeros, which makes gradients NaN.
    length = layer.square().sum(dim=1, keepdim=True).clamp_min(1e-20).sqrt()
    return layer / (length + 1e-10)


def check_lpips(net: str) -> None:
    """Look for a backbone's weights, and its heads', without loading them.

    Raises:
        UnavailableMetricError: They are not on this machine.
        ValueError: ``net`` is neither a backbone of LPIPS nor ``random``.
    """
    if net != "random" and net not in LPIPS_FILES:
        raise ValueError(f"lpips has no backbone {net!r}, choose {list(LPIPS_FILES)}")
    if heads_file("alex") is None:
        raise UnavailableMetricError(
            "lpips needs the package lpips, which holds its heads: pip install lpips"
        )
    if net == "random":
        return
    check_file("lpips needs the backbone weights", lpips_file(net))


def lpips_file(net: str) -> Path:
    """Return where the backbone's weights must lie; the same file for every library.

    Raises:
        ValueError: ``net`` is no backbone of LPIPS, or one that needs no file.
    """
    if net not in LPIPS_FILES:
        raise ValueError(f"lpips has no backbone {net!r}, choose {list(LPIPS_FILES)}")
    return hub_file(LPIPS_FILES[net])


def hub_file(name: str) -> Path:
    """Return where every library looks for a file of weights."""
    return Path(torch.hub.get_dir(), "checkpoints", name).absolute()


def check_file(needs: str, file: Path) -> None:
    """Raise ``UnavailableMetricError`` if there is no such file.

    Args:
        needs: Who needs what, for the message.
        file: As :func:`hub_file` gives it.
    """
    if not file.is_file():
        raise UnavailableMetricError(
            f"{needs} {file.name}, put them at {file} (or set TORCH_HOME to the folder "
            "that holds hub/checkpoints)"
        )


def check_side(needs: str, size: Sequence[int], least: int) -> None:
    """Raise ``UnavailableMetricError`` if a side of frames is too small.

    Args:
        needs: Who needs larger ones, for the message.
        size: Height and width.
        least: The smallest side.
    """
    height, width = size
    if min(height, width) < least:
        raise UnavailableMetricError(
            f"{needs} frames of at least {least}x{least} pixels, these have "
            f"{width}x{height}"
        )


def in_groups(
    function: Callable[[Tensor, Tensor], Tensor], x_hat: Tensor, clip: Tensor
) -> Tensor:
    """Apply a function of (N, C, H, W) to (..., C, H, W), a few pictures at a time."""
    height, width = x_hat.shape[-2:]
    at_once = max(1, PIXELS_AT_ONCE // (height * width))
    pictures = (v.reshape(-1, *v.shape[-3:]).split(at_once) for v in (x_hat, clip))
    values = [function(x, y) for x, y in zip(*pictures, strict=True)]
    return torch.cat(values).reshape(x_hat.shape[:-3])
