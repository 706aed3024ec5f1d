"""A trained codec as what is measured: real bytes, proved by another process."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from experiments.bitstreams.coding_mode import choose_device, coding_mode
from experiments.bitstreams.processes import WorkerProcess
from experiments.evaluate.coder import Coder, Cost
from experiments.evaluate.jobs import prepare_process
from experiments.results.origin import describe

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from datamodules.sequences.files import VideoSequence
    from datamodules.yuv import Codes, Colour, Planes
    from lightning_modules.bitstream import StreamHeader
    from lightning_modules.codec import VideoCodec

STREAM = "stream.lvc"
"""Name of the bitstream in the folder of a job."""


class LearnedCoder(Coder):
    """A checkpoint, and how its codec is run.

    Args:
        name: Label of the curve.
        checkpoint: The trained codec.
        device: Type of device, ``cpu`` or ``cuda``.
        dtype: What the networks compute in.
        intra_period: Frames between starts without a reference.
        estimate: Whether bitstreams are not decoded.
        threads: Of torch, the same in the decoding process.
        options: Of ``codec.configure``, here and in the decoding process.
    """

    def __init__(
        self,
        name: str,
        checkpoint: Path,
        *,
        device: str,
        dtype: str,
        intra_period: int,
        estimate: bool,
        threads: int,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.checkpoint = checkpoint
        self.metric_device = device
        self.dtype = dtype
        self.intra_period = intra_period
        self.estimate = estimate
        self.threads = threads
        self.options = options or {}

    @property
    def codec(self) -> "VideoCodec":
        """The network; loaded once in each process."""
        options = tuple(sorted(self.options.items()))
        return _load(self.checkpoint, self.metric_device, self.dtype, options)

    def describe(self) -> dict[str, Any]:
        """Return the checkpoint's name, fingerprint and architecture."""
        description = {
            **describe(self.codec),
            "kind": "learned",
            "padding": f"right and bottom, repeated edge, to {self.codec.pad_multiple}",
            "dtype": self.dtype,
        }
        if self.options:
            description["options"] = self.options
        return description

    def environment(self) -> dict[str, Any]:
        """Return checkpoint, device and threads."""
        import torch

        device = "cpu"
        if self.metric_device == "cuda":
            device = torch.cuda.get_device_name()
        return {
            "checkpoint": str(self.checkpoint),
            "device": device,
            "threads": self.threads,
        }

    def code(
        self,
        sequence: "VideoSequence",
        codes: Callable[[], Iterator["Codes"]],
        colour: "Colour",
        rate: float,
        folder: Path,
        sink: Callable[["Planes"], None],
    ) -> Cost:
        """Code, measure the encoder's reconstruction, and have it proved.

        The frames that are measured are the decoder's, or this raises: another process
        decodes the bitstream and the frames' hashes are compared.

        Raises:
            ValueError: The codec fails, or the decoder gives other frames.
        """
        from datamodules.yuv import rgb_to_planes
        from experiments.bitstreams.files import code_video

        path = folder / STREAM
        codec = self.codec
        device = next(codec.parameters()).device
        peak_memory(device)
        with coding_mode(device):
            coded = code_video(
                codec,
                self._header(sequence, rate),
                _rgb_frames(codes(), colour),
                path,
                intra_period=self.intra_period,
                reconstruct=True,
                sink=lambda frame: sink(rgb_to_planes(frame.cpu(), colour)),
            )
        cost = Cost(
            coded.nbytes,
            coded.frame_bits,
            coded.estimated_bits,
            dict(coded.seconds),
            {"encode": peak_memory(device)},
            coded.scale_bits if len(coded.scale_bits) > 1 else [],
        )
        if not self.estimate:
            self._prove(path, coded.digest, cost)
        return cost

    def boundaries(self, frames: int) -> list[int]:
        """Return where the codec says that units meet."""
        return self.codec.boundaries(frames)

    def decode_scales(
        self,
        scales: int,
        whole: Cost,
        colour: "Colour",
        folder: Path,
        sink: Callable[["Planes"], None],
    ) -> Cost:
        """Decode some scales here, measure that, and have it proved.

        Raises:
            ValueError: The scales cannot be decoded alone, or the other process gives
                other frames.
        """
        from datamodules.yuv import rgb_to_planes
        from experiments.bitstreams.files import StreamDecoder, open_stream

        path = folder / STREAM
        codec = self.codec
        device = next(codec.parameters()).device
        with open_stream(path) as reader, coding_mode(device):
            decoder = StreamDecoder(codec, reader, scales=scales)
            for frame in decoder:
                sink(rgb_to_planes(frame.cpu(), colour))
        frame_bits = [
            sum(parts) for parts in zip(*whole.scale_bits[:scales], strict=True)
        ]
        unsent = sum(sum(parts) for parts in whole.scale_bits[scales:])
        cost = Cost(whole.nbytes - round(unsent / 8), frame_bits)
        self._prove(path, decoder.digest, cost, scales)
        return cost

    def _prove(
        self, path: Path, digest: str | None, cost: Cost, scales: int | None = None
    ) -> None:
        """Have another process decode a file, and add what that took.

        Raises:
            ValueError: Its frames have another digest.
        """
        theirs, seconds, memory = self._decoding_process().call(
            decode_stream,
            path,
            self.checkpoint,
            self.metric_device,
            scales,
            self.options,
        )
        if theirs != digest:
            what = "encoder reconstructed" if scales is None else "encoder decoded"
            raise ValueError(
                f"another process decoded other frames than the {what} (SHA-256 "
                f"{theirs}, not {digest}): nothing was measured"
            )
        cost.seconds |= seconds
        cost.peak_memory["decode"] = memory

    def find_rate(
        self,
        sequence: "VideoSequence",
        codes: Callable[[], Iterator["Codes"]],
        colour: "Colour",
        target_bpp: float,
        folder: Path,
    ) -> float:
        """Search the knob's value that meets a target; see ``rate_search``.

        Raises:
            ValueError: The target is out of the codec's reach on this sequence.
        """
        from experiments.bitstreams.files import code_video
        from experiments.bitstreams.rate_search import search_rate

        codec = self.codec
        pixels = sequence.width * sequence.height

        def encode(rate: float) -> float:
            coded = code_video(
                codec,
                self._header(sequence, rate),
                _rgb_frames(codes(), colour),
                folder / "trial.lvc",
                intra_period=self.intra_period,
            )
            return 8 * coded.nbytes / (pixels * len(coded.frame_bits))

        with coding_mode(next(codec.parameters()).device):
            search = search_rate(encode, codec.rate_knob, target_bpp)
        if not search.met:
            print(
                f"warning: {sequence.set}/{sequence.name}: {search.cost:.5f} bpp is as "
                f"near as {len(search.trials)} encodes came to {target_bpp:.5f} "
                f"({search.deviation:+.1%})",
                file=sys.stderr,
            )
        return search.rate

    def _header(self, sequence: "VideoSequence", rate: float) -> "StreamHeader":
        from lightning_modules.bitstream import StreamHeader

        codec = self.codec
        return StreamHeader(
            codec=type(codec).__name__,
            fingerprint=codec.fingerprint(),
            width=sequence.width,
            height=sequence.height,
            fps=sequence.fps,
            rate=rate,
            dtype=self.dtype,
            device=self.metric_device,
        )

    def _decoding_process(self) -> WorkerProcess:
        process = _start_decoder(self.threads, self.metric_device)
        if not process.alive:
            _start_decoder.cache_clear()
            process = _start_decoder(self.threads, self.metric_device)
        return process


