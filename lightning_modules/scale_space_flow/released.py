"""The published weights of CompressAI's ``ssf2020``, under a codec's names.

They are state dicts of the library's class. Of older versions some names differ.
"""

import re
from collections import Counter
from collections.abc import Mapping

from torch import Tensor

from lightning_modules.released import Released

TELLING = "motion_hyperprior.entropy_bottleneck.quantiles"
"""A key that no other published network has."""
TABLES = re.compile(r"(_offset|_quantized_cdf|_cdf_length|scale_table)$")
"""What follows from the weights: empty here, and built by the codec."""
OLDER = re.compile(r"\._(matrix|bias|factor)(\d)$")
NEWER = {"matrix": "matrices", "bias": "biases", "factor": "factors"}


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
    given: dict[str, Tensor] = {}
    left_out: Counter[str] = Counter()
    plain = {key.removeprefix("module."): value for key, value in weights.items()}
    if TELLING not in plain:
        return None
    for key, value in plain.items():
        if TABLES.search(key):
            left_out["tables"] += 1
            value = value.new_empty(0)
        name = OLDER.sub(lambda found: f".{NEWER[found[1]]}.{found[2]}", key)
        given[prefix + name] = value
    wrong = [
        key
        for key in sorted(wanted)
        if key not in given or given[key].shape != wanted[key].shape
    ]
    if wrong:
        raise ValueError(
            f"these are the released weights of ssf2020, and {len(wrong)} of them do "
            f"not fit the network ({', '.join(wrong[:3])}, ...): it must have the size "
            "paper"
        )
    return Released("ssf2020", given, dict(left_out))
