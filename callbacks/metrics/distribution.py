"""FID and KID: how far the decoded pictures, taken together, are from the source's.

Both compare the features that one network gives of all pictures of one kind with those
of the other kind, so they exist for a data set and not for a frame; lower is better.
Pictures are 8-bit RGB, either whole frames or squares of 256 pixels cut from them.

What moves published values, and what is done here:

* The network is the TF 2015 Inception-v3 with its 2048 pooled features. Pictures are
  resized to 299 x 299 as TF 1 did, bilinearly and without antialiasing, for KID too;
  torchmetrics' own FID uses antialiasing by default, and its KID always.
* Squares follow HiFiC: a grid from the top left corner, and a second one shifted by 128
  pixels both ways with one row and one column fewer. What a grid does not reach is not
  seen. NeuralCompression's second grid has more columns where there is room.
* FID of fewer samples than features is biased upwards and its covariances lack rank: it
  is computed and to be flagged. KID is not biased, and is refused below the size of its
  random subsets.

Source: FID arXiv 1706.08500; KID arXiv 1801.01401; squares arXiv 2006.09965, A.7.
"""

import importlib.util
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_modules.perceptual import (
    UnavailableMetricError,
    check_file,
    check_side,
    hub_file,
)

Features: TypeAlias = npt.NDArray[np.float32]

PATCH = 256
"""Side of the squares; their second grid is shifted by half of it."""

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
"""Both as KID's authors and every library that computes it have them."""

PICTURES_AT_ONCE = 16

ROWS_AT_ONCE = 4096


def inception_file() -> Path:
    """Return where the network's weights must lie."""
    return hub_file("weights-inception-2015-12-05-6726825d.pth")


def check_inception() -> None:
    """Check that the network can be made here.

    Raises:
        UnavailableMetricError: Its weights or its package are missing; the message
            says which file to put where, or what to install.
    """
    if importlib.util.find_spec("torch_fidelity") is None:
        raise UnavailableMetricError(
            "fid and kid need the package torch-fidelity: pip install torch-fidelity"
        )
    check_file("fid and kid need the weights", inception_file())


class Inception:
    """The network whose features are compared; frozen, and no module's child.

    Its weights are never downloaded.

    Attributes:
        size: Features of a picture.

    Raises:
        UnavailableMetricError: See :func:`check_inception`.
    """

    size = 2048

    def __init__(self) -> None:
        check_inception()
        from torchmetrics.image.fid import NoTrainInceptionV3

        with warnings.catch_warnings():
            # torch-fidelity still asks whether tracing is on, the old way.
            warnings.simplefilter("ignore")
            network = NoTrainInceptionV3(
                name="inception-v3-compat",
                features_list=["2048"],
                feature_extractor_weights_path=str(inception_file()),
                antialias=False,
            )
        self.network: Any = network.eval().requires_grad_(False)

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Return the features (N, 2048), float32, of pictures.

        Args:
            pictures: (N, 3, H, W), uint8, RGB.
        """
        network = self.network.to(pictures.device)
        parts = [network(some) for some in pictures.split(PICTURES_AT_ONCE)]
        return torch.cat(parts)


def to_8_bit(frames: Tensor) -> Tensor:
    """Round RGB (..., 3, H, W) in [0, 1], clamped, to the 8-bit frames (N, 3, H, W)."""
    codes = frames.detach().float().clamp(0, 1).mul(255).round().byte()
    return codes.reshape(-1, *codes.shape[-3:])


def patches(frames: Tensor) -> Tensor:
    """Cut frames into squares of 256 pixels.

    Args:
        frames: (N, 3, H, W).

    Returns:
        (N * (R * C + (R - 1) * (C - 1)), 3, 256, 256), frame by frame, where R is
        H // 256 and C is W // 256.

    Raises:
        UnavailableMetricError: A side is below 256 pixels.

    Source: arXiv 2006.09965, A.7.
    """
    height, width = frames.shape[-2:]
    check_side("fid_256 and kid_256 need", (height, width), PATCH)
    rows, columns = height // PATCH, width // PATCH
    places = [
        (shift + PATCH * i, shift + PATCH * j)
        for shift, fewer in ((0, 0), (PATCH // 2, 1))
        for i in range(rows - fewer)
        for j in range(columns - fewer)
    ]
    squares = [frames[..., y : y + PATCH, x : x + PATCH] for y, x in places]
    return torch.stack(squares, dim=1).flatten(0, 1)


SAMPLES: dict[str, Callable[[Tensor], Tensor]] = {
    "frames": lambda frames: frames,
    "patches": patches,
}
"""What is one sample: a whole frame, or each of its squares."""


class Distribution(ABC):
    """What FID needs of many pictures' features: how many, their mean, covariance."""

    @abstractmethod
    def __len__(self) -> int:
        """How many pictures there are."""

    @property
    @abstractmethod
    def sums(self) -> tuple[Tensor, Tensor]:
        """The features' sum, (D,), and that of their outer products, (D, D)."""

    @property
    def mean(self) -> Tensor:
        """The samples' mean, (D,)."""
        return self.sums[0] / len(self)

    @property
    def covariance(self) -> Tensor:
        """The unbiased estimate of their covariance, (D, D)."""
        centred = self.sums[1] - len(self) * torch.outer(self.mean, self.mean)
        return centred / (len(self) - 1)

    @cached_property
    def root(self) -> Tensor:
        """The covariance's symmetric root: seconds on a CPU, so only once."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


class Samples(Distribution):
    """The features of many pictures, in memory or in files.

    Args:
        matrices: Features (N, D) each, in their order.
    """

    def __init__(self, matrices: Sequence[Features]) -> None:
        self.matrices = matrices

    def __len__(self) -> int:
        return sum(map(len, self.matrices))

    def add(self, features: Tensor) -> None:
        """Add features (N, D)."""
        self.matrices = [*self.matrices, features.float().cpu().numpy()]

    @cached_property
    def sums(self) -> tuple[Tensor, Tensor]:
        """The features' sum, (D,), and that of their outer products, (D, D)."""
        moments = Moments(self.matrices[0].shape[1])
        for rows in _blocks(self.matrices):
            moments.add(rows)
        return moments.sums


