"""Measure a trained codec on test sequences: ``python -m experiments.evaluate ...``."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.coder import Coder, Cost
from experiments.coding import choose_device, coding_mode, run_command
from experiments.evaluation import (
    add_shared_options,
    measure_all,
    prepare_process,
    settings_of,
)
from experiments.parts import Rate
from experiments.processes import WorkerProcess

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from datamodules.sequences import VideoSequence
    from datamodules.yuv import Codes, Colour, Planes
    from lightning_modules.bitstream import StreamHeader
    from lightning_modules.codec import VideoCodec

EPILOG = """\
examples:
  python -m experiments.evaluate --checkpoint last.ckpt --max_frames 96 \\
      --sequences hevc_b=/data/HEVC_B uvg=/data/UVG --output results/ui2c.json
  python -m experiments.evaluate --checkpoint last.ckpt --sequences clips/ \\
      --colour rgb --target_bpp 0.02 0.05 0.1 --workers 2 --output results/rgb.json

Every point is a real bitstream that another process decodes to the same frames. The
same command again goes on with what is missing.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(partial(evaluate, _parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.evaluate",
        description="Measure a trained codec on test sequences.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", metavar="CKPT", type=Path, required=True, help="trained codec")
    rates = parser.add_mutually_exclusive_group()
    rates.add_argument(
        "--rate",
        metavar="R",
        type=float,
        nargs="+",
        help="values of the codec's knob (default: the ones its paper reports)",
    )
    rates.add_argument(
        "--target_bpp",
        metavar="X",
        type=float,
        nargs="+",
        help="search the rate that gives these bits per pixel on each sequence",
    )
    rates.add_argument(
        "--target_kbps", metavar="X", type=float, nargs="+", help="the same in kbit/s"
    )
    add_shared_options(parser)
    add(
        "--estimate",
        action="store_true",
        help="fast: bits are the model's estimate and nothing is decoded; a file of "
        "its own kind, never compared with real bitstreams",
    )
    add(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="where the networks run (default: cuda if there is one)",
    )
    add(
        "--dtype",
        choices=["float32", "float16", "bfloat16"],
        default="float32",
        help="what they compute in (default: float32)",
    )
    return parser


def evaluate(options: argparse.Namespace) -> int:
    """Measure as the options say; see :func:`experiments.evaluation.run_jobs`."""
    if not options.checkpoint.is_file():
        raise ValueError(f"there is no checkpoint {options.checkpoint}")
    kind = "estimate" if options.estimate else "bitstream"
    settings = settings_of(options, kind)
    coder = LearnedCoder(
        name=options.name or options.output.stem,
        checkpoint=options.checkpoint.absolute(),
        device=choose_device(options.device).type,
        dtype=options.dtype,
        intra_period=options.intra_period,
        estimate=options.estimate,
        threads=settings.threads,
    )
    knob = coder.codec.rate_knob
    if options.target_bpp:
        rates = [Rate(value, "bpp") for value in options.target_bpp]
    elif options.target_kbps:
        rates = [Rate(value, "kbps") for value in options.target_kbps]
    else:
        rates = [Rate(knob.check(value)) for value in options.rate or knob.points]
    return measure_all(coder, rates, settings, options)


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
    ) -> None:
        self.name = name
        self.checkpoint = checkpoint
        self.metric_device = device
        self.dtype = dtype
        self.intra_period = intra_period
        self.estimate = estimate
        self.threads = threads
        self._decoder: WorkerProcess | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_decoder": None}

    @property
    def codec(self) -> "VideoCodec":
        """The network; loaded once in each process."""
        return _load(self.checkpoint, self.metric_device, self.dtype)

    def describe(self) -> dict[str, Any]:
        """Return the checkpoint's name, fingerprint and architecture."""
        codec = self.codec
        return {
            "name": type(codec).__name__.removesuffix("Codec"),
            "kind": "learned",
            "fingerprint": codec.fingerprint().hex(),
            "architecture": codec.architecture,
            "rate_unit": codec.rate_knob.name,
            "frames_per_unit": codec.frames_per_unit,
            "padding": f"right and bottom, repeated edge, to {codec.pad_multiple}",
            "dtype": self.dtype,
        }

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
        from experiments.streams import code_video

        path = folder / "stream.lvc"
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
        )
        if self.estimate:
            return cost
        digest, seconds, memory = self._decoding_process().call(
            decode_stream, path, self.checkpoint, self.metric_device
        )
        if digest != coded.digest:
            raise ValueError(
                "another process decoded other frames than the encoder reconstructed "
                f"(SHA-256 {digest}, not {coded.digest}): nothing was measured"
            )
        cost.seconds |= seconds
        cost.peak_memory["decode"] = memory
        return cost

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
        from experiments.rate_search import search_rate
        from experiments.streams import code_video

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
        if self._decoder is None:
            import torch

            gpu = torch.cuda.current_device() if self.metric_device == "cuda" else 0
            self._decoder = WorkerProcess(
                prepare_process, self.threads, gpu, daemon=True
            )
        return self._decoder


@lru_cache(maxsize=1)
def _load(checkpoint: Path, device: str, dtype: str) -> "VideoCodec":
    import torch

    from lightning_modules import load_codec

    return load_codec(
        checkpoint, device=torch.device(device), dtype=getattr(torch, dtype)
    )


def _rgb_frames(codes: Iterator["Codes"], colour: "Colour") -> Iterator["Tensor"]:
    from datamodules.yuv import dequantise, planes_to_rgb

    for frame in codes:
        yield planes_to_rgb(dequantise(frame), colour)


def decode_stream(
    path: Path, checkpoint: Path, device: str
) -> tuple[str, dict[str, float], int]:
    """Decode a file; return the frames' digest, seconds, and peak memory."""
    from experiments.streams import StreamDecoder, load_decoder, open_stream

    target = choose_device(device)
    with open_stream(path) as reader, coding_mode(target):
        decoder = StreamDecoder(load_decoder(reader.header, checkpoint, target), reader)
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


if __name__ == "__main__":
    raise SystemExit(main())
