"""A trained codec: real bytes, which another process decodes."""

import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lightning_modules
from datamodules.yuv import Colour, Planes, dequantise, planes_to_rgb, rgb_to_planes
from experiments.bitstreams.coding_mode import choose_device, coding_mode, peak_memory
from experiments.bitstreams.files import (
    StreamDecoder,
    StreamEncoder,
    check_decoder,
    header_of,
    open_stream,
)
from experiments.bitstreams.processes import WorkerProcess, decoding_process
from experiments.bitstreams.rate_search import search_rate
from experiments.evaluate.coder import Coder, Cost, Task
from experiments.results.origin import describe, free_options
from lightning_modules.codec import VideoCodec
from lightning_modules.numerics import current, recreated

STREAM = "stream.lvc"
"""Name of the bitstream in the folder of a task."""


@dataclass(kw_only=True)
class LearnedCoder(Coder):
    """A checkpoint, and how its codec is run.

    The decoder's frames are the encoder's reconstruction, or decoding raises: another
    process decodes the bitstream, and hashes are compared.

    Attributes:
        name: Label of the curve.
        checkpoint: The trained codec.
        metric_device: Type of device, ``cpu`` or ``cuda``; networks run there too.
        dtype: What the networks compute in.
        intra_period: Frames between starts without a reference.
        threads: Of torch, the same in the decoding process.
        coding: For ``codec.configure``, here and in the decoding process.
        scales: See :class:`Coder`.
        latents: See :class:`Coder`.
    """

    name: str
    checkpoint: Path
    metric_device: str
    dtype: str
    intra_period: int
    threads: int
    coding: dict[str, Any]
    scales: tuple[int, ...] = ()
    latents: bool = False

    @property
    def codec(self) -> VideoCodec:
        """The network; loaded once in each process."""
        coding = tuple(sorted(self.coding.items()))
        return _load(self.checkpoint, 0, self.metric_device, self.dtype, coding)

    def describe(self) -> dict[str, Any]:
        """Return what defines the codec, and what it was told for coding."""
        return {
            **describe(self.codec, self.coding),
            "kind": "learned",
            "padding": f"right and bottom, repeated edge, to {self.codec.pad_multiple}",
            "dtype": self.dtype,
        }

    def environment(self) -> dict[str, Any]:
        """Return checkpoint, device, what it ran with, and options that change no bit.

        Every bitstream says the same, and is decoded with it.
        """
        device = "cpu"
        if self.metric_device == "cuda":
            device = torch.cuda.get_device_name()
        return {
            "checkpoint": str(self.checkpoint),
            "device": device,
            "threads": self.threads,
            "isa": current().isa,
            **{k: v for k, v in self.coding.items() if k in free_options()},
        }

    def encode(self, task: Task) -> Cost:
        """Write the bitstream, and hash what its decoder should give.

        Raises:
            ValueError: The codec fails.
        """
        device = self.codec.devices[0]
        peak_memory(device)
        cost = _cost_of(self._encoder(task, reconstruct=True).run())
        cost.peak_memory["encode"] = peak_memory(device)
        return cost

    def decode(
        self, task: Task, cost: Cost, scales: int | None = None
    ) -> Iterator[Planes]:
        """Have another process decode, and give its frames; see :class:`Coder`.

        Raises:
            ValueError: The frames are not those that the encoder reconstructed, or, of
                some scales, not those that this process decodes; or these scales
                cannot be decoded alone.
        """
        path, expected = task.folder / STREAM, cost.digest
        if scales is not None:
            with open_stream(path) as reader:
                decoder = StreamDecoder(self.codec, reader, scales=scales)
                for _ in decoder:
                    pass
            expected = decoder.digest
        digest, seconds, memory = yield from self._decoding_process().generate(
            decode_stream,
            path,
            self.checkpoint,
            self.metric_device,
            task.colour,
            scales,
            self.coding,
        )
        if digest != expected:
            what = "reconstructed" if scales is None else "decoded"
            raise ValueError(
                f"another process decoded other frames than the encoder {what} "
                f"(SHA-256 {digest}, not {expected}): nothing was measured"
            )
        cost.seconds |= seconds
        cost.peak_memory["decode"] = memory

    def boundaries(self, frames: int) -> list[int]:
        """Return where the codec says that units meet."""
        return self.codec.boundaries(frames)

    def find_rate(self, task: Task, target_bpp: float) -> float:
        """Search the knob's value that meets a target; see ``rate_search``.

        Raises:
            ValueError: The target is out of the codec's reach on this sequence.
        """
        sequence = task.sequence

        def encode(rate: float) -> float:
            coded = self._encoder(replace(task, rate=rate), trial=True).run()
            pixels = sequence.width * sequence.height * len(coded.frame_bits)
            return 8 * coded.nbytes / pixels

        search = search_rate(encode, self.codec.rate_knob, target_bpp)
        if not search.met:
            print(
                f"warning: {sequence.set}/{sequence.name}: {search.cost:.5f} bpp is as "
                f"near as {len(search.trials)} encodes came to {target_bpp:.5f} "
                f"({search.deviation:+.1%})",
                file=sys.stderr,
            )
        return search.rate

    def _encoder(
        self, task: Task, *, reconstruct: bool = False, trial: bool = False
    ) -> StreamEncoder:
        return StreamEncoder(
            self.codec,
            header_of(self.codec, task.sequence, task.rate, self.dtype),
            (planes_to_rgb(dequantise(c), task.colour) for c in task.codes()),
            task.folder / STREAM,
            intra_period=self.intra_period,
            reconstruct=reconstruct,
            trial=trial,
        )

    def _decoding_process(self) -> WorkerProcess:
        return decoding_process(self.threads, self.metric_device)


