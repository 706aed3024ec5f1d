"""The ceiling of a latent: how well so many numbers can show a block at all.

A unit that refers to no other is made of its latent's numbers alone. The best linear
transform that gives a block so many numbers, its principal components, loses something
even where numbers cost nothing. Learned transforms see more than a block and are not
linear, so the ceiling is a guide to a latent's size, and no bound.
"""

import time
from collections.abc import Iterator, Sequence
from math import log10, prod
from typing import Any, TypeAlias, get_args, get_type_hints

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.sequences.files import VideoSequence, read_codes
from datamodules.sequences.find import find_sequences
from experiments.profile.components import Block, find_components
from experiments.results.drawing.tables import Table, numbers, words
from lightning_modules.codec import VideoCodec
from lightning_modules.latents import Latents

Places: TypeAlias = npt.NDArray[np.int64]

TRAINING_BLOCKS = 100_000
LONGEST = 300
"""Frames that are read of a sequence, at most."""
BATCH_SAMPLES = 2**23
"""Samples of a batch of blocks: 64 MB in float64."""


def find_clips(
    training: Sequence[str], held_out: Sequence[str]
) -> tuple[list[VideoSequence], list[VideoSequence]]:
    """Return the sequences that texts name, see :func:`find_sequences`.

    Raises:
        ValueError: See there; a sequence is in both, or two to measure on share a
            name.
    """
    train, test = find_sequences(training), find_sequences(held_out)
    trained = {each.path.resolve() for each in train if each.clip is None}
    names = [each.name for each in test]
    for each in test:
        if names.count(each.name) > 1:
            raise ValueError(
                f"--held_out has two sequences {each.name!r}, {each.path} is one: "
                "rename it, or leave one out"
            )
        if each.clip is None and each.path.resolve() in trained:
            raise ValueError(
                f"{each.path} is among --ceiling and --held_out: its own components "
                "would flatter it; leave it out of one of the two"
            )
    return train, test


def sizes_of(codec: VideoCodec) -> dict[str, VideoCodec]:
    """Return a codec in all of its sizes, on the meta device, or as it is.

    The sizes are those that its constructor's type of ``size`` lists.
    """
    hint = get_type_hints(type(codec).__init__).get("size")
    with torch.device("meta"):
        return {
            size: type(codec)(**{**codec.architecture, "size": size})
            for size in get_args(hint)
        } or {"as given": codec}


def latents_of(codec: VideoCodec) -> Latents:
    """Return a codec's own count of its latents.

    Raises:
        ValueError: It has none.
    """
    if codec.latents is None:
        raise ValueError(
            f"{type(codec).__name__} does not count its latents: leave out --ceiling, "
            "or give it the property `latents`"
        )
    return codec.latents


def measure_ceiling(
    codec: VideoCodec,
    training: Sequence[VideoSequence],
    held_out: Sequence[VideoSequence],
    more: Sequence[int] = (),
) -> dict[str, Any]:
    """Return the ceiling of each size of a codec, and of other counts of numbers.

    Args:
        codec: On any device.
        training: What the components are found on.
        held_out: What their PSNR is measured on.
        more: Numbers per block to tell the ceiling of, too.

    Returns:
        ``training`` sequences, ``training_blocks`` and ``seconds``; and ``rows``, each
        with a size's name, what it has, and ``psnr`` by the name of the sequence: in
        dB, of RGB, from the mean square error over the whole blocks of all frames.

    Raises:
        ValueError: The codec does not count its latents, a sequence holds no block, or
            a block has fewer samples than numbers.
    """
    begun = time.perf_counter()
    rows: list[dict[str, Any]] = []
    for name, sized in sizes_of(codec).items():
        latents = latents_of(sized)
        rows.append(
            {
                "size": name,
                "parameters": sum(p.numel() for p in sized.parameters()),
                "block": latents.block,
                "levels": dict(latents.levels),
                "numbers": latents.numbers,
                "note": latents.note,
            }
        )
    own = latents_of(codec).block
    rows += [{"size": "", "block": own, "numbers": count} for count in more]
    for row in rows:
        block, count = row["block"], row["numbers"]
        row["per_pixel"] = count / prod(block)
        if count > 3 * prod(block):
            raise ValueError(
                f"{count} numbers: a block of {shown(block)} has {3 * prod(block)} "
                "samples, and needs no more"
            )
        for sequence in (*training, *held_out):
            check_holds(sequence, block)
    trained_on: dict[str, int] = {}
    for block in dict.fromkeys(row["block"] for row in rows):
        components = find_components(training_blocks(training, block), block)
        trained_on[shown(block)] = components.trained_on
        errors = {
            each.name: components.errors(grid_blocks(each, block)) for each in held_out
        }
        for row in rows:
            if row["block"] == block:
                lost = {name: error[row["numbers"]] for name, error in errors.items()}
                row["psnr"] = {name: _psnr(float(each)) for name, each in lost.items()}
    return {
        "rows": rows,
        "training": [each.name for each in training],
        "training_blocks": trained_on,
        "seconds": time.perf_counter() - begun,
    }


def _psnr(error: float) -> float | None:
    """Return dB, or nothing where all is kept."""
    return -10 * log10(error) if error > 0 else None


