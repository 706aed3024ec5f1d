"""CompressAI's models: images coded frame by frame, and videos, to real bytes.

A file of coded frames is::

    varint  width
    varint  height
    then of each frame:
    1       number of strings: those of a frame without a reference, or more
    varint  length of each string
    any     the strings, as the model's entropy coder gives them

Shapes of latents follow from the size. All of it counts, some 10 bytes of a frame.
"""

import hashlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor

from datamodules.sequences.files import VideoSequence
from datamodules.yuv import Colour, Planes, dequantise, planes_to_rgb, rgb_to_planes
from experiments.anchor.base import Anchor
from experiments.anchor.settings import Preset
from experiments.anchor.zoo import Weights, find_weights, load_model
from experiments.bitstreams.coding_mode import (
    choose_device,
    coding_mode,
    frame_bytes,
    peak_memory,
)
from experiments.bitstreams.processes import decoding_process
from experiments.evaluate.coder import Cost, Task
from experiments.results.result import Result
from lightning_modules.bitstream import varint
from lightning_modules.clock import CodingClock, uncounted
from lightning_modules.frames import pad_to_multiple, padded_size
from lightning_modules.numerics import current
from lightning_modules.packets import check_finite


class FrameModel(Protocol):
    """How a model codes a frame, batch of one, sides multiples of :attr:`multiple`.

    Attributes:
        multiple: Of both sides of a frame.
        refers: Whether a frame may refer to the one before.
    """

    multiple: int
    refers: bool

    def encode(self, x: Tensor, reference: Tensor | None) -> tuple[list[bytes], Tensor]:
        """Return a frame's strings, and what the decoder makes of them."""

    def decode(
        self, strings: list[bytes], shape: tuple[int, int], reference: Tensor | None
    ) -> Tensor:
        """Return a frame (1, 3, H, W), of the shape of its coarsest latents."""


class ImageModel:
    """A model of images: no frame refers to another."""

    refers = False

    def __init__(self, network: Any) -> None:
        self.network = network
        self.multiple = network.downsampling_factor

    def encode(self, x: Tensor, reference: Tensor | None) -> tuple[list[bytes], Tensor]:
        """See :class:`FrameModel`."""
        coded = self.network.compress(x)
        strings = [each[0] for each in coded["strings"]]
        with uncounted():
            return strings, self.decode(strings, coded["shape"], None)

    def decode(
        self, strings: list[bytes], shape: tuple[int, int], reference: Tensor | None
    ) -> Tensor:
        """See :class:`FrameModel`."""
        packed = [[string] for string in strings]
        decoded: Tensor = self.network.decompress(packed, shape)["x_hat"]
        return decoded


class VideoModel:
    """Scale-space flow: a frame without a reference, or motion and a residual.

    Source: Agustsson et al., CVPR 2020, as CompressAI has it.
    """

    refers = True
    # 16 to the latents, 8 from there to the hyper latents.
    multiple = 128

    def __init__(self, network: Any) -> None:
        self.network = network

    def encode(self, x: Tensor, reference: Tensor | None) -> tuple[list[bytes], Tensor]:
        """See :class:`FrameModel`."""
        if reference is None:
            x_hat, coded = self.network.encode_keyframe(x)
            parts = [coded["strings"]]
        else:
            x_hat, coded = self.network.encode_inter(x, reference)
            parts = [coded["strings"][name] for name in ("motion", "residual")]
        return [string[0] for part in parts for string in part], x_hat

    def decode(
        self, strings: list[bytes], shape: tuple[int, int], reference: Tensor | None
    ) -> Tensor:
        """See :class:`FrameModel`."""
        packed = [[string] for string in strings]
        if reference is None:
            decoded: Tensor = self.network.decode_keyframe(packed, shape)
            return decoded
        names = ("motion", "residual")
        own = dict(zip(names, (packed[:2], packed[2:]), strict=True))
        decoded = self.network.decode_inter(reference, own, dict.fromkeys(names, shape))
        return decoded


VIDEO_STRINGS = 4
"""Of a frame that refers to another; one that does not has fewer."""