class EstimatedCoder(LearnedCoder):
    """A checkpoint of which nothing is decoded.

    Its frames are the encoder's own, so it encodes while they are asked for.
    """

    def encode(self, task: Task) -> Cost:
        """Return what :meth:`decode` fills."""
        return Cost()

    def decode(
        self, task: Task, cost: Cost, scales: int | None = None
    ) -> Iterator[Planes]:
        """Give the encoder's reconstruction, and what encoding costs."""
        device = self.codec.devices[0]
        peak_memory(device)
        encoder = self._encoder(task, reconstruct=True)
        for frame in encoder:
            yield _to_planes(frame, task.colour)
        vars(cost).update(vars(_cost_of(encoder)))
        cost.peak_memory["encode"] = peak_memory(device)


@lru_cache(maxsize=1)
def _load(
    checkpoint: Path,
    written: int,
    device: str,
    dtype: str,
    coding: tuple[tuple[str, Any], ...],
) -> VideoCodec:
    """Load a codec; the one that was loaded last is the same for all jobs.

    Args:
        checkpoint: Its file.
        written: When that was, for a process that must notice another one.
        device: Where its networks run.
        dtype: What they compute in.
        coding: For ``codec.configure``.
    """
    codec = lightning_modules.load_codec(
        checkpoint, device=torch.device(device), dtype=getattr(torch, dtype)
    )
    codec.configure(**dict(coding))
    return codec


def _cost_of(encoder: StreamEncoder) -> Cost:
    scale_bits = encoder.scale_bits
    return Cost(
        encoder.nbytes,
        encoder.frame_bits,
        scale_bits if len(scale_bits) > 1 else [],
        encoder.estimated_bits,
        encoder.latents,
        encoder.seconds,
        digest=encoder.digest,
    )


def _to_planes(frame: Tensor, colour: Colour) -> Planes:
    return rgb_to_planes(frame.cpu(), colour)


def decode_stream(
    path: Path,
    checkpoint: Path,
    device: str,
    colour: Colour,
    scales: int | None,
    coding: dict[str, Any],
) -> Generator[Planes, None, tuple[str, dict[str, float], int]]:
    """Give the frames of a file, or of its coarsest scales.

    Returns:
        Their digest, seconds, and peak memory.
    """
    target = choose_device(device)
    with (
        open_stream(path) as reader,
        coding_mode(target),
        recreated(reader.header.numerics),
    ):
        codec = _load(
            checkpoint,
            checkpoint.stat().st_mtime_ns,
            device,
            reader.header.dtype,
            tuple(sorted(coding.items())),
        )
        check_decoder(reader.header, codec, checkpoint)
        decoder = StreamDecoder(codec, reader, scales=scales)
        peak_memory(target)
        for frame in decoder:
            yield _to_planes(frame, colour)
        return decoder.digest, decoder.seconds, peak_memory(target)
