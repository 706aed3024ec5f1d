"""Time UI2C's single-frame network beside DCVC-RT's own code, on a CPU.

Both hold the same random weights and code the same frames with real bytes::

    git clone https://github.com/microsoft/DCVC
    (cd DCVC/DCVC-family/DCVC-RT/src/cpp && pip install .)
    python -m lightning_modules.ui2c.against_dcvc_rt DCVC/DCVC-family/DCVC-RT

Nothing of the checkout enters this project: it is imported while the command runs.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.yuv import rgb_to_yuv, yuv_to_rgb
from lightning_modules.allocator import keep_freed_memory
from lightning_modules.alternating import alternating
from lightning_modules.clock import CodingClock
from lightning_modules.numerics import current
from lightning_modules.ui2c.codec import UI2CCodec
from lightning_modules.ui2c.network import QP_BIAS
from lightning_modules.ui2c.released import VIDEO

FRAMES = 4
QP = 32
SAME = 1e-3
"""Of samples of the first frame; with kernels of generation 0 they are equal."""


class Theirs:
    """DCVC-RT's own model with given weights, coding as ours does.

    Args:
        checkout: Folder ``DCVC-family/DCVC-RT``.
        ours: Whose weights it takes.

    Raises:
        ValueError: Its code, or its built entropy coder, cannot be imported.
    """

    def __init__(self, checkout: Path, ours: UI2CCodec) -> None:
        sys.path.insert(0, str(checkout))
        try:
            import_module("MLCodec_extensions_cpp")
            model: Any = import_module("src.models.video_model")
        except ImportError as error:
            raise ValueError(
                f"DCVC-RT's code cannot be imported ({error}): build its entropy coder "
                "by pip install . in its folder src/cpp"
            ) from error
        self.model = model.DMC().eval()
        state = ours.network.state_dict()
        self.model.load_state_dict(
            {name: VIDEO.theirs(name, state) for name in self.model.state_dict()}
        )
        self.model.update()

    def start(self, blank: Tensor) -> None:
        """Let the next frame refer to a blank one (1, 3, H, W)."""
        self.model.clear_dpb()
        self.model.add_ref_frame(None, blank)

    def compress(self, frames: Sequence[Tensor]) -> list[bytes]:
        """Code YUV frames (1, 3, H, W), each from the one before."""
        self.start(torch.zeros_like(frames[0]))
        with _without_cuda():
            return [
                self.model.compress(frame, qp)["bit_stream"]
                for frame, qp in zip(frames, _qps(), strict=False)
            ]

    def decompress(self, streams: Sequence[bytes], size: tuple[int, int]) -> Tensor:
        """Decode to YUV frames (T, 3, H, W)."""
        self.start(torch.zeros(1, 3, *size))
        shape = {"height": size[0], "width": size[1], "ec_part": 0}
        with _without_cuda():
            return torch.cat(
                [
                    self.model.decompress(stream, shape, qp)["x_hat"]
                    for stream, qp in zip(streams, _qps(), strict=False)
                ]
            )


def _check_checkout(checkout: Path) -> None:
    if not (checkout / "src" / "models" / "video_model.py").is_file():
        raise ValueError(
            f"{checkout} is no checkout of DCVC-RT: give its folder "
            "DCVC-family/DCVC-RT, in which src/models/video_model.py is"
        )


def _qps() -> list[int]:
    return [QP + bias for bias in QP_BIAS]


@contextmanager
def _without_cuda() -> Any:
    """Give their code, which orders work on a GPU, nothing to wait for."""
    event = SimpleNamespace(record=lambda: None, wait=lambda: None)
    with (
        patch("torch.cuda.Event", lambda: event),
        patch("torch.cuda.Stream", lambda *args, **options: None),
        patch("torch.cuda.stream", lambda stream: nullcontext()),
        patch("torch.cuda.synchronize", lambda device=None: None),
    ):
        yield


def untrained() -> UI2CCodec:
    """Return our codec with random weights, whose frames are a dim picture on grey."""
    torch.manual_seed(0)
    codec = UI2CCodec("paper", frames_per_unit=1, input_offset=0.0).eval()
    # Theirs clamps YUV, ours RGB: neither shall have to.
    last = codec.network.recon_out
    with torch.no_grad():
        last.weight *= 0.02
        assert last.bias is not None
        last.bias.fill_(0.5)
    return codec


def made_frames(size: tuple[int, int]) -> Tensor:
    """Return smooth random pictures that move, (T, 3, H, W), RGB in [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, size[0] // 8 + 4, size[1] // 8 + 4, generator=generator)
    large = F.interpolate(coarse, scale_factor=8.0, mode="bicubic").clamp(0, 1)
    rows, columns = size
    return torch.cat(
        [large[..., 2 * t : 2 * t + rows, t : t + columns] for t in range(FRAMES)]
    )


def entropy_seconds(codec: UI2CCodec, clip: Tensor) -> dict[str, float]:
    """Return seconds that a frame's entropy coding takes, by ``encode``, ``decode``."""
    clock = CodingClock(torch.device("cpu"))
    packets = list(clock.watch(codec.compress(clip, QP)))
    encoding, clock.entropy_seconds = clock.entropy_seconds, 0.0
    for _ in clock.watch(codec.decompress(packets, *clip.shape[-2:])):
        pass
    return {
        "encode": encoding / len(clip),
        "decode": clock.entropy_seconds / len(clip),
    }


def compare(
    ours: UI2CCodec, theirs: Theirs, size: tuple[int, int], repeats: int
) -> list[str]:
    """Return lines of a table for one size: encoding and decoding.

    Raises:
        ValueError: The two do not decode to the same first frame.
    """
    clip = made_frames(size)
    yuv = list(rgb_to_yuv(clip)[:, None])
    packets = list(ours.compress(clip, QP))
    streams = theirs.compress(yuv)
    shown = torch.stack(list(ours.decompress(packets, *size)))
    other = yuv_to_rgb(theirs.decompress(streams, size)).clamp(0, 1)
    apart = float((shown[0] - other[0]).abs().max())
    if not apart < SAME:
        raise ValueError(
            f"the first frames differ by {apart:g}, more than {SAME:g}: the checkout "
            "is not the DCVC-RT that this command knows"
        )
    works: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "encode": (
            lambda: list(ours.compress(clip, QP)),
            partial(theirs.compress, yuv),
        ),
        "decode": (
            lambda: list(ours.decompress(packets, *size)),
            partial(theirs.decompress, streams, size),
        ),
    }
    entropy = entropy_seconds(ours, clip)
    bpp = [
        8 * sum(map(len, parts)) / (FRAMES * size[0] * size[1])
        for parts in ([packet.payload for packet in packets], streams)
    ]
    lines = []
    for name, (own, other_work) in works.items():
        mine, its, ratio = alternating(own, other_work, repeats)
        mine, its = mine / FRAMES, its / FRAMES
        lines.append(
            f"{size[1]}x{size[0]} {name:6} | {1000 * its:8.1f} | {1000 * mine:8.1f} | "
            f"{ratio:5.2f} | {100 * entropy[name] / mine:9.1f} | "
            f"{bpp[1]:.2f} / {bpp[0]:.2f}"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return 0, or 2 after one line for what the user can mend."""
    options = _parser().parse_args(argv)
    if not options.plain_allocator:
        keep_freed_memory()
    try:
        _check_checkout(options.checkout)
        ours = untrained()
        theirs = Theirs(options.checkout.resolve(), ours)
        with torch.inference_mode():
            for threads in options.threads:
                torch.set_num_threads(threads)
                print(f"{current()}; CPU ms a frame of {FRAMES}, qp {QP}")
                print("work | DCVC-RT | UI2C | ratio | % entropy | bpp of both")
                for size in options.sizes:
                    for line in compare(ours, theirs, size, options.repeats):
                        print(line, flush=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lightning_modules.ui2c.against_dcvc_rt",
        description="Time UI2C's single-frame network beside DCVC-RT's own code.",
    )
    parser.add_argument("checkout", type=Path, help="folder DCVC-family/DCVC-RT")
    parser.add_argument(
        "--sizes",
        type=_size,
        nargs="+",
        default=[(256, 256), (480, 832)],
        metavar="WxH",
        help="of frames, multiples of 64 (default: 256x256 832x480)",
    )
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="default: 1 2"
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="timed runs of each (default: 5)"
    )
    parser.add_argument(
        "--plain_allocator",
        action="store_true",
        help="leave glibc as it is, for both",
    )
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or int(match[1]) % 16 or int(match[2]) % 16 or "0" in match.groups():
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size: give WxH, both multiples of 16, such as 832x480"
        )
    return int(match[2]), int(match[1])


if __name__ == "__main__":
    raise SystemExit(main())
