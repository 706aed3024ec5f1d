"""A start of VideoVAE with LeanVAE as cosine transforms, in place of random ones.

Residual branches begin at nothing, so the codec begins as two linear maps: patches to
their strongest frequencies, in steps of an ideal quantiser, and back. From a random
start that takes thousands of steps. The paper names no start; this is ours, for
trainings of hours.
"""

from math import log, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.cosines import correlations, cosines, opponents, silence
from lightning_modules.entropy.z_prior import make_narrow
from lightning_modules.video_vae.backbone import SPACE_STRIDE, TIME_STRIDE
from lightning_modules.video_vae.codec import VideoVAECodec
from lightning_modules.video_vae.latent_codec import Bottleneck
from lightning_modules.video_vae.lean_vae import PATCH, LeanVAE, TokenLayer
from lightning_modules.video_vae.wavelets import FRAME_AXES, PAIR_AXES, haar

CORRELATION = 0.95
"""Of neighbouring pixels, in the usual model of pictures, a Markov chain; and of one
pixel in neighbouring frames."""


VARIANCES = (0.147, 0.015, 0.003)
"""Along the directions of RGB, of RGB in [0, 1]: means of 41 photographs."""

LEAST_SCALE, MOST_SCALE = 0.15, 16.0
"""Of y's distribution at the start."""

Z_SLOPE = 6.0
"""Of z's logits at the start, so that its zeros cost 0.15 bits each."""


def start_as_cosines(codec: VideoVAECodec, weight: float) -> None:
    """Make a codec begin as cosine transforms of its blocks, at the ideal step size.

    At high rates the best step of a uniform quantiser follows from the loss: of one
    number, ``bits - weight / 3 * error`` is flat at ``step^2 = 18 / (weight ln 2)``.

    Args:
        codec: Its backbone is LeanVAE; its weights are replaced.
        weight: Of the mean squared error, on the scale from 0 to 255, where a bit per
            pixel weighs 1.

    Raises:
        ValueError: Its backbone is another, or errors have no weight.
    """
    if not isinstance(codec.backbone, LeanVAE):
        raise ValueError(
            "initial is cosines, which is a start of the backbone lean_vae only: "
            "choose random, or backbone lean_vae"
        )
    if not weight > 0:
        raise ValueError(
            "initial is cosines, whose step size follows from lmbda times alpha, which "
            f"is {weight:g}: set alpha above 0, or initial to random"
        )
    step = sqrt(18 / (weight * log(2))) / 255
    with torch.no_grad():
        for module in codec.modules():
            if isinstance(module, TokenLayer):
                silence(module.narrow)
                if module.residual:
                    silence(module.depthwise)
            elif isinstance(module, Bottleneck):
                silence(module[-1])
        rows = _begin_backbone(codec.backbone)
        rows = _begin_latent_transforms(codec.latent_codec, rows, step)
        scales = (_variances(rows).sqrt() / step).clamp(LEAST_SCALE, MOST_SCALE)
        _begin_entropy_model(codec.latent_codec, scales)


def _begin_backbone(backbone: LeanVAE) -> Tensor:
    """Begin LeanVAE, and return its latents (c, 3, 4, 8, 8) as sums of pixels."""
    encoder, decoder = backbone.encoder, backbone.decoder
    for kind, frames, axes in (
        ("image", 1, FRAME_AXES),
        ("video", TIME_STRIDE, PAIR_AXES),
    ):
        gain = sqrt(2 ** len(axes))
        of_bands, of_pixels = _frequencies(frames, axes)
        size = len(of_bands) >> len(axes)
        tokens = []
        for part, own in (("low", slice(size)), ("high", slice(size, None))):
            layer: Any = encoder.patches[f"{kind}_{part}"]
            best = _strongest(of_pixels[own], layer.out_features)
            # Haar's bands are plain sums.
            rows = of_bands[own, own][best]
            _begin(layer, rows / gain)
            _begin(decoder.patches[f"{kind}_{part}"], gain * rows.T)
            missing = layer.out_features - len(rows)
            tokens.append(F.pad(of_pixels[own][best], (0, 0) * 4 + (0, missing)))
    # Those of four frames choose; those of one have the same places.
    of_tokens = torch.cat(tokens)
    best = _strongest(of_tokens, backbone.channels)
    _begin(encoder.sensing, torch.eye(len(of_tokens))[best])
    _begin(decoder.guess, torch.eye(len(of_tokens))[best].T)
    missing = backbone.channels - len(best)
    return F.pad(of_tokens[best], (0, 0) * 4 + (0, missing))


