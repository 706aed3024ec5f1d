"""Carries out what one ``propagation`` command asks, on one codec."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from datamodules.sequences.files import VideoSequence, read_codes, source_kind
from datamodules.sequences.find import find_sequences
from experiments.bitstreams.coding_mode import choose_device, coding_mode
from experiments.cli.activity import TEST, activity
from experiments.cli.progress import Progress, say
from experiments.propagation import control, drift
from experiments.propagation.bench import Bench, Grid, LeftOut
from experiments.propagation.findings import Finding, Measured, Report, mean_of
from experiments.propagation.numbers import AT_ONE_RATE, NUMBERS, TESTS, TRIALS
from experiments.propagation.options import PropagationOptions
from experiments.results.origin import describe, versions
from lightning_modules import load_codec
from lightning_modules.numerics import current

POSITIONS = (1, 2, 4, 8, 16, 32, 64, 96)

SWEEP = 65
"""Rates of a sweep where no number is given: steps of 1/64 of the knob."""


@dataclass(frozen=True)
class Plan:
    """What is done; all of it is in the file.

    Attributes:
        tests: Their names.
        rates: Of the tests at one rate, in the unit of the codec's knob.
        low_rate: Of the unit at a low rate, and where a sawtooth begins.
        max_frames: Of each sequence, from the first on; fewer if it has not so many.
        positions: Of the position test, the reference first; empty without it.
        targets: Units that it looks at in each sequence, at most.
        sweep: Rates of the sweep.
        quality: What is compared.
        bits: What is counted.
    """

    tests: tuple[str, ...]
    rates: tuple[float, ...]
    low_rate: float
    max_frames: int
    positions: tuple[int, ...]
    targets: int
    sweep: int
    quality: str = "PSNR of RGB frames, rounded to 8 bits, decoded from the packets"
    bits: str = "the packets' payloads, without the container's headers"


MEASURE: dict[str, Callable[[Bench, Plan, Any], Measured]] = {
    "position": lambda bench, plan, rate: drift.position(
        bench, rate, plan.positions, plan.targets
    ),
    "slope": lambda bench, _, rate: drift.slope(bench, rate),
    "low_reference": lambda bench, plan, rate: drift.low_reference(
        bench, rate, plan.low_rate
    ),
    "fluctuation": lambda bench, _, rate: drift.fluctuation(bench, rate),
    "sweep": lambda bench, plan, _: control.sweep(bench, plan.sweep),
    "target_rate": lambda bench, *_: control.target_rate(bench),
    "sawtooth": lambda bench, plan, rate: control.sawtooth(bench, rate, plan.low_rate),
}
"""What does each test, at one rate; at ``None`` if it needs the whole range."""


CODED: dict[str, Callable[[Plan, Grid, int], int]] = {
    "position": lambda plan, grid, _: (
        plan.targets * sum(place + grid.unit for place in plan.positions)
    ),
    "slope": lambda _, __, frames: 2 * frames,
    "low_reference": lambda _, grid, frames: (
        2 * min(frames, drift.LEAD + 2 * grid.unit + drift.HORIZON)
    ),
    # It shares two encodes with the slope.
    "fluctuation": lambda plan, _, frames: (1 if "slope" in plan.tests else 3) * frames,
    "sweep": lambda plan, _, frames: plan.sweep * frames,
    "target_rate": lambda _, __, frames: (2 + 3 * TRIALS) * frames,
    "sawtooth": lambda _, __, frames: (1 + control.LEVELS) * frames,
}
"""About how many frames each test codes of a sequence that has so many."""


@dataclass(frozen=True)
class Item:
    """One test of one sequence, at one rate if it has one."""

    sequence: VideoSequence
    test: str
    rate: float | None

    def __str__(self) -> str:
        """Say which it is."""
        at = "" if self.rate is None else f" at {self.rate:g}"
        return f"{self.sequence.set}/{self.sequence.name}, {self.test}{at}"


class Experiment:
    """One codec, some sequences and a plan.

    Args:
        options: Of ``experiments.propagation``, with a checkpoint.

    Attributes:
        name: Label of the curves.
        plan: What is done.

    Raises:
        ValueError: An option is wrong.
    """

    def __init__(self, options: PropagationOptions) -> None:
        assert options.checkpoint, "sequences come with a checkpoint"
        self._options = options
        self._checkpoint = options.checkpoint.absolute()
        self._device = choose_device(options.device)
        dtype = getattr(torch, options.dtype)
        self._codec = load_codec(self._checkpoint, device=self._device, dtype=dtype)
        self._codec.configure(**options.coding)
        self.name = options.name or self._codec.shown_name
        self._sequences = [
            (each, _count(each, options.max_frames))
            for each in find_sequences(options.sequences)
        ]
        self._left_out: dict[str, str] = {}
        self._grid = Grid.of(self._codec)
        self.plan = self._make_plan(self._grid)

    def run(self) -> Report:
        """Do everything that can be done.

        Raises:
            ValueError: That is nothing, or coding fails.
        """
        findings: list[Finding] = []
        coded = {
            Item(sequence, test, rate): CODED[test](self.plan, self._grid, frames)
            for sequence, frames in self._sequences
            for test in self.plan.tests
            for rate in (self.plan.rates if test in AT_ONE_RATE else (None,))
        }
        pixels = {
            item: item.sequence.width * item.sequence.height * frames
            for item, frames in coded.items()
        }
        benches = {
            sequence: Bench(self._codec, sequence, frames)
            for sequence, frames in self._sequences
        }
        with coding_mode(self._device), Progress("tests", pixels) as progress:
            for item, frames in coded.items():
                bench = benches[item.sequence]
                found = self._try(bench, item, frames, progress)
                if found is not None:
                    findings.append(found)
                    name = f"{item.sequence.set}/{item.sequence.name}"
                    progress.say(f"{name}, {_say(found)}")
        if not findings:
            reasons = "; ".join(f"{k}: {v}" for k, v in self._left_out.items())
            raise ValueError(f"no test could be done: {reasons}")
        return self._report(findings)

    def _make_plan(self, grid: Grid) -> Plan:
        options, knob = self._options, self._codec.rate_knob
        rates = options.rate or (knob.points[len(knob.points) // 2],)
        for rate in rates:
            knob.check(rate)
        low = knob.low if options.low_rate is None else knob.check(options.low_rate)
        shortest = min(frames for _, frames in self._sequences)
        last = max(options.positions or (0,))
        needed = grid.position(last) + grid.unit
        if options.positions and needed > shortest:
            raise ValueError(
                f"position {last} of --positions needs {needed} frames of this codec, "
                f"and the shortest sequence gives {shortest}: leave it out, or raise "
                "--max_frames if there are more"
            )
        positions: list[int] = []
        tests = list(dict.fromkeys(options.tests))
        if options.sweep and "sweep" not in tests:
            tests.append("sweep")
        if "position" in tests:
            try:
                wanted = options.positions or POSITIONS
                positions = drift.choose_positions(grid, wanted, shortest)
            except LeftOut as reason:
                tests.remove("position")
                self._leave_out("position", reason)
        return Plan(
            tests=tuple(tests),
            rates=tuple(dict.fromkeys(rates)),
            low_rate=low,
            max_frames=options.max_frames,
            positions=tuple(positions),
            targets=options.targets,
            sweep=options.sweep or SWEEP,
        )

    def _try(
        self, bench: Bench, item: Item, frames: int, progress: Progress
    ) -> Finding | None:
        plan, sequence = self.plan, bench.sequence
        test, rate = item.test, item.rate
        try:
            with progress.working(item, activity()):
                activity().start(TEST, frames)
                measured = MEASURE[test](bench, plan, rate)
            return Finding(test, rate, *measured, sequence.set, sequence.name)
        except LeftOut as reason:
            what = test
            if rate is not None and len(plan.rates) > 1:
                what = f"{test} at {self._codec.rate_knob.name} {rate:g}"
            if len(self._sequences) > 1:
                what += f", {sequence.set}/{sequence.name}"
            self._leave_out(what, reason)
            return None

    def _leave_out(self, what: str, reason: LeftOut) -> None:
        self._left_out[what] = str(reason)
        say(f"left out: {what}: {reason}")

    def _report(self, findings: list[Finding]) -> Report:
        groups: dict[tuple[str, float | None], list[Finding]] = {}
        for found in findings:
            groups.setdefault((found.test, found.rate), []).append(found)
        means = [mean_of(group) for group in groups.values()]
        for mean in means:
            if mean.test == "sweep":
                whole = control.of_sweep(mean.series["rate"], mean.series["bpp"])
                mean.values["violations_of_mean"] = whole["violations"]
        knob, grid = self._codec.rate_knob, self._grid
        return Report(
            name=self.name,
            codec={
                **describe(self._codec, self._options.coding),
                "rate_range": [knob.low, knob.high],
                "unit": grid.unit,
                "cycle": grid.cycle,
            },
            protocol=json.loads(json.dumps(asdict(self.plan))),
            environment={
                **versions(),
                "checkpoint": str(self._checkpoint),
                "device": self._device.type,
                "dtype": self._options.dtype,
                "threads": torch.get_num_threads(),
                "isa": current().isa,
            },
            sequences=[
                {
                    "set": sequence.set,
                    "name": sequence.name,
                    "width": sequence.width,
                    "height": sequence.height,
                    "fps": str(sequence.fps),
                    "frames": frames,
                    "source": source_kind(sequence),
                }
                for sequence, frames in self._sequences
            ],
            left_out=self._left_out,
            findings=findings,
            means=means,
            definitions={
                name: NUMBERS[name].definition
                for test in self.plan.tests
                for name in TESTS[test]
            },
        )


def _count(sequence: VideoSequence, limit: int) -> int:
    """Return how many frames of a sequence are coded."""
    if sequence.frames is not None:
        return min(limit, sequence.frames)
    # A file that does not say it; there is no other way.
    return sum(1 for _ in read_codes(sequence, "rgb", limit))


def _say(found: Finding) -> str:
    at = "" if found.rate is None else f" at {found.rate:g}"
    numbers = (
        (NUMBERS[name].label, NUMBERS[name].text(value), NUMBERS[name].unit)
        for name, value in found.values.items()
    )
    said = ", ".join(" ".join(parts).strip() for parts in numbers)
    return f"{found.test}{at}: {said}"