def training_blocks(
    sequences: Sequence[VideoSequence], block: Block
) -> Iterator[Tensor]:
    """Give blocks at drawn places, as many of each sequence as of the others.

    Args:
        sequences: Where they are cut out.
        block: Frames, rows and columns.

    Returns:
        Batches (N, frames, 3, rows, columns), RGB in [0, 1].
    """
    generator = np.random.default_rng(0)
    each = -(-TRAINING_BLOCKS // len(sequences))
    for sequence in sequences:
        count = -(-each // (_frames(sequence) // block[0]))
        for unit in units(sequence, block):
            _, _, height, width = unit.shape
            tops = generator.integers(height - block[1] + 1, size=count)
            lefts = generator.integers(width - block[2] + 1, size=count)
            yield from _batches(unit, block, tops, lefts)


def grid_blocks(sequence: VideoSequence, block: Block) -> Iterator[Tensor]:
    """Give the whole blocks of a sequence, side by side from the top left.

    Args:
        sequence: Where they are cut out.
        block: Frames, rows and columns.

    Returns:
        See :func:`training_blocks`.
    """
    for unit in units(sequence, block):
        _, _, height, width = unit.shape
        tops, lefts = np.meshgrid(
            np.arange(0, height - block[1] + 1, block[1]),
            np.arange(0, width - block[2] + 1, block[2]),
            indexing="ij",
        )
        yield from _batches(unit, block, tops.ravel(), lefts.ravel())


def _batches(
    unit: Tensor, block: Block, tops: Places, lefts: Places
) -> Iterator[Tensor]:
    _, rows, columns = block
    most = max(1, BATCH_SAMPLES // (3 * prod(block)))
    for first in range(0, len(tops), most):
        chosen = slice(first, first + most)
        places = zip(tops[chosen], lefts[chosen], strict=True)
        cut = [unit[..., y : y + rows, x : x + columns] for y, x in places]
        yield torch.stack(cut).double() / 255


def units(sequence: VideoSequence, block: Block) -> Iterator[Tensor]:
    """Give as many frames as a block has, (frames, 3, H, W), uint8, one after another.

    Frames that make no whole unit are left out.

    Raises:
        ValueError: See :func:`check_holds`.
    """
    held: list[npt.NDArray[np.uint8]] = []
    read = 0
    for planes in read_codes(sequence, "rgb", _frames(sequence)):
        read += 1
        held.append(np.stack(planes))
        if len(held) == block[0]:
            yield torch.from_numpy(np.stack(held))
            held = []
    # Of a file that does not say how many it has.
    _check_count(sequence, block, read)


def check_holds(sequence: VideoSequence, block: Block) -> None:
    """Refuse a sequence that holds no block.

    Raises:
        ValueError: Its frames are smaller, or too few as far as is known unread.
    """
    _, rows, columns = block
    if sequence.height < rows or sequence.width < columns:
        raise ValueError(
            f"{sequence.path} is {sequence.width}x{sequence.height}: a block of "
            f"{shown(block)} needs larger frames, so leave it out"
        )
    _check_count(sequence, block, sequence.frames or block[0])


def _check_count(sequence: VideoSequence, block: Block, frames: int) -> None:
    if frames < block[0]:
        raise ValueError(
            f"{sequence.path} has {frames} frames: a block of {shown(block)} needs "
            f"{block[0]}, so leave it out"
        )


def _frames(sequence: VideoSequence) -> int:
    return min(sequence.frames or LONGEST, LONGEST)


def shown(block: Block) -> str:
    """Return a block as text: columns, rows, frames."""
    frames, rows, columns = block
    return f"{columns}x{rows}x{frames}"


def ceiling_table(name: str, report: dict[str, Any]) -> Table:
    """Return what :func:`measure_ceiling` gives.

    Args:
        name: The codec's.
        report: Its figures.
    """
    rows = report["rows"]
    clips = list(rows[0]["psnr"])
    table = Table(
        f"Ceiling of {name}'s latents",
        [
            *words("size"),
            *numbers("parameters"),
            *words("block", "numbers in it"),
            *numbers("per pixel", spec=".3f"),
            *numbers(*(f"{clip} (dB)" for clip in clips), spec=".2f", missing="all"),
        ],
    )
    for row in rows:
        levels = row.get("levels", {})
        parts = " + ".join(f"{level} {n}" for level, n in levels.items())
        has = f"{row['numbers']} = {parts}" if len(levels) > 1 else str(row["numbers"])
        parameters = f"{row['parameters']:,}" if "parameters" in row else None
        found = [row["psnr"][clip] for clip in clips]
        table.rows.append(
            [
                row["size"],
                parameters,
                shown(row["block"]),
                has,
                row["per_pixel"],
                *found,
            ]
        )
    notes = {row["note"] for row in rows if row.get("note")}
    counts = ", ".join(f"{n:,}" for n in report["training_blocks"].values())
    table.notes = [
        *sorted(notes),
        f"PSNR RGB of the principal components of {counts} blocks of "
        f"{len(report['training'])} clips, {report['seconds']:.0f} s",
    ]
    return table
