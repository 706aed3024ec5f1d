"""The published weights of DHVC 1.0, under this package's names.

They are state dicts of its public class: three lists of blocks in the order of the
data, the encoder's, those of D (which hold the latents) and those of S beside them.
Only names and shapes of them are used here.

Source: NJUVISION/DHVC, ``dhvc-1.0``, commit 145b8b3 (Apache-2.0).
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from torch import Tensor

from lightning_modules.dhvc.design import DHVC_1, SIZES
from lightning_modules.released import Released, misfits

KIND = "DHVC 1.0"
CONFIG = "ablations/dhvc/base_dhvc_1"
TELLING = "dec_blocks.0.tcp.enc1.0.weight"
"""A key that no other published network has."""
LMBDAS = (256, 512, 1024, 2048)
"""Of the paper's four models. No file says its own: the public tests read
``pretrained/3/checkpoint_best_loss.pth.tar``."""

TABLES = re.compile(r"\.(up_bound|discrete_gaussian)\.")
"""Bounds and tables of sigma, which are constants."""
BEHIND = "S behind the last latent"
"""Weights of blocks to whose output nothing refers."""

_BLOCK = {
    "conv_dw": "spatial",
    "norm": "norm",
    "mlp.fc1": "expand",
    "mlp.fc2": "reduce",
}
"""The layers of a residual block; its ``gamma`` is ``gain``, of one dimension."""

_LATENT = {
    "resnet_front": "spatial",
    "resnet_end": "end.0",
    "resnet_dec": "decode",
    "posterior0": "from_observed",
    "posterior1": "from_spatial",
    "posterior2": "posterior.between.0",
    "post_merge": "posterior.0",
    "posterior": "posterior.1",
    "dec_merge": "merge",
    "z_proj": "restore",
    "prior": "prior",
    "tcp.end_fuse": "predictor.end",
    **{
        f"tcp.{theirs}": f"predictor.{unet}.{ours}"
        for number, unet in enumerate(("temporal", "fusion"), start=1)
        for theirs, ours in (
            (f"enc{number}.0", "enter"),
            *((f"enc{number}.{i + 1}", f"down.{i}") for i in range(3)),
            (f"dec{number}.0", "middle"),
            *((f"dec{number}.{i + 1}.0", f"up.{i}") for i in range(2)),
            *((f"dec{number}.{i + 1}.1", f"narrow.{i}") for i in range(2)),
            (f"dec{number}.3", "leave"),
        )
    },
}
"""The parts of a latent."""


def is_released(weights: Mapping[str, Tensor]) -> bool:
    """Say whether a state dict is one of DHVC 1.0's, of whatever size."""
    return TELLING in weights or f"module.{TELLING}" in weights


def released_lmbda(path: Path) -> int:
    """Return the lambda of published weights, which their name must say.

    Args:
        path: One of ``LMBDAS`` stands in the file's name as a number by itself, or is
            the whole name of its folder.

    Raises:
        ValueError: None does, or several do.
    """
    found = {int(n) for n in re.findall(r"\d+", path.name)}.intersection(LMBDAS)
    if not found:
        found = {n for n in LMBDAS if path.absolute().parent.name == str(n)}
    if len(found) != 1:
        raise ValueError(
            f"these are the released weights of {KIND}, one file for each lambda, and "
            f"nothing in them says which: put one of {', '.join(map(str, LMBDAS))} "
            "into the file's name, for example dhvc1-2048.pth.tar, or call its folder "
            "so"
        )
    return found.pop()


