"""The options of ``stream``, checked: what is lost, and what the encoder hears."""

import argparse
from dataclasses import dataclass, field

from experiments.stream.channel import Losses
from experiments.stream.datagrams import check_limit

LONGEST_TIMEOUT = 86400
"""Seconds: a day. Clocks and sockets know no infinity."""

MOST_SEEDS = 10000
"""Each is a run, or one for each delay."""


@dataclass(frozen=True)
class Plan:
    """The runs of one command.

    Attributes:
        losses: Channels, each sent over once per delay.
        delays: Echo delays in frames, ``None`` without echo.
        progressive: Numbers of scales that are decoded of what nothing is lost of.
        notes: What differs from what was asked for.
    """

    losses: list[Losses]
    delays: list[int | None]
    progressive: list[int]
    notes: list[str] = field(default_factory=list)


def make_plan(
    options: argparse.Namespace,
    name: str,
    scales: int,
    *,
    can_resync: bool,
    units_apart: bool,
) -> Plan:
    """Turn options into runs.

    Args:
        options: Of ``experiments.stream``.
        name: Of the codec.
        scales: Packets that it makes of a unit.
        can_resync: Whether it codes scales anew when it is told of a loss.
        units_apart: Whether no unit refers to another.

    Raises:
        ValueError: An option is out of range.
    """
    protected = _protected(options.protect, scales)
    losses = _losses(options, scales, protected)
    delays: list[int | None] = list(dict.fromkeys(options.echo_delay))
    notes = []
    if not can_resync and delays != [None]:
        delays = [None]
        notes.append(
            f"{name} cannot code a unit anew on request: echoes change nothing, and a "
            f"loss lasts until {_end_of_a_loss(options.intra_period, units_apart)}"
        )
    progressive = options.progressive
    if progressive is None:
        lost = [scale for each in losses for _, scale in each.given]
        below = min(lost, default=protected + 1) - 1
        progressive = [below] if below else []
    progressive = list(dict.fromkeys(progressive))
    for number in progressive:
        if not 1 <= number < scales:
            raise ValueError(
                f"--progressive {number} is not possible: {name} has {scales} "
                f"scale{'s' * (scales > 1)}, of which some but not all are decoded"
            )
    check_limit(options.datagram)
    # So written it refuses what is no number, too.
    if not 0 < options.timeout <= LONGEST_TIMEOUT:
        raise ValueError(
            f"--timeout is {options.timeout:g}: it must be above 0 and at most "
            f"{LONGEST_TIMEOUT} seconds"
        )
    return Plan(losses, delays, progressive, notes)


def _end_of_a_loss(intra_period: int, units_apart: bool) -> str:
    if units_apart:
        return "the next unit, none of which refers to another"
    starts = f"every {intra_period} frames" if intra_period > 0 else "the first only"
    return f"the next start without a reference ({starts}, --intra_period)"


def _protected(protect: int | None, scales: int) -> int:
    if protect is None:
        return min(1, scales - 1)
    if not 0 <= protect < scales:
        raise ValueError(
            f"--protect {protect} leaves nothing to lose, or less than that: there "
            f"{'is 1 packet' if scales == 1 else f'are {scales} packets'} per unit, "
            f"possible are 0 to {scales - 1}"
        )
    return protect


def _losses(options: argparse.Namespace, scales: int, protected: int) -> list[Losses]:
    if options.lose is not None:
        for frame, scale in options.lose:
            if frame < 1 or not protected < scale <= scales:
                raise ValueError(
                    f"--lose {frame}:{scale} is not possible: frames count from 1, and "
                    f"packets of scales {protected + 1} to {scales} can be lost "
                    f"(--protect {protected})"
                )
        if options.seeds != 1:
            raise ValueError("--seeds changes nothing about packets that --lose names")
        return [Losses(frozenset(options.lose), protected=protected)]
    for rate in options.loss_rate:
        if not 0 <= rate <= 1:
            raise ValueError(f"--loss_rate {rate:g} is no probability from 0 to 1")
    if not 1 <= options.seeds <= MOST_SEEDS:
        raise ValueError(f"--seeds is {options.seeds}: it must be 1 to {MOST_SEEDS}")
    if not 1 <= options.loss_first <= options.loss_last:
        raise ValueError(
            f"--loss_first {options.loss_first} and --loss_last {options.loss_last} "
            "are no range of frames, which count from 1"
        )
    return [
        Losses(
            rate=rate,
            mode=options.loss_mode,
            first=options.loss_first,
            last=options.loss_last,
            protected=protected,
            seed=seed,
        )
        for rate in dict.fromkeys(options.loss_rate)
        for seed in range(options.seed, options.seed + options.seeds)
    ]
