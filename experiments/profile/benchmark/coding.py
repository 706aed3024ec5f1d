"""Encoding and decoding: frames per second with entropy coding, and without."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from experiments.profile.benchmark.codecs import (
    LackingError,
    base_configs,
    build,
    described,
    layers,
    left_out,
    named,
    size_of,
)
from experiments.profile.benchmark.figures import Figure, Settings
from experiments.profile.benchmark.part import reason
from lightning_modules.numerics import PORTABLE, pin

if TYPE_CHECKING:
    from lightning_modules.clock import CodingClock
    from lightning_modules.codec import VideoCodec

DTYPES = ("float32", "float16")

FRAMES = 8
"""Of a clip behind its first unit; two units at least."""


def measure(settings: Settings) -> Iterator[Figure]:
    """Time every codec with random weights, in each dtype."""
    # As encode and decode run.
    pin(PORTABLE)
    import torch

    for name in base_configs():
        try:
            config = layers(name, settings.form)
        except LackingError as error:
            yield left_out(name, error)
            continue
        codec = build(config)
        codec = codec.to(settings.device).eval().requires_grad_(False)
        for dtype in DTYPES:
            codec = codec.to(getattr(torch, dtype))
            yield from _of_dtype(named(name, config), codec, dtype, settings)
        del codec


def _of_dtype(
    name: str, codec: "VideoCodec", dtype: str, settings: Settings
) -> Iterator[Figure]:
    import torch

    from experiments.bitstreams.coding_mode import coding_mode, peak_memory

    height, width = size_of(settings)
    shown = f"{name}, {dtype}"
    device = torch.device(settings.device)
    try:
        with coding_mode(device):
            peak_memory(device)
            found = _pass(codec, height, width)
            memory = peak_memory(device)
    except (ValueError, RuntimeError) as error:
        # What a GPU can and this device cannot, or memory: the next codec may.
        torch.cuda.empty_cache()
        yield Figure(f"coding, {shown}", None, "frames/s", error=reason(error))
        return
    note = described(codec, height, width)
    for verb, (frames, seconds, entropy) in found.items():
        own = f"{frames} frames of {note}"
        yield Figure(f"{verb}, {shown}", frames / seconds, "frames/s", note=own)
        networks = max(seconds - entropy, 1e-9)
        yield Figure(
            f"{verb} without entropy coding, {shown}", frames / networks, "frames/s"
        )
    yield Figure(f"peak memory of coding, {shown}", memory / 2**30, "GiB")


def _pass(
    codec: "VideoCodec", height: int, width: int
) -> dict[str, tuple[int, float, float]]:
    """Code a clip and decode it.

    Returns:
        Frames that were timed, seconds, and those of them for entropy coding, of
        ``encode`` and ``decode``. The first units are not timed: they allocate, and
        refer to nothing.
    """
    from experiments.profile.timing import moving_frames
    from lightning_modules.clock import CodingClock

    device = codec.devices[0]
    n = codec.frames_per_unit
    units = 1 + max(1, FRAMES // n)
    skipped = n * (2 if units > 3 else 1)
    source = moving_frames(units * n, height, width, device)
    rate = codec.rate_knob.points[len(codec.rate_knob.points) // 2]
    codec.tables  # noqa: B018 (built once per model, not per clip)
    encoding, packets = _Laps(CodingClock(device), skipped), []
    clock = encoding.clock
    for packet in clock.watch(codec.compress(clock.pause(iter(source)), rate)):
        packets.append(packet)
        encoding.add(packet.frames)
    decoding = _Laps(CodingClock(device), skipped)
    clock = decoding.clock
    frames = codec.decompress(clock.pause(iter(packets)), height, width)
    for _ in clock.watch(frames):
        decoding.add(1)
    return {"encode": encoding.timed(), "decode": decoding.timed()}


class _Laps:
    """Reads a clock after each frame, or each unit, that comes.

    Args:
        clock: Runs while the codec works.
        skipped: Frames that are not timed.
    """

    def __init__(self, clock: "CodingClock", skipped: int) -> None:
        self.clock = clock
        self._skipped = skipped
        self._frames = 0
        self._begun: tuple[int, float, float] | None = None

    def add(self, frames: int) -> None:
        """Count frames that are done; 0 for a packet that ends no unit."""
        self._frames += frames
        # Units that share a frame have another number of their own.
        if self._begun is None and self._frames >= self._skipped:
            self._begun = self._now()

    def timed(self) -> tuple[int, float, float]:
        """Return frames, seconds, and seconds of entropy coding since the skipped."""
        begun = self._begun or (0, 0.0, 0.0)
        frames, seconds, entropy = (
            now - then for now, then in zip(self._now(), begun, strict=True)
        )
        return int(frames), seconds, entropy

    def _now(self) -> tuple[int, float, float]:
        return self._frames, self.clock.seconds, self.clock.entropy_seconds