class Moments(Distribution):
    """The sums that FID needs instead of all features; those of two parts add up.

    Args:
        size: Features of a picture.
        device: Where the sums are.

    Attributes:
        products: Sum over pictures of the outer products of their features and a 1,
            (size + 1, size + 1), float64; the last row is the features' sum and count.
    """

    def __init__(self, size: int, device: str | torch.device = "cpu") -> None:
        shape = (size + 1, size + 1)
        self.products = torch.zeros(shape, dtype=torch.float64, device=device)

    def __len__(self) -> int:
        return int(self.products[-1, -1])

    def add(self, features: Tensor) -> None:
        """Add features (N, D)."""
        rows = torch.cat([features.double(), features.new_ones(len(features), 1)], 1)
        self.products += rows.T @ rows

    @property
    def sums(self) -> tuple[Tensor, Tensor]:
        """The features' sum, (D,), and that of their outer products, (D, D)."""
        products = self.products.cpu()
        return products[-1, :-1], products[:-1, :-1]


def _blocks(features: Sequence[Features]) -> Iterator[Tensor]:
    """Give features (n, D) as float64, a few rows at a time: files may be large."""
    for matrix in features:
        for start in range(0, len(matrix), ROWS_AT_ONCE):
            rows = np.array(matrix[start : start + ROWS_AT_ONCE], np.float64)
            yield torch.from_numpy(rows)


def frechet_distance(a: Distribution, b: Distribution) -> float:
    """Return the FID between two sets of samples, at least 0.

    ``|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2))``, the root by way
    of the symmetric matrix that has the same eigenvalues as the product.

    Raises:
        UnavailableMetricError: One of them has fewer than 2 samples.

    Source: arXiv 1706.08500, equation 6.
    """
    fewest = min(len(a), len(b))
    if fewest < 2:
        raise UnavailableMetricError(f"fid needs at least 2 samples, there is {fewest}")
    values = torch.linalg.eigvalsh(a.root @ b.covariance @ a.root)
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace()
    distance += b.covariance.trace() - 2 * values.clamp(min=0).sqrt().sum()
    # What rounding leaves of two equal distributions may lie below 0.
    return max(0.0, float(distance))


def kernel_distance(
    source: Samples, decoded: Samples, subset_size: int = KID_SUBSET_SIZE
) -> float:
    """Return the KID: mean squared discrepancy of 100 random subsets.

    The kernel is ``(x y / D + 1)^3``. The draw does not depend on the order of samples:
    they are ordered by the sum of their features first.

    Args:
        source: Of the source's pictures.
        decoded: Of the decoded ones.
        subset_size: Samples of a subset.

    Raises:
        UnavailableMetricError: There are fewer samples than a subset has.

    Source: arXiv 1801.01401, section 4.
    """
    fewest = min(len(source), len(decoded))
    if fewest < subset_size:
        raise UnavailableMetricError(
            f"kid draws subsets of {subset_size} samples, there are {fewest}"
        )
    both = (source.matrices, decoded.matrices)
    orders = [_ordered(own) for own in both]
    numbers = np.random.default_rng(0)
    total = 0.0
    for _ in range(KID_SUBSETS):
        x, y = (
            _rows(own, order[numbers.permutation(len(order))[:subset_size]])
            for own, order in zip(both, orders, strict=True)
        )
        total += _discrepancy(x, y)
    return total / KID_SUBSETS


def _ordered(features: Sequence[Features]) -> npt.NDArray[np.int64]:
    """Return the numbers of all rows, by the sum of each."""
    sums = torch.cat([rows.sum(dim=1) for rows in _blocks(features)])
    return np.argsort(sums.numpy(), kind="stable")


def _rows(features: Sequence[Features], numbers: npt.NDArray[np.int64]) -> Tensor:
    """Return rows (n, D), float32, by their numbers over all matrices."""
    ends = np.cumsum([len(matrix) for matrix in features])
    rows = []
    for n in numbers:
        matrix = int(np.searchsorted(ends, n, side="right"))
        rows.append(features[matrix][n - ends[matrix]])
    return torch.from_numpy(np.stack(rows).astype(np.float32))


def _discrepancy(x: Tensor, y: Tensor) -> float:
    """Return the unbiased estimate of the squared discrepancy of (N, D) and (N, D)."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        # The product takes all the time, the sums need the digits.
        return ((a @ b.T).double() / a.shape[1] + 1) ** 3

    count = len(x)
    within = sum((k := kernel(v, v)).sum() - k.trace() for v in (x, y))
    between = kernel(x, y).sum()
    return float(within / (count * (count - 1)) - 2 * between / count**2)
