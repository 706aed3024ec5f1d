"""Turn a bitstream back into video: ``python -m experiments.decode IN OUT ...``."""

from collections.abc import Sequence

from experiments.bitstreams.options import DecodeOptions
from experiments.bitstreams.pinning import pin_as_encoded
from experiments.cli.command import run_command
from experiments.cli.options import parse

EPILOG = """\
examples:
  python -m experiments.decode in.lvc out.y4m --checkpoint last.ckpt
  python -m experiments.decode cut.lvc frames --checkpoint last.ckpt --partial
  python -m experiments.decode in.lvc preview.mp4 --checkpoint dhvc.ckpt --scales 1
  python -m experiments.decode in.lvc - --checkpoint last.ckpt | ffplay -
  python -m experiments.decode in.lvc out.y4m   (encoded with a model that ships)

OUT appears only when it is complete; a pipe gets frames as they come. PNG images hold
exactly the decoded frames, rounded to 8 bits; .y4m and .yuv round chroma to 4:2:0 too;
.mp4 and .mkv are for watching, not for measuring. It runs with the encoder's threads
and kernels, whatever the environment says; of --isa native it needs a like machine.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""

    def command() -> None:
        options = parse(DecodeOptions, "decode", argv, EPILOG)
        pin_as_encoded(options.input)
        from experiments.bitstreams.decoding import decode

        decode(options)

    return run_command(command)


if __name__ == "__main__":
    raise SystemExit(main())
