"""Encoders of still pictures that Pillow brings: JPEG, WebP, AVIF.

Every frame is a file of its own, which a viewer could show: all of its bytes count,
headers and tables too, for a decoder is told nothing else.

Encoders are given 8-bit RGB, and decoders give it: between RGB and the YCbCr that a
file holds, they convert themselves, as viewers expect of the format (BT.601, not the
suite's BT.709). So 4:2:0 sources pass through 8-bit RGB twice, at about 46 dB at best;
pictures that are RGB anyway are measured with ``--colour rgb``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image, features

from datamodules.yuv import (
    Codes,
    Colour,
    Planes,
    dequantise,
    planes_to_rgb,
    quantise,
    rgb_to_planes,
)
from experiments.anchor.base import Anchor
from experiments.evaluate.coder import Cost, Task
from lightning_modules.clock import CodingClock

INSTALL = "pip install --force-reinstall --no-deps 'pillow>=11.3'"
"""Where all three formats are from: the wheel of PyPI."""

FAILURES = (OSError, ValueError, RuntimeError)
"""What Pillow raises where a picture cannot be coded or decoded."""


@dataclass
class StillCoder(Anchor):
    """Codes each frame to a file, and decodes that file, within this process.

    Seconds are with the codec's own conversion of colours, which is a part of it.
    """

    def __post_init__(self) -> None:
        feature = self.preset.run["feature"]
        if not features.check(feature):
            raise ValueError(
                f"this Pillow ({PIL.__version__}) was built without "
                f"{self.preset.title}: use the wheel of PyPI, {INSTALL}"
            )

    def describe(self) -> dict[str, Any]:
        """Return the preset with all its options, and how a file holds colours."""
        return {
            **super().describe(),
            "options": {**self.preset.options, self.knob: "{rate}"},
            "colour": f"8-bit RGB in and out, {self.preset.run['held_as']} in the file",
            "padding": "the format's own",
        }

    def environment(self) -> dict[str, Any]:
        """Return the versions of Pillow and of the libraries that code."""
        libraries = self.preset.run["libraries"]
        found = {name: features.version(own) for name, own in libraries.items()}
        if encoder := self.preset.options.get("codec"):
            from PIL.AvifImagePlugin import get_codec_version

            found[encoder] = get_codec_version(encoder)
        return {"pillow": PIL.__version__, **found}

    def encode(self, task: Task) -> Cost:
        """Write a file for each frame, and count their bytes; see :class:`Coder`.

        Raises:
            ValueError: The encoder fails.
        """
        run = self.preset.run
        options = {**self.preset.options, self.knob: int(task.rate)}
        clock = CodingClock(torch.device("cpu"))
        cost = Cost()
        for number, codes in enumerate(task.codes()):
            picture = Image.fromarray(_pixels(codes, task.colour))
            data = BytesIO()
            try:
                with clock.running():
                    picture.save(data, run["format"], **options)
            except FAILURES as error:
                raise self._error(task, f"frame {number} is not coded: {error}") from (
                    error
                )
            self._path(task, number).write_bytes(data.getvalue())
            cost.frame_bits.append(8.0 * len(data.getvalue()))
            cost.nbytes += len(data.getvalue())
        cost.seconds["encode"] = clock.seconds
        return cost

    def decode(
        self, task: Task, cost: Cost, scales: int | None = None
    ) -> Iterator[Planes]:
        """Decode the files; see :class:`Coder`.

        Raises:
            ValueError: The decoder fails, or gives another size.
        """
        size = task.sequence.height, task.sequence.width
        clock = CodingClock(torch.device("cpu"))
        for number in range(len(cost.frame_bits)):
            data = BytesIO(self._path(task, number).read_bytes())
            try:
                with clock.running(), Image.open(data, formats=[self._format]) as file:
                    pixels = np.array(file.convert("RGB"))
            except FAILURES as error:
                raise self._error(
                    task, f"frame {number} is not decoded: {error}"
                ) from error
            if pixels.shape[:2] != size:
                raise self._error(
                    task,
                    f"frame {number} decodes to {pixels.shape[1]}x{pixels.shape[0]}",
                )
            rgb = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
            yield rgb_to_planes(rgb, task.colour)
        cost.seconds["decode"] = clock.seconds

    @property
    def _format(self) -> str:
        """Pillow's name of the format."""
        return str(self.preset.run["format"])

    def _path(self, task: Task, number: int) -> Path:
        return task.folder / f"{number:06d}{self.preset.run['suffix']}"

    def _error(self, task: Task, reason: str) -> ValueError:
        name = f"{self.preset.title} on {task.sequence.name}"
        return ValueError(f"{name} at {self.knob} {task.rate:g}: {reason}")


def _pixels(codes: Codes, colour: Colour) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a frame (H, W, 3) of 8-bit RGB."""
    r, g, b = planes_to_rgb(dequantise(codes), colour).unbind()
    return np.stack(quantise((r, g, b)), axis=-1)
