"""Send a video over a lossy channel: ``python -m experiments.stream VIDEO ...``."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path

from experiments.cli.command import check_paths, run_command
from experiments.cli.options import parse
from experiments.cli.progress import say
from experiments.results.drawing.tables import print_table
from experiments.results.typed_json import FileKind
from experiments.stream import plots
from experiments.stream.options import StreamOptions
from experiments.stream.runs import curves_of, means_table
from lightning_modules.numerics import pin

EPILOG = """\
Frames and scales count from 1; scale 1 is the coarsest. The experiments of the DHVC
paper (arXiv 2410.02598, section 7.4), with a model without the auxiliary path:

  scale 4 of frame 5 is lost, the encoder acts on it at frame 8, at frame 16, or never:
  python -m experiments.stream in.mp4 --checkpoint last.ckpt --rate 1024 \\
      --lose 5:4 --echo_delay 3 11 none --output runs/loss_scale_4

  the same with scale 2:
  python -m experiments.stream in.mp4 --checkpoint last.ckpt --rate 1024 \\
      --lose 5:2 --echo_delay 3 11 none --output runs/loss_scale_2

  losses in frames 4 to 28 at four rates, each with 20 seeds:
  python -m experiments.stream in.mp4 --checkpoint last.ckpt --rate 1024 \\
      --loss_rate 0.2 0.4 0.6 0.8 --loss_first 4 --loss_last 28 --echo_delay 4 none \\
      --seeds 20 --output runs/loss_rates
  and with --loss_mode packet or --loss_mode bytes.

  over UDP, with a sender, a relay that loses packets and a receiver:
  python -m experiments.stream in.mp4 --checkpoint last.ckpt --rate 1024 \\
      --loss_rate 0.4 --udp --output runs/loss_udp

OUT gets stream.json and figures. bpp counts the packets' payloads, sent or lost, over
the original pixels, and the parity that keeps protected ones from being lost: --parity
packets for each unit, each as long as the longest that is protected (a code such as
Reed and Solomon's). Parity is counted and never drawn on; over UDP it is not sent.
Codecs of one packet per unit show their last frame again until the
next start without a reference (--intra_period), or for this unit only where none refers
to another; where a unit is several frames, it is lost as a frame is, by chance only if
all of it lies in --loss_first to --loss_last.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(lambda: stream(parse(StreamOptions, "stream", argv, EPILOG)))


def stream(options: StreamOptions) -> None:
    """Send ``options.input`` as the options say, and write what became of it.

    Raises:
        ValueError: An option is wrong, the codec does not survive losses, or sockets
            stay silent.
    """
    # Before the imports, which take seconds.
    say(f"loading {options.checkpoint}")
    pin(options.isa)
    from experiments.stream.experiment import Experiment

    check_paths(options.input, options.output)
    with _own_directory(options.output):
        experiment = Experiment(options)
        runs = experiment.run_all()
        values = experiment.to_json(runs)
        FileKind("stream").save(values, options.output / "stream.json")
        title = f"{options.input.name}, {experiment.name}, rate {options.rate:g}"
        plots.write_plots(runs, title, options.output)
    print_table(means_table(title, curves_of(runs), prod(experiment.size)))
    for note in experiment.notes:
        print(f"note: {note}", file=sys.stderr)


@contextmanager
def _own_directory(path: Path) -> Iterator[None]:
    """Make a directory for one run alone, and take it back if the block raises.

    What the block has finished there by then stays, and so does the directory.

    Raises:
        ValueError: ``path`` is a file, or holds something, as of an earlier run.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"--output {path} is a file: name a new or empty directory")
    if path.is_dir() and any(path.iterdir()):
        raise ValueError(
            f"--output {path} is not empty, and files of two runs would mix there: "
            "name a new or empty directory"
        )
    made = [each for each in (path, *path.parents) if not each.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for each in made:
            # It holds something, or was never made.
            with suppress(OSError):
                each.rmdir()
        raise
