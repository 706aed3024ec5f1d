"""What coding several groups of pictures at once gains: measured, with its exactness.

Side by side, as ``--gop_batch`` codes, each group runs through every kernel alone, so
not one bit changes. In one batch kernels add in another order: the difference is shown
beside the seconds.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from experiments.bitstreams.coding_mode import coding_mode
from experiments.profile.timing import (
    are_equal,
    clock_of,
    configured,
    moving_frames,
)
from experiments.results.drawing.tables import Table, numbers, words
from lightning_modules.codec import VideoCodec


def check_groups(codec: VideoCodec, groups: int) -> None:
    """Refuse a codec that codes no groups side by side.

    Raises:
        ValueError: It does not, or there are fewer than two.
    """
    if not hasattr(codec.coding, "gop_batch"):
        name = codec.shown_name
        raise ValueError(f"{name} has no groups of pictures: leave out --gop_batch")
    if groups < 2:
        raise ValueError(f"--gop_batch is {groups}: give at least 2 to compare with 1")


def measure_groups(
    codec: VideoCodec, groups: int, height: int, width: int, repeats: int
) -> dict[str, Any]:
    """Time one group at a time, several side by side, and their networks in a batch.

    Args:
        codec: On its device.
        groups: How many at once.
        height: Of the frames in pixels.
        width: Of the frames in pixels.
        repeats: The fastest of so many runs counts, taken in turns.

    Returns:
        For ``encode`` and ``decode``: seconds per frame, gains against one at a time,
        and the largest difference of a batch's values.

    Raises:
        ValueError: Side by side not the same bits or frames come out.
    """
    device = codec.devices[0]
    unit = codec.frames_per_unit
    # As many as so many groups complete: those that overlap share frames.
    count = groups * codec.cycle + unit - codec.cycle
    frames = moving_frames(count, height, width, device)
    clips = torch.stack(moving_frames(groups * unit, height, width, device))
    networks = codec.networks_of_groups(clips.unflatten(0, (groups, unit)))
    rate = codec.rate_knob.points[0]
    with coding_mode(device):
        packets = list(codec.compress(frames, rate))

        def encode(at_once: int) -> list[Any]:
            with configured(codec, gop_batch=at_once):
                return list(codec.compress(frames, rate))

        def decode(at_once: int) -> list[Any]:
            with configured(codec, gop_batch=at_once):
                return list(codec.decompress(packets, height, width))

        report: dict[str, Any] = {"groups": groups, "frames": count}
        for name, run in (("encode", encode), ("decode", decode)):
            alone, batched = networks[name]
            seconds, values = _in_turns(
                {
                    "one": (partial(run, 1), count),
                    "side_by_side": (partial(run, groups), count),
                    "networks_one": (alone, groups * unit),
                    "networks_batch": (batched, groups * unit),
                },
                clock_of(device),
                repeats,
            )
            if not are_equal(values["one"], values["side_by_side"]):
                raise ValueError(
                    f"{groups} groups side by side do not give what one at a time "
                    f"gives: {name} is not exact on this device"
                )
            difference = values["networks_one"] - values["networks_batch"]
            one, batch = seconds["networks_one"], seconds["networks_batch"]
            report[name] = {
                "seconds_per_frame": seconds,
                "gain_side_by_side": seconds["one"] / seconds["side_by_side"] - 1,
                "gain_of_networks_in_a_batch": one / batch - 1,
                "largest_difference_of_the_batch": float(difference.abs().max()),
            }
    return report


def _in_turns(
    works: dict[str, tuple[Callable[[], Any], int]],
    now: Callable[[], float],
    repeats: int,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the least seconds per frame of each work, and what it returned."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    values: dict[str, Any] = {}
    with torch.inference_mode():
        # The first run allocates and compiles.
        for turn in range(repeats + 1):
            for name, (run, frames) in works.items():
                begun = now()
                values[name] = run()
                if turn:
                    seconds[name].append((now() - begun) / frames)
    return {name: min(taken) for name, taken in seconds.items()}, values


def groups_table(figures: dict[str, Any]) -> Table:
    """Return what :func:`measure_groups` gives."""
    table = Table(
        f"{figures['groups']} groups of pictures at once, {figures['frames']} frames",
        [
            *words("ms per frame"),
            *numbers("one at a time", "side by side", "gain (%)", spec=".1f"),
            *numbers("networks one", "in a batch", "gain of it (%)", spec=".1f"),
            *numbers("its largest difference", spec=".1e"),
        ],
        notes=["Side by side the same bits and frames come out; a batch is not coded."],
    )
    for name in ("encode", "decode"):
        own = figures[name]
        ms = {key: 1e3 * value for key, value in own["seconds_per_frame"].items()}
        table.rows.append(
            [
                name,
                *(ms["one"], ms["side_by_side"], 100 * own["gain_side_by_side"]),
                *(ms["networks_one"], ms["networks_batch"]),
                100 * own["gain_of_networks_in_a_batch"],
                own["largest_difference_of_the_batch"],
            ]
        )
    return table
