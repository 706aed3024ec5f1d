"""Carries out a plan: every run of one ``stream`` command, on one codec and video."""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from datamodules.video_reader import VideoReader
from experiments.bitstreams.coding_mode import choose_device, coding_mode
from experiments.cli.activity import ENCODE, SEND, activity
from experiments.cli.progress import Progress
from experiments.results.origin import describe, versions
from experiments.stream.channel import Echoes, Log, Losses, SentUnit
from experiments.stream.link import Player, UdpLink, load_once
from experiments.stream.options import StreamOptions
from experiments.stream.plan import make_plan
from experiments.stream.runs import Run
from experiments.stream.session import Shown, assess, deliver, send_units, show
from lightning_modules.numerics import current

ENCODING = "encoding"
"""What comes before all runs."""


class Experiment:
    """All runs of one command.

    Args:
        options: Of ``experiments.stream``.

    Attributes:
        name: Of the codec.
        plan: What is run.
        size: (height, width) of the frames, in pixels.
        notes: What the user should know of the runs so far.

    Raises:
        ValueError: An option or a file is wrong, or the codec does not survive losses.
    """

    def __init__(self, options: StreamOptions) -> None:
        self._options = options
        self._device = choose_device(options.device)
        self._codec = load_once(options, self._device.type)
        self._codec.rate_knob.check(options.rate)
        if len(self._codec.devices) > 1:
            raise ValueError(
                f"the encoder would work on {len(self._codec.devices)} frames at once, "
                "before it can hear what was lost: leave out --pipeline"
            )
        self.name = self._codec.shown_name
        self.plan = make_plan(options, self._codec)
        self.notes = self.plan.notes
        with self._open() as video:
            self.size, self._fps = (video.height, video.width), video.fps
            self._frames = video.frames

    def run_all(self) -> list[Run]:
        """Run everything: without loss, progressive, then losses with each echo.

        Raises:
            ValueError: A given loss is beyond the video's end, no unit lies where
                losses are drawn, or a run fails.
        """
        planned = list(self._planned())
        # Frames may not be known, and every run has as many.
        sizes = {_describe(run): 1.0 for run, _ in planned}
        with (
            coding_mode(self._device),
            Progress("runs", {ENCODING: 1.0, **sizes}) as progress,
            ExitStack() as stack,
        ):
            with progress.working(ENCODING, activity()):
                # Nothing that is lost changes what an encoder without echo sends.
                sent = list(self._encode(Echoes(None), phase=ENCODE))
            self._check_losses(sent)
            link = None
            if self._options.udp:
                folder = TemporaryDirectory(prefix=".", dir=self._options.output)
                path = Path(stack.enter_context(folder))
                player = Player(
                    self._options, self._device.type, self.size, self._codec.scales
                )
                link = stack.enter_context(UdpLink(player, path))
            runs = []
            for run, losses in planned:
                with progress.working(_describe(run), activity()):
                    activity().start(SEND, self._frames)
                    if link and losses:
                        runs.append(self._transmit(run, losses, link))
                    else:
                        runs.append(self._simulate(run, sent, losses))
                progress.say(_describe(run))
        return runs

    def _planned(self) -> Iterator[tuple[Run, Losses | None]]:
        """Give all runs, without their frames, and what is lost in each."""
        yield Run("no_loss", "no loss", []), None
        for scales in self.plan.progressive:
            label = f"first {scales} scales only" if scales > 1 else "scale 1 only"
            yield Run("progressive", label, [], scales), None
        for losses, delay in product(self.plan.losses, self.plan.delays):
            run = Run(
                "loss",
                "no echo" if delay is None else f"echo, {delay} frames later",
                [],
                echo_delay=delay,
                loss_rate=None if losses.given else losses.rate,
                seed=None if losses.given else losses.seed,
            )
            yield run, losses

    def to_json(self, runs: list[Run]) -> dict[str, Any]:
        """Return what ``stream.json`` holds below its head."""
        given = dict(vars(self._options))
        # Each is an option of the command's, like the others.
        given |= given.pop("coding")
        options = {
            key: str(value) if isinstance(value, Path | Fraction) else value
            for key, value in given.items()
        }
        return {
            "format": "stream",
            "options": options,
            "codec": {**describe(self._codec), "scales": self._codec.scales},
            "video": {
                "width": self.size[1],
                "height": self.size[0],
                "fps": str(self._fps),
                "frames": len(runs[0].frames),
            },
            "environment": {
                **versions(),
                "device": self._device.type,
                "threads": torch.get_num_threads(),
                "isa": current().isa,
            },
            "parity": asdict(self.plan.parity),
            "notes": self.notes,
            "runs": [run.to_json() for run in runs],
        }

    def _simulate(
        self, run: Run, sent: list[SentUnit], losses: Losses | None = None
    ) -> Run:
        echoes = Echoes(run.echo_delay)
        units: Iterable[SentUnit] = sent
        if run.echo_delay is not None:
            units = self._encode(echoes)
        log: Log = deque()
        arrivals = deliver(units, losses or Losses(), echoes, log)
        shown = show(self._codec, arrivals, self.size, run.scales)
        return self._assessed(run, shown, log)

    def _transmit(self, run: Run, losses: Losses, link: UdpLink) -> Run:
        echoes = Echoes(run.echo_delay)
        units = self._encode(echoes)
        shown, log, carried = link.transmit(units, losses, echoes)
        if carried["lost_otherwise"]:
            self.notes.append(
                f"{_describe(run)}: {len(carried['lost_otherwise'])} packets were "
                "lost or late on the way besides those that the relay dropped"
            )
        return replace(self._assessed(run, shown, log), link=carried)

    def _assessed(self, run: Run, shown: Iterator[Shown], log: Log) -> Run:
        with self._open() as video:
            frames = assess(video, shown, log, self.plan.parity, run.scales)
            return replace(run, frames=list(activity().count(frames, SEND)))

    def _encode(self, echoes: Echoes, phase: str = SEND) -> Iterator[SentUnit]:
        options = self._options
        with self._open() as video:
            frames: Iterable[Tensor] = video
            if phase == ENCODE:
                activity().start(ENCODE, self._frames)
                frames = activity().count(video, ENCODE)
            yield from send_units(
                self._codec, frames, options.rate, options.intra_period, echoes
            )

    def _open(self) -> VideoReader:
        return self._options.open(self._options.input, self._options.max_frames)

    def _check_losses(self, sent: list[SentUnit]) -> None:
        """Raise ``ValueError`` if what was asked for cannot be lost of these units."""
        count = sum(unit.frames for unit in sent)
        for losses in self.plan.losses:
            if losses.rate and not any(
                losses.reaches(unit.first, unit.frames) for unit in sent
            ):
                raise ValueError(
                    f"--loss_rate {losses.rate:g} can lose nothing: of the video's "
                    f"units (frames {_ranges(sent)}) none lies wholly in frames "
                    f"{losses.first} to {losses.last} (--loss_first, --loss_last); "
                    f"--loss_first 1 --loss_last {count} are all of them"
                )
            for frame, scale in sorted(losses.given):
                if frame > count:
                    raise ValueError(
                        f"--lose {frame}:{scale} is beyond the end: there are {count} "
                        "frames (--max_frames)"
                    )


def _ranges(sent: list[SentUnit]) -> str:
    """Return the frames of units, as ``1 to 9, 10 to 17``: the first and the last."""
    ranges = [
        f"{unit.first} to {unit.first + unit.frames - 1}"
        if unit.frames > 1
        else str(unit.first)
        for unit in sent
    ]
    return ", ".join(ranges if len(ranges) < 6 else [*ranges[:3], "...", ranges[-1]])


def _describe(run: Run) -> str:
    seed = "" if run.seed is None else f", loss rate {run.loss_rate:g}, seed {run.seed}"
    return run.label + seed
