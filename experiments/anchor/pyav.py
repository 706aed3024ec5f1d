"""Encoders that come with PyAV: x264, x265, SVT-AV1."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import numpy.typing as npt
from av import logging
from av.bitstream import BitStreamFilterContext
from av.packet import Packet
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream

from datamodules.yuv import Codes
from experiments.anchor.base import AnchorCoder, Coded, EncoderTask
from experiments.anchor.pictures import PIXEL_FORMATS, PixelFormat
from lightning_modules.clock import CodingClock

VideoPacket: TypeAlias = "Packet[VideoStream]"


@dataclass
class PyAVCoder(AnchorCoder):
    """Encodes and decodes within this process; the decoder only sees the file."""

    def __post_init__(self) -> None:
        encoder = self.preset.run["encoder"]
        try:
            known = av.Codec(encoder, "w").video_formats or []
        except av.codec.codec.UnknownCodecError:
            raise ValueError(
                f"this PyAV ({av.__version__}) was built without {encoder}: use the "
                "wheel of PyPI, pip install --force-reinstall av"
            ) from None
        missing = set(self.preset.pixel_formats.values()) - {f.name for f in known}
        if missing:
            raise ValueError(
                f"{encoder} of this PyAV ({av.__version__}) has no {sorted(missing)}"
            )

    def environment(self) -> dict[str, Any]:
        """Return the version of PyAV, and of its libavcodec."""
        libavcodec = ".".join(map(str, av.library_versions["libavcodec"]))
        return {"av": av.__version__, "libavcodec": libavcodec}

    def write(
        self, task: EncoderTask, pictures: Iterable[Codes], clock: CodingClock
    ) -> Coded:
        """Write an elementary stream; see :class:`AnchorCoder`."""
        # SVT-AV1 greets on stderr otherwise.
        os.environ.setdefault("SVT_LOG", "1")
        run = self.preset.run
        bits: dict[int, float] = {}
        intra_frames: list[int] = []

        def put(packets: Iterable[VideoPacket]) -> None:
            for packet in map(strip, packets):
                assert packet.pts is not None, "encoders pass the stamps of frames on"
                bits[packet.pts] = bits.get(packet.pts, 0) + 8 * packet.size
                if packet.is_keyframe:
                    intra_frames.append(packet.pts)
                container.mux(packet)

        try:
            with av.open(str(task.path), "w", format=run["container"]) as container:
                stream = self._open_encoder(container, task)
                strip = _stripper(run.get("filter"), stream)
                for number, samples in enumerate(pictures):
                    picture = _to_frame(samples, task)
                    picture.pts = number
                    with clock.running():
                        put(stream.encode(picture))
                with clock.running():
                    put(stream.encode())
        except av.FFmpegError as error:
            raise task.error(f"the encoder failed: {error}") from error
        if sorted(bits) != list(range(len(bits))):
            raise task.error(f"the encoder gave packets of frames {sorted(bits)}")
        return Coded([bits[n] for n in range(len(bits))], sorted(intra_frames))

    def _open_encoder(
        self, container: av.container.OutputContainer, task: EncoderTask
    ) -> VideoStream:
        encoder = self.preset.run["encoder"]
        stream = container.add_stream(
            encoder, rate=task.sequence.fps, options=task.options
        )
        stream.width, stream.height = task.width, task.height
        stream.pix_fmt = task.pixel_format.name
        context = stream.codec_context
        context.thread_count = 1
        context.time_base = 1 / task.sequence.fps
        context.colorspace = Colorspace.ITU709
        context.color_range = ColorRange.JPEG
        context.color_primaries = ColorPrimaries.BT709
        context.color_trc = ColorTrc.BT709
        # Encoders only warn of parameters that they do not know, FFmpeg not even that.
        with _complaints() as complaints, _same_priority():
            context.open()
        unused = [f"{key}={value}" for key, value in context.options.items()]
        if complaints or unused:
            reasons = "; ".join([*complaints, *unused])
            raise task.error(f"{encoder} of this PyAV does not take {reasons}")
        return stream

    def read(self, task: EncoderTask) -> Iterator[tuple[Codes, PixelFormat]]:
        """Decode the file with a decoder of its own; see :class:`AnchorCoder`."""
        run = self.preset.run
        try:
            with av.open(str(task.path), format=run["container"]) as container:
                stream = container.streams.video[0]
                stream.codec_context.thread_count = 1
                for frame in container.decode(stream):
                    if frame.is_corrupt:
                        raise task.error("the decoder found a damaged frame")
                    # Full range has a name of its own for 8-bit pictures.
                    name = frame.format.name.replace("yuvj", "yuv")
                    if name != task.pixel_format.name:
                        raise task.error(f"decodes to {name}")
                    pixel_format = PIXEL_FORMATS[name]
                    y, u, v = (
                        _plane(plane, pixel_format).copy() for plane in frame.planes
                    )
                    yield (y, u, v), pixel_format
        except av.FFmpegError as error:
            raise task.error(f"the decoder failed: {error}") from error


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collect FFmpeg's warnings and errors of a block."""
    before = logging.get_level()
    complaints: list[str] = []
    logging.set_level(logging.WARNING)
    try:
        with logging.Capture() as captured:
            yield complaints
        complaints += [" ".join(text.split()) for _, _, text in captured]
    finally:
        logging.set_level(before)


@contextmanager
def _same_priority() -> Iterator[None]:
    """Give all threads the priority that this process had before the block.

    For root, SVT-AV1 raises the whole process to the highest real-time priority, for
    good: other programs would hardly run beside it, and those that it starts inherit
    the priority (VVenC then loses frames if there is one core only).
    """
    threads = Path("/proc/self/task")
    if not threads.is_dir():
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in threads.iterdir():
            # It may have ended by now.
            with suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread.name), policy, parameters)


def _stripper(
    name: str | None, stream: VideoStream
) -> Callable[[VideoPacket], VideoPacket]:
    """Return what takes bytes out of a packet that no decoder needs."""
    if name is None:
        return lambda packet: packet
    context = BitStreamFilterContext(name, stream)

    def strip(packet: VideoPacket) -> VideoPacket:
        (stripped,) = context.filter(packet)
        return stripped

    return strip


def _to_frame(samples: Codes, task: EncoderTask) -> av.VideoFrame:
    """Build a picture from arrays: it has no picture type that encoders would obey."""
    frame = av.VideoFrame(task.width, task.height, task.pixel_format.name)
    frame.time_base = 1 / task.sequence.fps
    frame.colorspace = Colorspace.ITU709
    frame.color_range = ColorRange.JPEG
    for plane, values in zip(frame.planes, samples, strict=True):
        _plane(plane, task.pixel_format)[:] = values
    return frame


def _plane(
    plane: av.video.plane.VideoPlane, pixel_format: PixelFormat
) -> npt.NDArray[Any]:
    """Return a plane's samples as a view, without the ends of its lines."""
    stored = np.frombuffer(plane, dtype=pixel_format.sample)
    line = plane.line_size // pixel_format.sample.itemsize
    return stored.reshape(-1, line)[: plane.height, : plane.width]
