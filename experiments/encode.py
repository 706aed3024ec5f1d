"""Code a video into a bitstream file: ``python -m experiments.encode IN OUT ...``."""

from collections.abc import Sequence

from experiments.bitstreams.options import EncodeOptions
from experiments.cli.command import run_command
from experiments.cli.options import parse
from lightning_modules.numerics import pin

EPILOG = """\
examples:
  python -m experiments.encode in.mp4 out.lvc --checkpoint last.ckpt --rate 32
  python -m experiments.encode in.yuv out.lvc --checkpoint last.ckpt --rate 32 \\
      --size 416x240 --fps 50 --max_frames 96 --verify
  python -m experiments.encode in.mp4 out.lvc --checkpoint last.ckpt --target_bpp 0.1
  ffmpeg -i in.mp4 -f matroska - | \\
      python -m experiments.encode - out.lvc --checkpoint last.ckpt --rate 32

A pipe (-, a FIFO, <(...)) is read once, as it comes: y4m, Matroska, MPEG-TS and what
else FFmpeg reads in order; with --size and --fps it is raw .yuv.
OUT appears only when it is complete. bpp counts all of its bytes over the original
pixels. A target takes up to 8 encodes, and the closest is kept. The stream says with
which threads, kernels and version of torch it was encoded, and a decoder runs with the
same again; frames that come out otherwise all the same are said. With --dtype float64
they come out alike whatever a decoder runs with.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""

    def command() -> None:
        options = parse(EncodeOptions, "encode", argv, EPILOG)
        pin(options.isa)
        from experiments.bitstreams.encoding import encode

        encode(options)

    return run_command(command)


if __name__ == "__main__":
    raise SystemExit(main())
