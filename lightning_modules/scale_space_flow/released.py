"""The published weights of CompressAI's ``ssf2020``, under a codec's names.

They are state dicts of the library's class. Of older versions some names differ.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor

from lightning_modules.released import Released, misfits

TELLING = "motion_hyperprior.entropy_bottleneck.quantiles"
"""A key that no other published network has."""
TABLES = re.compile(r"(_offset|_quantized_cdf|_cdf_length|scale_table)$")
"""What follows from the weights: empty here, and built by the codec."""
OLDER = re.compile(r"\._(matrix|bias|factor)(\d)$")
NEWER = {"matrix": "matrices", "bias": "biases", "factor": "factors"}
SIZE: Literal["paper", "small", "tiny"] = "paper"
"""CompressAI's class has no other."""
FILE_NAME = re.compile(r"ssf2020-mse-([1-9])-")
"""Says which of the nine qualities a file has. Their lambdas are not published."""


def is_released(weights: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict is one of ``ssf2020``, of any size."""
    return TELLING in weights or f"module.{TELLING}" in weights


def quality_of(path: Path) -> int:
    """Return the quality, 1 (fewest bits) to 9, that a published file's name says.

    Raises:
        ValueError: It says none.
    """
    found = FILE_NAME.match(path.name)
    if not found:
        raise ValueError(
            "these are weights of ssf2020, whose rate is the quality in the name of "
            "the file, 1 to 9: call it as it is published, for example "
            "ssf2020-mse-4-577c1eda.pth.tar; of one's own, python -m experiments.fit "
            "--config scale_space_flow --init_from makes a checkpoint with a lambda"
        )
    return int(found[1])


def released_weights(
    weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], prefix: str
) -> Released | None:
    """Return published weights for a network, or ``None`` for others.

    Args:
        weights: A state dict, its keys perhaps with ``module.`` before all of them.
        wanted: The parameters that it must have, by their names in the codec.
        prefix: What the codec's names begin with.

    Raises:
        ValueError: They are of a ``ssf2020`` of another size.
    """
    if not is_released(weights):
        return None
    given: dict[str, Tensor] = {}
    left_out: Counter[str] = Counter()
    plain = {key.removeprefix("module."): value for key, value in weights.items()}
    for key, value in plain.items():
        if TABLES.search(key):
            left_out["tables"] += 1
            value = value.new_empty(0)
        name = OLDER.sub(lambda found: f".{NEWER[found[1]]}.{found[2]}", key)
        given[prefix + name] = value
    wrong = misfits({key: given[key] for key in given if key in wanted}, wanted)
    if wrong:
        raise ValueError(
            f"these are the released weights of ssf2020, and {len(wrong)} of them do "
            f"not fit the network ({', '.join(wrong[:3])}, ...): it must have the size "
            "paper"
        )
    return Released("ssf2020", given, dict(left_out))
