"""Send a video over a lossy channel: ``python -m experiments.stream VIDEO ...``."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from experiments.cli import (
    add_device_options,
    check_paths,
    parse_fps,
    parse_size,
    run_command,
)
from experiments.results.typed_json import FileKind
from experiments.stream.channel import MODES
from experiments.stream.plan import LONGEST_TIMEOUT, MOST_SEEDS
from experiments.stream.runs import curves_of, table

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
the original pixels. Codecs of one packet per unit show their last frame again until the
next start without a reference (--intra_period), or for this unit only where none refers
to another; where a unit is several frames, it is lost as a frame is, by chance only if
all of it lies in --loss_first to --loss_last.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(partial(stream, _parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.stream",
        description="Send a video over a channel that loses packets, and show what "
        "becomes of it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("input", metavar="VIDEO", type=Path, help="what encode reads")
    add("--checkpoint", metavar="CKPT", type=Path, required=True, help="trained codec")
    add(
        "--rate",
        metavar="R",
        type=float,
        required=True,
        help="quality in the codec's own unit (DHVC: lambda 256 to 2048)",
    )
    add(
        "--output",
        metavar="OUT",
        type=Path,
        required=True,
        help="new or empty directory",
    )
    losses = parser.add_mutually_exclusive_group(required=True)
    losses.add_argument(
        "--lose",
        metavar="FRAME:SCALE",
        type=parse_place,
        nargs="+",
        help="packets that are lost, for example 5:4",
    )
    losses.add_argument(
        "--loss_rate",
        metavar="P",
        type=float,
        nargs="+",
        help="draw losses, with this probability",
    )
    add(
        "--loss_mode",
        choices=MODES,
        default="frame",
        help="frame: of what, and then one of its packets, any alike; bytes: the same, "
        "but packets with more bytes more often; packet: of each packet alone "
        "(default: frame)",
    )
    add(
        "--loss_first",
        metavar="N",
        type=int,
        default=4,
        help="first frame that can lose packets by chance (default: 4)",
    )
    add(
        "--loss_last",
        metavar="N",
        type=int,
        default=28,
        help="last frame that can (default: 28)",
    )
    add("--seed", type=int, default=0, help="of what is drawn (default: 0)")
    add(
        "--seeds",
        metavar="N",
        type=int,
        default=1,
        help="draw N times, with this seed and the ones after it, at most "
        f"{MOST_SEEDS} (default: 1)",
    )
    add(
        "--protect",
        metavar="K",
        type=int,
        help="scales whose packets are never lost, as if by forward error correction "
        "(default: 1, or 0 if the codec has no more)",
    )
    add(
        "--echo_delay",
        metavar="N",
        type=parse_delay,
        nargs="+",
        default=[3, None],
        help="frames from a loss to the one in which the encoder acts on it, or none; "
        "each is a curve (default: 3 none)",
    )
    add(
        "--progressive",
        metavar="K",
        type=int,
        nargs="*",
        help="also decode only the first K scales, nothing lost (default: those below "
        "the coarsest that is lost)",
    )
    add("--max_frames", metavar="N", type=int, default=32, help="default: 32")
    add(
        "--intra_period",
        metavar="N",
        type=int,
        default=32,
        help="frames between starts without a reference, -1 for one (default: 32)",
    )
    add(
        "--udp",
        action="store_true",
        help="send real datagrams on loopback: sender, relay and receiver are "
        "processes of their own",
    )
    add(
        "--datagram",
        metavar="BYTES",
        type=int,
        default=1200,
        help="largest datagram; larger packets are cut, and lost if one piece is "
        "(default: 1200)",
    )
    add(
        "--timeout",
        metavar="S",
        type=float,
        default=60.0,
        help="seconds of silence on a socket that are an error, at most "
        f"{LONGEST_TIMEOUT} (default: 60)",
    )
    add_device_options(parser)
    add("--size", metavar="WxH", type=parse_size, help="frame size, for raw .yuv only")
    add(
        "--fps",
        metavar="F",
        type=parse_fps,
        help="frames per second, for raw .yuv only",
    )
    add(
        "--depth",
        metavar="BITS",
        type=int,
        default=8,
        help="bits per sample, for raw .yuv only (default: 8)",
    )
    return parser


def parse_place(text: str) -> tuple[int, int]:
    """Turn ``5:4`` into frame 5 and scale 4."""
    frame, colon, scale = text.partition(":")
    if not (colon and frame.isdecimal() and scale.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no FRAME:SCALE such as 5:4")
    return int(frame), int(scale)


def parse_delay(text: str) -> int | None:
    """Turn ``3`` into itself and ``none`` into ``None``."""
    if text == "none":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no echo delay: give a number of frames from 1, or none"
        )
    return int(text)


def stream(options: argparse.Namespace) -> None:
    """Send ``options.input`` as the options say, and write what became of it.

    Raises:
        ValueError: An option is wrong, the codec does not survive losses, or sockets
            stay silent.
    """
    from experiments.stream.experiment import Experiment
    from experiments.stream.plots import write_plots

    check_paths(options.input, options.output)
    with _own_directory(options.output):
        experiment = Experiment(options)
        runs = experiment.run_all()
        FileKind("stream").save(
            experiment.to_json(runs), options.output / "stream.json"
        )
        title = f"{options.input.name}, {experiment.name}, rate {options.rate:g}"
        write_plots(runs, title, options.output)
    print(table(curves_of(runs), experiment.height * experiment.width))
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
