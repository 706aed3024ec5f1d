"""The runs of one ``stream`` command: what is lost, and what the encoder hears."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.stream.channel import Losses, Parity
from experiments.stream.options import StreamOptions

if TYPE_CHECKING:
    from lightning_modules.codec import VideoCodec


RARE = 0.001
"""Share of units whose protection may fail before a note says so."""


@dataclass(frozen=True)
class Plan:
    """The runs of one command.

    Attributes:
        losses: Channels, each sent over once per delay.
        delays: Echo delays in frames, ``None`` without echo.
        progressive: Numbers of scales that are decoded of what nothing is lost of.
        parity: What keeps the first scales from being lost.
        notes: What differs from what was asked for, and what is assumed.
    """

    losses: list[Losses]
    delays: list[int | None]
    progressive: list[int]
    parity: Parity
    notes: list[str]


def make_plan(options: StreamOptions, codec: "VideoCodec") -> Plan:
    """Turn options into runs.

    Raises:
        ValueError: The codec cannot do what is asked, or survives no loss.
    """
    codec.check_losses()
    name, scales = codec.shown_name, codec.scales
    protected = _protected(options.protect, scales)
    parity = _parity(options.parity, protected)
    losses = _losses(options, scales, protected)
    delays = list(dict.fromkeys(options.echo_delay))
    notes = []
    if not codec.can_resync and delays != [None]:
        delays = [None]
        end = _end_of_a_loss(codec, options.intra_period)
        notes.append(
            f"{name} cannot code a unit anew on request: echoes change nothing, and a "
            f"loss lasts until {end}"
        )
    progressive = options.progressive
    if progressive is None:
        lost = [scale for each in losses for _, scale in each.given]
        below = min(lost, default=protected + 1) - 1
        progressive = (below,) if below else ()
    for number in progressive:
        if not 1 <= number < scales:
            raise ValueError(
                f"--progressive {number} is not possible: {name} has {scales} "
                f"scale{'s' * (scales > 1)}, of which some but not all are decoded"
            )
    alone = max((each.rate for each in losses if each.mode == "packet"), default=0.0)
    if protected and parity.failure(alone) > RARE:
        notes.append(
            f"{parity.packets} packets of parity would not save scales 1 to "
            f"{protected} in {parity.failure(alone):.1%} of the units at a loss rate "
            f"of {alone:g}, yet here they are never lost: --parity makes it rarer"
        )
    return Plan(losses, delays, list(dict.fromkeys(progressive)), parity, notes)


def _end_of_a_loss(codec: "VideoCodec", intra_period: int) -> str:
    if codec.boundaries(2 * codec.frames_per_unit):
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


def _parity(packets: int | None, protected: int) -> Parity:
    if packets is None:
        packets = min(1, protected)
    if packets < 0 or (packets and not protected):
        raise ValueError(
            f"--parity {packets} is not possible: it must be at least 0, and 0 where "
            f"no scale is protected (--protect {protected})"
        )
    return Parity(protected, packets)


def _losses(options: StreamOptions, scales: int, protected: int) -> list[Losses]:
    if options.loss_rate is not None:
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
    assert options.lose is not None, "the parser asks for one of them"
    for frame, scale in options.lose:
        if frame < 1 or not protected < scale <= scales:
            raise ValueError(
                f"--lose {frame}:{scale} is not possible: frames count from 1, and "
                f"packets of scales {protected + 1} to {scales} can be lost "
                f"(--protect {protected})"
            )
    return [Losses(frozenset(options.lose), protected=protected)]
