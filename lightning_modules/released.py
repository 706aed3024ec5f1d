"""Published weights that a codec has found to be of one of its networks."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Released:
    """Weights that somebody published, under the names of a network here.

    Attributes:
        kind: What they are of, for example ``CV-VAE``.
        weights: By the names of the network's state dict.
        left_out: What the network does not need, and how many tensors of each.
    """

    kind: str
    weights: dict[str, Tensor]
    left_out: dict[str, int]
