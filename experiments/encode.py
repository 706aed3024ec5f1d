"""Code a video into a bitstream file: ``python -m experiments.encode IN OUT ...``."""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.coding import (
    check_paths,
    choose_device,
    coding_mode,
    frame_bytes,
    parse_fps,
    parse_size,
    psnr,
    run_command,
    speed,
    summary,
    track,
)

if TYPE_CHECKING:
    from torch import Tensor

EPILOG = """\
examples:
  python -m experiments.encode in.mp4 out.lvc --checkpoint last.ckpt --rate 32
  python -m experiments.encode in.yuv out.lvc --checkpoint last.ckpt --rate 32 \\
      --size 416x240 --fps 50 --max_frames 96 --verify

OUT appears only when it is complete. bpp counts all of its bytes over the original
pixels. Decode on the same kind of device: the decoder needs the encoder's numbers
bit by bit, and notices if it arrives at others.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(partial(encode, _parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.encode",
        description="Code a video with a trained codec into a bitstream file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "input",
        metavar="IN",
        type=Path,
        help="video, raw 4:2:0 (.y4m, .yuv), directory of PNG images, or one image",
    )
    add("output", metavar="OUT", type=Path, help="bitstream file to write")
    add("--checkpoint", metavar="CKPT", type=Path, required=True, help="trained codec")
    add(
        "--rate",
        metavar="QP",
        type=float,
        required=True,
        help="quality in the codec's own unit (UI2C: qp 0 to 63); more is more bits",
    )
    add("--max_frames", metavar="N", type=int, help="stop after N frames")
    add(
        "--intra_period",
        metavar="N",
        type=int,
        default=-1,
        help="start without a reference every N frames (default: only at the first)",
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
        help="what they compute in; the decoder follows (default: float32)",
    )
    add("--size", metavar="WxH", type=parse_size, help="frame size, for raw .yuv only")
    add(
        "--fps",
        metavar="F",
        type=parse_fps,
        help="frames per second, for raw .yuv (replaces what other files say)",
    )
    add(
        "--depth",
        metavar="BITS",
        type=int,
        default=8,
        help="bits per sample, for raw .yuv only (default: 8)",
    )
    add(
        "--verify",
        action="store_true",
        help="decode in a second process, require identical frames, report PSNR",
    )
    return parser


def encode(options: argparse.Namespace) -> None:
    """Code ``options.input`` into ``options.output`` and print what it costs.

    Raises:
        ValueError: An option, a file or the verification is wrong.
    """
    import torch

    from datamodules.frames import open_video
    from datamodules.writing import whole_or_nothing
    from lightning_modules import load_codec
    from lightning_modules.bitstream import BitstreamWriter, StreamHeader

    check_paths(options.input, options.output)
    device = choose_device(options.device)
    with (
        open_video(
            options.input,
            size=options.size,
            fps=options.fps,
            depth=options.depth,
            max_frames=options.max_frames,
        ) as video,
        whole_or_nothing(options.output) as temporary,
        coding_mode(device),
    ):
        codec = load_codec(
            options.checkpoint, device=device, dtype=getattr(torch, options.dtype)
        )
        rate = codec.rate_knob.check(options.rate)
        header = StreamHeader(
            codec=type(codec).__name__,
            fingerprint=codec.fingerprint(),
            width=video.width,
            height=video.height,
            fps=video.fps,
            rate=rate,
            dtype=options.dtype,
            device=device.type,
        )
        # Frames that the codec has taken and not yet given back, for the PSNR.
        taken: deque[Tensor] = deque()

        def frames() -> Iterator["Tensor"]:
            for frame in track(video, "encoding", video.frames):
                if options.verify:
                    taken.append(frame)
                yield frame

        start = time.perf_counter()
        psnr_sum = 0.0
        digest = hashlib.sha256()
        with temporary.open("wb") as file:
            writer = BitstreamWriter(file, header)
            for packet in codec.compress(
                frames(),
                rate,
                intra_period=options.intra_period,
                reconstruct=options.verify,
            ):
                writer.write(packet)
                if options.verify:
                    assert packet.x_hat is not None, "reconstruct=True gives x_hat"
                    for frame in packet.x_hat:
                        digest.update(frame_bytes(frame))
                        psnr_sum += psnr(frame, taken.popleft())
            writer.close()
        pace = speed(writer.frames, start)
        if options.verify:
            _verify(temporary, options.checkpoint, device.type, digest.hexdigest())
            pace = f"PSNR {psnr_sum / writer.frames:.2f} dB, {pace}, verified"
    size = (header.height, header.width)
    cost = summary(options.output, writer.frames, size, header.fps, writer.nbytes)
    print(f"{cost}, {pace}")


def _verify(path: Path, checkpoint: Path, device: str, expected: str) -> None:
    """Decode in another process and compare the frames' hash with the encoder's."""
    command = [sys.executable, "-m", "experiments.decode", str(path), "--hash"]
    command += ["--checkpoint", str(checkpoint), "--device", device]
    search = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    result = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))},
    )
    if result.returncode:
        reason = (result.stderr.strip() or "no message").splitlines()[-1]
        raise ValueError(f"verification failed, nothing was written: {reason}")
    if result.stdout.split()[-1:] != [expected]:
        raise ValueError(
            "verification failed, nothing was written: decoded frames differ from the "
            f"encoder's own (SHA-256 {result.stdout.strip()}, not {expected})"
        )


if __name__ == "__main__":
    raise SystemExit(main())
