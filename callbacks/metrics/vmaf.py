"""VMAF of 4:2:0 frames, by the FFmpeg that imageio-ffmpeg brings."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import torch

from callbacks.metrics.gauges import Frame, FramePair, Gauge
from datamodules.ffmpeg import find_ffmpeg
from datamodules.writing import write_picture


class Vmaf(Gauge):
    """Takes frames one by one and has libvmaf's default model judge them at the end.

    Frames wait on disk: twice 1.5 bytes per pixel.

    Raises:
        ValueError: There is no FFmpeg with libvmaf.
    """

    def __init__(self, names: Sequence[str], device: str | torch.device) -> None:
        super().__init__(names, device)
        self._program = find_ffmpeg()
        self._size = ""
        self._folder = TemporaryDirectory(prefix="vmaf-")
        folder = Path(self._folder.name)
        self._decoded = (folder / "decoded.yuv").open("wb")
        self._source = (folder / "source.yuv").open("wb")

    def add(self, pair: FramePair) -> dict[str, float]:
        """Take the next frame, of 4:2:0."""
        height, width = pair.source.yuv[0].shape
        self._size = f"{width}x{height}"
        _write(self._source, pair.source)
        _write(self._decoded, pair.decoded)
        return {}

    def close(self) -> dict[str, list[float]]:
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
        return {"vmaf": [float(frame["metrics"]["vmaf"]) for frame in log["frames"]]}


def _write(file: BinaryIO, frame: Frame) -> None:
    y, u, v = (plane.byte().numpy() for plane in frame.yuv)
    write_picture(file, (y, u, v))
