"""Published weights that a codec has found to be of one of its networks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

ENTRIES = ("state_dict", "net", "model")
"""Under which published files hold their state dict, if they hold anything else."""


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


def state_dict_of(contents: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the state dict of a published file, and the entry that it stands under.

    Args:
        contents: What the file holds.

    Returns:
        An empty name, and ``contents`` itself, if it has no such entry.
    """
    for entry in ENTRIES:
        if entry in contents:
            return entry, contents[entry]
    return "", contents


def misfits(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Return the names, sorted, that one of two has not, or in another shape."""
    return [
        key
        for key in sorted(given.keys() | wanted.keys())
        if key not in given
        or key not in wanted
        or given[key].shape != wanted[key].shape
    ]
