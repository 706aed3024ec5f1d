"""VMAF of 4:2:0 frames, by the FFmpeg that imageio-ffmpeg brings."""

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from datamodules.ffmpeg import find_ffmpeg
from datamodules.writing import write_picture

if TYPE_CHECKING:
    from datamodules.yuv import Codes


class Vmaf:
    """Takes frames one by one and has libvmaf's default model judge them at the end.

    Frames wait on disk: twice 1.5 bytes per pixel.

    Args:
        height: Luma rows.
        width: Luma columns.

    Raises:
        ValueError: There is no FFmpeg with libvmaf.
    """

    def __init__(self, height: int, width: int) -> None:
        self._program = find_ffmpeg()
        self._size = f"{width}x{height}"
        self._folder = TemporaryDirectory(prefix="vmaf-")
        folder = Path(self._folder.name)
        self._decoded = (folder / "decoded.yuv").open("wb")
        self._source = (folder / "source.yuv").open("wb")

    def add(self, source: "Codes", decoded: "Codes") -> None:
        """Take the next frame, Y, U and V as 8-bit integers, of source and decoder."""
        write_picture(self._source, source)
        write_picture(self._decoded, decoded)

    def close(self) -> list[float]:
        """Return the VMAF of each frame, 0 to 100.

        Raises:
            ValueError: libvmaf fails.
        """
        self._source.close()
        self._decoded.close()
        raw = ["-f", "rawvideo", "-pixel_format", "yuv420p", "-video_size", self._size]
        command = [self._program, "-hide_banner", "-v", "error"]
        command += [*raw, "-i", "decoded.yuv", *raw, "-i", "source.yuv"]
        command += ["-lavfi", "libvmaf=log_fmt=json:log_path=log.json:n_threads=1"]
        command += ["-f", "null", "-"]
        with self._folder as name:
            result = subprocess.run(
                command,
                cwd=name,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
            if result.returncode:
                reason = (result.stderr.strip() or "no message").splitlines()[0]
                raise ValueError(f"libvmaf failed: {reason}")
            log = json.loads((Path(name) / "log.json").read_text())
        return [float(frame["metrics"]["vmaf"]) for frame in log["frames"]]