@lru_cache(maxsize=1)
def _start_decoder(threads: int, device: str) -> WorkerProcess:
    """Start the process that decodes for this one, for all of its jobs."""
    import torch

    gpu = torch.cuda.current_device() if device == "cuda" else 0
    return WorkerProcess(prepare_process, threads, gpu, daemon=True)


@lru_cache(maxsize=1)
def _load(
    checkpoint: Path, device: str, dtype: str, options: tuple[tuple[str, Any], ...]
) -> "VideoCodec":
    import torch

    from lightning_modules import load_codec

    codec = load_codec(
        checkpoint, device=torch.device(device), dtype=getattr(torch, dtype)
    )
    codec.configure(**dict(options))
    return codec


def _rgb_frames(codes: Iterator["Codes"], colour: "Colour") -> Iterator["Tensor"]:
    from datamodules.yuv import dequantise, planes_to_rgb

    for frame in codes:
        yield planes_to_rgb(dequantise(frame), colour)


def decode_stream(
    path: Path,
    checkpoint: Path,
    device: str,
    scales: int | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[str, dict[str, float], int]:
    """Decode a file, or its coarsest scales; return digest, seconds, peak memory."""
    from experiments.bitstreams.files import StreamDecoder, load_decoder, open_stream

    target = choose_device(device)
    with open_stream(path) as reader, coding_mode(target):
        codec = load_decoder(reader.header, checkpoint, target)
        codec.configure(**options)
        decoder = StreamDecoder(codec, reader, scales=scales)
        peak_memory(target)
        for _ in decoder:
            pass
        return decoder.digest, decoder.seconds, peak_memory(target)


def peak_memory(device: "torch.device") -> int:
    """Return the bytes of memory at their peak since this was last called.

    On a GPU those that torch allocated, on a CPU the resident set of the process; where
    the kernel cannot forget a peak, since the process began.
    """
    import resource

    import torch

    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    kilobytes = int(fields["VmHWM"].split()[0])
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")
    return kilobytes * 1024
