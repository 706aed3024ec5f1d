"""The frames that another codec's own decoder gave, beside the bytes that they took."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datamodules.frames import open_video
from datamodules.sequences.content import check_content, examine, settle_raw_format
from datamodules.sequences.files import (
    VideoSequence,
    frames_to_read,
    read_codes,
    source_kind,
)
from datamodules.sequences.standard_sets import parse_name
from datamodules.video_reader import VideoError
from datamodules.yuv import Planes, dequantise
from experiments.anchor.base import Anchor
from experiments.anchor.given import (
    by_rate,
    find_bytes,
    find_frames,
    is_shared,
    read_bytes,
)
from experiments.anchor.settings import Preset
from experiments.evaluate.coder import Cost, Task
from experiments.results.result import Result

STAMP = "not decoded by us"


@dataclass
class DecodedCoder(Anchor):
    """Takes frames for decoded and bytes for their cost, as they were given.

    Frames are read as sources are: 8-bit 4:2:0 planes of full range as they are stored
    (or as ``--yuv_as`` says, where colours are RGB), everything else as RGB. So an
    anchor's own output in the colour that it codes has the anchor's own qualities.

    Attributes:
        decoded: Where the frames are, by rate; see ``given.find_frames``.
        bytes: What they took, by rate; see ``given.find_bytes``.
    """

    decoded: Mapping[float, str]
    bytes: Mapping[float, str]

    def describe(self) -> dict[str, Any]:
        """Return the name that the user gave the codec, and that nothing is checked."""
        note = f"{STAMP}: frames and bytes are as they were given"
        return {
            **super().describe(),
            "name": self.name,
            "kind": "decoded",
            "decoded": STAMP,
            "frame_bits": "as given, or even where only the sum was",
            "note": note,
        }

    def environment(self) -> dict[str, Any]:
        """Return where frames and bytes are from."""
        given = {
            repr(rate): {"decoded": text, "bytes": self.bytes[rate]}
            for rate, text in self.decoded.items()
        }
        return {"given": given}

    def check(
        self, sequences: Sequence[VideoSequence], max_frames: int | None, done: Result
    ) -> None:
        """Find all frames and bytes, and compare them with the sources.

        Raises:
            ValueError: Something is missing, of another size or length, or stands for
                two sequences; or bytes are not those of a point that there is.
        """
        problems = [
            str(error)
            for rate in self.decoded
            for error in (
                *self._shared(rate, sequences),
                *(self._wrong(rate, s, max_frames, done) for s in sequences),
            )
            if error
        ]
        if problems:
            raise ValueError("; ".join(dict.fromkeys(problems)))

    def encode(self, task: Task) -> Cost:
        """Return the bytes as given."""
        given = read_bytes(
            find_bytes(self.bytes[task.rate], task.sequence), task.sequence
        )
        if isinstance(given, list):
            return Cost(sum(given), [8.0 * each for each in given])
        frames = sum(1 for _ in self._codes(task))
        return Cost(given, [8 * given / frames] * frames)

    def decode(
        self, task: Task, cost: Cost, scales: int | None = None
    ) -> Iterator[Planes]:
        """Give the frames as given."""
        yield from map(dequantise, self._codes(task))

    def _codes(self, task: Task) -> Iterator[Any]:
        sequence = task.sequence
        path = find_frames(self.decoded[task.rate], sequence)
        held = _as_held(path, sequence, None)
        return read_codes(held, task.colour, yuv_as=task.yuv_as)

    def _shared(self, rate: float, sequences: Sequence[VideoSequence]) -> list[str]:
        """Return what stands for more than one sequence although it cannot."""
        found: dict[tuple[int, int | Path], list[str]] = {}
        finders: list[tuple[str, Callable[..., int | Path]]] = [
            (self.decoded[rate], find_frames),
            (self.bytes[rate], find_bytes),
        ]
        for which, (text, find) in enumerate(finders):
            for sequence in sequences:
                try:
                    place = find(text, sequence)
                    whole = isinstance(place, int) or not is_shared(place)
                except (ValueError, OSError):
                    continue  # It is told where the sequence itself is looked at.
                if whole:
                    found.setdefault((which, place), []).append(sequence.name)
        return [
            f"rate {rate:g}: {place} is given for {', '.join(names)}: name a folder "
            "with one of each, or a pattern with {sequence}"
            for (_, place), names in found.items()
            if len(names) > 1
        ]

    def _wrong(
        self,
        rate: float,
        sequence: VideoSequence,
        max_frames: int | None,
        done: Result,
    ) -> str | None:
        """Return why a sequence cannot be assessed at a rate, if it cannot."""
        frames = frames_to_read(sequence, max_frames)
        label = f"{sequence.set}/{sequence.name} at rate {rate:g}"
        try:
            path = find_frames(self.decoded[rate], sequence)
            held = _as_held(path, sequence, frames)
            given = read_bytes(find_bytes(self.bytes[rate], sequence), sequence)
        except (ValueError, OSError) as error:
            return f"{label}: {error}"
        has = held.frames
        if None not in (has, frames) and has != frames:
            return f"{label}: {path} has {has} frames, the source {frames}"
        if isinstance(given, list) and has is not None and len(given) != has:
            return f"{label}: bytes are given of {len(given)} frames, there are {has}"
        total = sum(given) if isinstance(given, list) else given
        for old, point in done.all_points():
            same = old.key == (sequence.set, sequence.name) and point.rate == rate
            if same and point.nbytes != total:
                return (
                    f"{label}: {point.nbytes} bytes were given before, now {total}: "
                    "choose another --output, or --overwrite to discard it"
                )
        return None


def make_decoded_coder(
    name: str,
    preset: Preset,
    knob: str,
    intra_period: int,
    *,
    rates: Mapping[float, str],
    bytes: Sequence[str],
) -> DecodedCoder:
    """Return the coder of what was given.

    Raises:
        ValueError: A rate has frames and no bytes, or bytes and no frames.
    """
    sizes = by_rate("--bytes", bytes)
    for rate in rates:
        if rate not in sizes:
            raise ValueError(
                f"--bytes lacks rate {rate:g}, of which --decoded has frames: add "
                f"--bytes {rate:g}=FILE or {rate:g}=NUMBER"
            )
    for rate in sizes:
        if rate not in rates:
            raise ValueError(f"--bytes has rate {rate:g}, of which --decoded has none")
    return DecodedCoder(name, preset, knob, intra_period, rates, sizes)


def _as_held(path: Path, source: VideoSequence, frames: int | None) -> VideoSequence:
    """Return decoded frames as a sequence, with the size and rate of the source's.

    Args:
        path: Where they are.
        source: What they should show.
        frames: How many there should be, if that is known.

    Raises:
        ValueError: They cannot be read, or have another size or number.
    """
    width, height = source.width, source.height
    suffix = path.suffix.lower()
    if suffix == ".yuv" and parse_name(path.stem).depth not in (None, 8):
        raise VideoError(f"{path} has more than 8 bits by its name, only 8 are read")
    if suffix == ".yuv":
        settle_raw_format(path, (height, width))
    if frames and (suffix in (".yuv", ".y4m") or path.is_dir()):
        check_content(path, width, height, frames, all_frames=True)
        has: int | None = frames
    elif suffix == ".yuv":
        with open_video(path, size=(height, width), fps=source.fps) as video:
            has = video.frames
    else:
        found = examine(path)
        if (found.width, found.height) != (width, height):
            raise VideoError(
                f"{path} is {found.width}x{found.height}, the source {width}x{height}"
            )
        has = found.frames
    held = replace(source, path=path, frames=has, listed=False, clip=None)
    source_kind(held)
    return held