def _begin_latent_transforms(latent_codec: Any, rows: Tensor, step: float) -> Tensor:
    """Begin the transforms between latent and y, and return y as sums of pixels."""
    *downs, last = _convolutions(latent_codec.encoder)
    first, *ups, end = _convolutions(latent_codec.decoder)
    count = len(rows)
    for down, up in zip(downs, reversed(ups), strict=True):
        # Of four neighbours sums and differences, of each of their numbers.
        signs = torch.kron(*[torch.tensor([[1.0, 1.0], [1.0, -1.0]])] * 2) / 2
        of_four = torch.einsum("kab,nctij->knctaibj", signs.reshape(4, 2, 2), rows)
        of_four = of_four.flatten(6).flatten(4, 5).flatten(0, 1)
        best = _strongest(of_four, count)
        matrix = torch.kron(signs, torch.eye(count))[best]
        silence(down)
        silence(up)
        for place, part in enumerate(matrix.split(count, dim=1)):
            row, column = divmod(place, 2)
            down.weight[:, :, 1, 1 + row, 1 + column] = part
            up.weight[:, :, 1, 1 + row, 1 + column] = part
        rows = of_four[best]
    for layer, scale in ((last, 1 / step), (first, step), (end, 1.0)):
        silence(layer)
        layer.weight[:, :, 1, 1, 1] = scale * torch.eye(count)
    return rows


def _begin_entropy_model(latent_codec: Any, scales: Tensor) -> None:
    """Let y begin with the scales of pictures, and z as zeros that cost little."""
    silence(latent_codec.hyper_encoder[-1])
    make_narrow(latent_codec.prior, Z_SLOPE)
    sizes = latent_codec.context.sizes
    for group, own in zip(
        latent_codec.context.groups, scales.split(sizes), strict=True
    ):
        silence(group.aggregate[-1])
        group.aggregate[-1].bias[len(own) :] = own


def _convolutions(layers: nn.Sequential) -> list[Any]:
    return [layer for layer in layers if not isinstance(layer, Bottleneck)]


def _begin(layer: Any, matrix: Tensor) -> None:
    """Make a linear layer a matrix, with nothing where that ends."""
    silence(layer)
    layer.weight[: matrix.shape[0], : matrix.shape[1]] = matrix


def _frequencies(frames: int, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return orthonormal frequencies of a block's wavelet bands, lowest band first.

    Returns:
        As sums of the bands' samples, (n, n), and of pixels, (n, 3, frames, 8, 8).
    """
    steps = frames // 2 if len(axes) > 2 else frames
    one = opponents()
    for length in (steps, PATCH, PATCH):
        one = torch.kron(one, cosines(length))
    of_bands = torch.block_diag(*[one] * 2 ** len(axes))
    block = 3, frames, SPACE_STRIDE, SPACE_STRIDE
    impulses = torch.eye(len(of_bands)).reshape(-1, *block)
    bands = haar(impulses, axes).flatten(1) / sqrt(2 ** len(axes))
    return of_bands, (of_bands @ bands.T).reshape(-1, *block)


def _strongest(rows: Tensor, count: int) -> Tensor:
    """Return which sums of pixels vary most in pictures, strongest first."""
    return _variances(rows).argsort(descending=True, stable=True)[:count]


def _variances(rows: Tensor) -> Tensor:
    """Return the variances of sums of pixels (n, 3, t, h, w) in pictures."""
    axes = opponents()
    colour = axes.T @ torch.diag(torch.tensor(VARIANCES)) @ axes
    lengths = rows.shape[2:]
    time, height, width = (correlations(n, CORRELATION) for n in lengths)
    spread = torch.einsum("nctij,cC->nCtij", rows, colour)
    spread = torch.einsum("nctij,tT,iI,jJ->ncTIJ", spread, time, height, width)
    return (spread * rows).flatten(1).sum(dim=1)