def released_weights(
    weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> Released | None:
    """Return published weights for a network, or ``None`` for others.

    Args:
        weights: A state dict, its keys perhaps with ``module.`` before all of them.
        wanted: The codec's state dict.

    Raises:
        ValueError: They are DHVC 1.0's, but the network is another, or of another
            size, or they are more or fewer than that network's.
    """
    if not is_released(weights):
        return None
    given: dict[str, Tensor] = {}
    left_out: Counter[str] = Counter()
    unknown: list[str] = []
    for full, value in weights.items():
        key = full.removeprefix("module.")
        if TABLES.search(key):
            left_out["tables of sigma"] += 1
            continue
        name = _renamed(key)
        if name is None:
            unknown.append(full)
        elif name == BEHIND:
            left_out[BEHIND] += 1
        else:
            given[name] = value.flatten() if key.endswith(".gamma") else value
    if both := [*unknown, *misfits(given, wanted)]:
        raise ValueError(
            f"these are the released weights of {KIND}, and {len(both)} of them do not "
            f"fit the network ({', '.join(both[:3])}{', ...' if both[3:] else ''}): it "
            f"must be that of {CONFIG}.yaml, in the size paper, and the file whole"
        )
    return Released(KIND, given, dict(left_out))


def _renamed(key: str) -> str | None:
    """Return a weight's name in the codec, ``BEHIND``, or ``None`` for no weight."""
    places = _places()
    if key in places:
        return places[key]
    module, _, leaf = key.rpartition(".")
    if module not in places and leaf in ("weight", "bias"):
        for theirs, ours in _BLOCK.items():
            if module.endswith(f".{theirs}"):
                module, leaf = module.removesuffix(f".{theirs}"), f"{ours}.{leaf}"
                break
    if module not in places:
        return None
    if places[module] == BEHIND:
        return BEHIND
    return f"{places[module]}.{'gain' if leaf == 'gamma' else leaf}"


@cache
def _places() -> dict[str, str]:
    """Return blocks and layers of the public class, and where they are here."""
    found = {"bias": "spatial_constant", **dict(_encoder()), **dict(_both_paths())}
    return {
        key: value if value == BEHIND else f"network.{value}"
        for key, value in found.items()
    }


def _encoder() -> Iterator[tuple[str, str]]:
    depths = SIZES["paper"].encoder_blocks_1
    yield "encoder.enc_blocks.0", "encoder.stem"
    number = 1
    for level, depth in enumerate(depths):
        for block in range(depth):
            yield (
                f"encoder.enc_blocks.{number + block}",
                f"encoder.levels.{level}.{block}",
            )
        number += depth
        if level + 1 < len(depths):
            down = f"encoder.enc_blocks.{number}"
            yield f"{down}.0", f"encoder.before_down.{level}.0"
            yield f"{down}.1", f"encoder.down.{level}"
            number += 1


def _both_paths() -> Iterator[tuple[str, str]]:
    """Give what stands at each place of the lists of D and of S."""
    number = latent = 0
    latents = DHVC_1.layout.latents
    for scale, own in enumerate(latents, start=1):
        first, last = f"scale{scale}.0", f"scale{scale}.{len(own) - 1}"
        if scale > 1:
            yield f"dec_blocks.{number}.0", f"{first}.up_decoded.0"
            yield f"fea_blocks.{number}.0", f"{first}.up_spatial.0"
            yield f"dec_blocks.{number + 1}", f"{first}.decoded"
            yield f"fea_blocks.{number + 1}", f"{first}.enter_spatial.0"
            number += 2
        for place in range(len(own)):
            for theirs, ours in _LATENT.items():
                yield f"dec_blocks.{number}.{theirs}", f"scale{scale}.{place}.{ours}"
            yield f"bias_list.{latent}", f"scale{scale}.{place}.temporal_constant"
            number, latent = number + 1, latent + 1
        behind = scale == len(latents)
        yield f"dec_blocks.{number}", f"{last}.leave_decoded.0"
        yield f"fea_blocks.{number}", BEHIND if behind else f"{last}.leave_spatial.0"
        number += 1
    tail = SIZES["paper"].tail
    names = {number: ".0", number + tail + 1: ".0"}
    for place in range(number, number + tail + 2):
        yield f"fea_blocks.{place}{names.get(place, '')}", BEHIND
    yield f"dec_blocks.{number}.0", "tail.up.0"
    for block in range(tail):
        yield f"dec_blocks.{number + 1 + block}", f"tail.blocks.{block}"
    yield f"dec_blocks.{number + tail + 1}.0", "tail.out"
