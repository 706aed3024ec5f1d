"""Encoders of the FFmpeg program that imageio-ffmpeg brings: VVenC."""

import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from datamodules.ffmpeg import INSTALL, find_ffmpeg
from datamodules.writing import write_picture
from datamodules.yuv import Codes
from experiments.anchor.base import AnchorCoder, Coded, EncoderTask
from experiments.anchor.pictures import PixelFormat, read_picture
from lightning_modules.clock import CodingClock

COLOUR_TAGS = (
    "-color_range pc -colorspace bt709 -color_primaries bt709 -color_trc bt709"
).split()


@dataclass
class FFmpegCoder(AnchorCoder):
    """Encodes and decodes in two FFmpeg processes, frames through a pipe.

    Seconds are those that the program lets us wait, so start and pipe are in them.
    """

    def __post_init__(self) -> None:
        encoder = self.preset.run["encoder"]
        listed = _output(["-hide_banner", "-encoders"])
        if encoder not in listed.split():
            raise ValueError(f"{find_ffmpeg()} has no {encoder}: {INSTALL}")

    def environment(self) -> dict[str, Any]:
        """Return the program's version."""
        return {"ffmpeg": _output(["-version"]).split()[2]}

    def write(
        self, task: EncoderTask, pictures: Iterable[Codes], clock: CodingClock
    ) -> Coded:
        """Write an elementary stream; see :class:`AnchorCoder`."""
        bits: list[float] = []
        intra_frames: list[int] = []
        task.path.write_bytes(b"")
        for part in self._streams(pictures):
            part_bits, part_intra = self._encode_stream(task, part, clock)
            intra_frames += [len(bits) + number for number in part_intra]
            bits += part_bits
        return Coded(bits, intra_frames)

    def _streams(self, pictures: Iterable[Codes]) -> Iterator[Iterator[Codes]]:
        """Give the pictures of each stream: all, or those of each intra period."""
        source = iter(pictures)
        length = None
        if self.preset.restarts and self.intra_period != -1:
            length = self.intra_period
        for first in source:
            rest = None if length is None else length - 1
            yield chain([first], islice(source, rest))

    def _encode_stream(
        self, task: EncoderTask, pictures: Iterable[Codes], clock: CodingClock
    ) -> tuple[list[float], list[int]]:
        """Append one stream to the file; return its frames' bits and intra frames."""
        part = task.path.with_name("part" + task.path.suffix)
        packets = task.path.with_name("packets.txt")
        command = [find_ffmpeg(), "-hide_banner", "-v", "error", "-y"]
        command += ["-f", "rawvideo", "-pixel_format", task.pixel_format.name]
        command += ["-video_size", f"{task.width}x{task.height}"]
        command += ["-framerate", str(task.sequence.fps), *COLOUR_TAGS, "-i", "pipe:0"]
        command += ["-fps_mode", "passthrough", "-c:v", self.preset.run["encoder"]]
        for key, value in task.options.items():
            command += [f"-{key}", value]
        # Names without folders: whatever stands in a path needs no quoting.
        container = self.preset.run["container"]
        outputs = f"[f={container}]{part.name}|[f=framecrc]{packets.name}"
        command += ["-map", "0:v", "-f", "tee", outputs]
        with TemporaryFile() as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=task.path.parent,
            )
            assert process.stdin, "it was asked for"
            try:
                for samples in pictures:
                    with clock.running():
                        write_picture(process.stdin, samples)
                with clock.running():
                    process.stdin.close()
                    process.wait()
            except BrokenPipeError:
                process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise
            if process.returncode:
                raise task.error(f"the encoder failed: {_last_words(log)}")
        with task.path.open("ab") as whole:
            whole.write(part.read_bytes())
        found = _read_packets(packets)
        part.unlink()
        packets.unlink()
        stamps = sorted(found)
        if stamps != list(range(len(found))):
            raise task.error(f"the encoder gave packets of frames {stamps}")
        bits = [found[n][0] for n in stamps]
        return bits, [n for n in stamps if found[n][1]]

    def read(self, task: EncoderTask) -> Iterator[tuple[Codes, PixelFormat]]:
        """Decode the file in another process; see :class:`AnchorCoder`."""
        command = [find_ffmpeg(), "-hide_banner", "-v", "error", "-threads", "1"]
        command += ["-f", self.preset.run["container"], "-i", str(task.path.absolute())]
        command += ["-fps_mode", "passthrough", "-f", "rawvideo"]
        command += ["-pix_fmt", task.pixel_format.name, "pipe:1"]
        with TemporaryFile() as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
            assert process.stdout, "it was asked for"
            shape = (task.pixel_format, task.height, task.width)
            try:
                while samples := read_picture(process.stdout, *shape):
                    yield samples, task.pixel_format
                process.wait()
            finally:
                process.kill()
                process.wait()
                process.stdout.close()
            words = _last_words(log)
            if process.returncode or words:
                raise task.error(f"the decoder failed: {words}")


def _output(arguments: list[str]) -> str:
    command = [find_ffmpeg(), *arguments]
    result = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if result.returncode:
        raise ValueError(f"{' '.join(command)} failed: {result.stderr.strip()}")
    return result.stdout


def _last_words(log: IO[bytes]) -> str:
    """Return the first line of a log, which says what went wrong; the rest follows."""
    log.seek(0)
    lines = log.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in lines if line.strip()), "")


def _read_packets(path: Path) -> dict[int, tuple[float, bool]]:
    """Return bits and whether it is a key frame, by number of the frame.

    FFmpeg's framecrc says of each packet: stream, dts, pts, duration, bytes, checksum,
    and ``F=0x0`` (or ``F``) where the flags are not those of a key frame.
    """
    packets = {}
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            fields = [field.strip() for field in line.split(",")]
            is_key = not any(field.startswith("F") for field in fields[6:])
            packets[int(fields[2])] = (8.0 * int(fields[4]), is_key)
    return packets