@dataclass
class NetworkCoder(Anchor):
    """Codes with a model of CompressAI; another process decodes its file.

    Attributes:
        weights: By rate.
        threads: Of torch, the same in the decoding process.
        metric_device: Where networks run, and frames are compared.
    """

    weights: Mapping[float, Weights]
    threads: int
    metric_device: str = "cpu"

    def describe(self) -> dict[str, Any]:
        """Return the model, what it is trained for, and how frames are given."""
        run = self.preset.run
        return {
            **super().describe(),
            "name": run["model"],
            "trained_for": run["metric"],
            "colour": "RGB",
            "padding": "right and bottom, repeated edge; CompressAI's own bench pads "
            "all sides, with black",
        }

    def environment(self) -> dict[str, Any]:
        """Return files of weights, device, threads, and CompressAI's version."""
        device = "cpu"
        if self.metric_device == "cuda":
            device = torch.cuda.get_device_name()
        return {
            "compressai": version("compressai"),
            "device": device,
            "threads": self.threads,
            "isa": current().isa,
            "weights": {repr(r): own.describe() for r, own in self.weights.items()},
        }

    def remarks(self) -> list[str]:
        """Return that it is slow, and which files are not those of the zoo."""
        found = [
            f"{own.file} is not the file that CompressAI publishes: its name has other "
            f"digits than its SHA-256, {own.sha256[:8]}..."
            for own in self.weights.values()
            if own.published is False
        ]
        if self.preset.run["serial"]:
            found.append(
                f"{self.preset.name} codes latents one position after another: "
                "8,160 of a 1920x1080 frame, encoder and decoder each"
            )
        return [*super().remarks(), *found]

    def check(
        self, sequences: Sequence[VideoSequence], max_frames: int | None, done: Result
    ) -> None:
        """Refuse weights that are not those of the points that there are.

        Raises:
            ValueError: A rate was measured with another file.
        """
        before = done.environment.get("weights", {})
        for rate, own in self.weights.items():
            known = before.get(repr(rate), {}).get("sha256", own.sha256)
            if known != own.sha256:
                raise ValueError(
                    f"rate {rate:g} was measured with weights {known[:8]}..., and "
                    f"{own.file} has {own.sha256[:8]}...: choose another --output, or "
                    "--overwrite to discard it"
                )

    def encode(self, task: Task) -> Cost:
        """Write the file, and hash what its decoder should give.

        Raises:
            ValueError: The weights cannot be loaded, or give no picture.
        """
        model = _model(self.preset, self.weights[task.rate], self.metric_device)
        device = torch.device(self.metric_device)
        peak_memory(device)
        clock = CodingClock(device)
        sequence = task.sequence
        size = sequence.height, sequence.width
        digest = hashlib.sha256()
        bits: list[float] = []
        reference: Tensor | None = None
        with self._path(task).open("wb") as file:
            file.write(varint(sequence.width) + varint(sequence.height))
            for number, codes in enumerate(task.codes()):
                frame = planes_to_rgb(dequantise(codes), task.colour).to(device)
                x = pad_to_multiple(frame.unsqueeze(0), model.multiple)
                starts = (
                    number == 0
                    if self.intra_period == -1
                    else (number % self.intra_period == 0)
                )
                if starts or not model.refers:
                    reference = None
                with clock.running():
                    strings, reference = model.encode(x, reference)
                check_finite(reference, number, task.rate)
                packet = bytes([len(strings)])
                packet += b"".join(varint(len(string)) for string in strings)
                packet += b"".join(strings)
                file.write(packet)
                bits.append(8.0 * len(packet))
                digest.update(frame_bytes(_shown(reference, *size)))
        return Cost(
            self._path(task).stat().st_size,
            bits,
            seconds={"encode": clock.seconds},
            peak_memory={"encode": peak_memory(device)},
            digest=digest.hexdigest(),
        )

    def decode(
        self, task: Task, cost: Cost, scales: int | None = None
    ) -> Iterator[Planes]:
        """Have another process decode, and give its frames.

        Raises:
            ValueError: They are not the frames that the encoder expects.
        """
        process = decoding_process(self.threads, self.metric_device)
        digest, seconds, memory = yield from process.generate(
            decode_file,
            self._path(task),
            self.preset,
            self.weights[task.rate],
            self.metric_device,
            task.colour,
        )
        if digest != cost.digest:
            raise ValueError(
                f"another process decoded other frames than the encoder expects "
                f"(SHA-256 {digest}, not {cost.digest}): nothing was measured"
            )
        cost.seconds["decode"] = seconds
        cost.peak_memory["decode"] = memory

    def _path(self, task: Task) -> Path:
        return task.folder / f"stream{self.preset.run['suffix']}"


def make_network_coder(
    name: str,
    preset: Preset,
    knob: str,
    intra_period: int,
    *,
    rates: Mapping[float, str | None],
    threads: int,
    device: str | None = None,
) -> NetworkCoder:
    """Return the coder of a model.

    Raises:
        ValueError: Weights are not there, or the device is not.
    """
    weights = find_weights(preset, knob, rates)
    kind = choose_device(device or "auto").type
    return NetworkCoder(name, preset, knob, intra_period, weights, threads, kind)


def decode_file(
    path: Path, preset: Preset, weights: Weights, device: str, colour: Colour
) -> Generator[Planes, None, tuple[str, float, int]]:
    """Give the frames of a file.

    Returns:
        The SHA-256 of the frames, seconds, and peak memory.
    """
    target = torch.device(device)
    with coding_mode(target), path.open("rb") as file:
        model = _model(preset, weights, device)
        peak_memory(target)
        clock = CodingClock(target)
        digest = hashlib.sha256()
        width, height = _read_varint(file), _read_varint(file)
        sides = padded_size(height, width, model.multiple)
        shape = sides[0] // model.multiple, sides[1] // model.multiple
        reference: Tensor | None = None
        while count := file.read(1):
            lengths = [_read_varint(file) for _ in range(count[0])]
            strings = [_read(file, length) for length in lengths]
            if not model.refers or len(strings) < VIDEO_STRINGS:
                reference = None
            with clock.running():
                reference = model.decode(strings, shape, reference)
            frame = _shown(reference, height, width)
            digest.update(frame_bytes(frame))
            yield rgb_to_planes(frame.cpu(), colour)
        return digest.hexdigest(), clock.seconds, peak_memory(target)


def _model(preset: Preset, weights: Weights, device: str) -> FrameModel:
    network = load_model(preset.run["model"], weights, device)
    is_video = hasattr(network, "encode_inter")
    return VideoModel(network) if is_video else ImageModel(network)


def _shown(x_hat: Tensor, height: int, width: int) -> Tensor:
    """Return a frame as it is shown: (3, H, W) in [0, 1], without padding."""
    return x_hat[0, :, :height, :width].clamp(0, 1)


def _read_varint(file: BinaryIO) -> int:
    number = shift = 0
    while True:
        (byte,) = _read(file, 1)
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return number


def _read(file: BinaryIO, length: int) -> bytes:
    """Return so many bytes: CompressAI's decoder would read past the end of fewer."""
    data = file.read(length)
    if len(data) < length:
        raise ValueError(f"{file.name} ends within a frame: it was cut")
    return data
