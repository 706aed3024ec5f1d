"""How a frame's errors reach into those after it: four tests of a codec at one rate.

Source: arXiv 2512.10450 promises coding without error propagation; the tests are this
suite's.
"""

from collections.abc import Sequence
from statistics import fmean, pstdev

from experiments.propagation.bench import Bench, Grid, LeftOut, check_range, less, rises
from experiments.propagation.findings import Measured

HORIZON = 16
"""Frames after a bad one that are looked at."""

LEAD = 8
"""Frames before it, where there are so many: the codec has found its stride."""

INTRA_PERIOD = 32
"""Frames between starts, where the jump at a start is looked at."""


def choose_positions(grid: Grid, wanted: Sequence[int], frames: int) -> list[int]:
    """Return the positions that clips of so many frames have, the reference first.

    Args:
        grid: Which ones can be compared.
        wanted: Each is replaced by the first one from there on that can.
        frames: Of the shortest sequence.

    Raises:
        LeftOut: There is none besides the reference.
    """
    found = {grid.position(each) for each in wanted}
    found = {each for each in found if each + grid.unit <= frames}
    found.add(grid.position(0))
    if len(found) < 2:
        least = grid.position(grid.unit + 1) + grid.unit
        raise LeftOut(
            f"it needs {least} frames or more, with positions to match, and there are "
            f"{frames} (--max_frames, --positions)"
        )
    return sorted(found)


def position(
    bench: Bench, rate: float, positions: Sequence[int], targets: int
) -> Measured:
    """Code the same unit at several distances from the start of a clip.

    All clips for one target end with it, so that nothing but their start differs.

    Args:
        bench: The sequence.
        rate: Of the codec.
        positions: Of :func:`choose_positions`.
        targets: How many units to look at, spread over those that have all positions.
    """
    unit = bench.grid.unit
    low, high = positions[-1], bench.frames - unit
    count = min(targets, high - low + 1)
    chosen = [high - (high - low) * i // max(1, count - 1) for i in range(count)]

    def at(target: int, place: int) -> list[float]:
        clip = bench.trace(rate, first=target - place, end=target + unit)
        return clip.psnr[place:]

    ep = [
        fmean(
            each
            for target in chosen
            for each in less(at(target, positions[0]), at(target, place))
        )
        for place in positions
    ]
    values = {"epi": ep[-1], "epi_position": positions[-1]}
    return values, {"position": [float(place) for place in positions], "ep": ep}


def slope(bench: Bench, rate: float) -> Measured:
    """Compare each frame with itself all-intra, over the length of the sequence.

    Raises:
        LeftOut: There are not enough frames for a slope.
    """
    start = bench.grid.unit
    if bench.frames < start + 3:
        raise LeftOut(f"it needs {start + 3} frames, and there are {bench.frames}")
    inter, intra = bench.trace(rate), bench.all_intra(rate)
    differences = less(inter.psnr, intra.psnr)[start:]
    third = len(differences) // 3
    bits, bits_intra = sum(inter.bits), sum(intra.bits)
    values = {
        "slope": 100 * least_squares_slope(differences),
        "drift": fmean(differences[:third]) - fmean(differences[-third:]),
        "bpp": bench.bpp(bits),
        "bpp_intra": bench.bpp(bits_intra),
        "saving": 100 * (1 - bits / bits_intra),
    }
    series = {
        "psnr": inter.psnr,
        "psnr_intra": intra.psnr,
        "bits": inter.bits,
        "bits_intra": intra.bits,
    }
    return values, series


def low_reference(bench: Bench, rate: float, low: float) -> Measured:
    """Code one unit at a low rate, and look at the frames after it.

    Raises:
        LeftOut: The codec has one rate only, the low one is not below the rate, or no
            frame comes after the unit.
    """
    check_range(bench.codec.rate_knob, low, rate)
    unit = bench.grid.unit
    lead = min(LEAD, bench.frames - unit - HORIZON)
    bad = max(unit, lead - lead % unit)
    after = bad + unit
    end = min(bench.frames, after + HORIZON)
    if end <= after:
        raise LeftOut(f"it needs {after + 1} frames, and there are {bench.frames}")
    clean = bench.trace(rate, end=end)
    bent = bench.trace(rate, end=end, rate_at=lambda n: low if n == bad else rate)
    loss = less(clean.psnr, bent.psnr)
    rise = rises(bent.bits, clean.bits)
    values = {
        "pd": sum(loss[after:]),
        "ro": sum(rise[after:]),
        "low_loss": fmean(loss[bad:after]),
    }
    series = {
        "offset": [float(number - after + 1) for number in range(end)],
        "psnr_loss": loss,
        "bits_rise": rise,
    }
    return values, series


def fluctuation(bench: Bench, rate: float) -> Measured:
    """Measure how steady quality is, with one start and at later ones.

    Raises:
        LeftOut: There are not enough frames for a second start.
    """
    unit = bench.codec.frames_per_unit
    period = min(INTRA_PERIOD, bench.frames // 2)
    period -= period % unit
    if not period:
        raise LeftOut(f"it needs {2 * unit} frames, and there are {bench.frames}")
    inter, intra = bench.trace(rate), bench.all_intra(rate)
    started = bench.trace(rate, intra_period=period)
    own = less(started.psnr, intra.psnr)
    jumps = [
        abs(own[number] - own[number - 1])
        for number in range(period, bench.frames, period)
    ]
    values = {
        "psnr_std": pstdev(inter.psnr),
        "psnr_std_own": pstdev(less(inter.psnr, intra.psnr)),
        "intra_jump": max(jumps),
    }
    series = {"psnr": inter.psnr, "psnr_intra_period": started.psnr}
    return values, series


def least_squares_slope(values: Sequence[float]) -> float:
    """Return the slope of the line through values at 0, 1, 2, ..., at least two."""
    middle = (len(values) - 1) / 2
    mean = fmean(values)
    above = sum((x - middle) * (y - mean) for x, y in enumerate(values))
    return above / sum((x - middle) ** 2 for x in range(len(values)))
