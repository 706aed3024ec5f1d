"""One job: code a sequence at a rate, decode it, and compare it with the source."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from experiments.coder import Coder, Settings
from experiments.parts import Job
from experiments.results import METRICS, Point, Result, SequenceResult
from experiments.version import versions

if TYPE_CHECKING:
    from datamodules.yuv import Codes, Colour, Planes


def measure(job: Job, coder: Coder, settings: Settings, output: Path) -> Result:
    """Do one job: code, decode, compare with the source.

    Raises:
        ValueError: The codec fails, or gives another number of frames.
    """
    from datamodules.sequences import read_codes, source_kind
    from datamodules.yuv import quantise
    from experiments.anchors.vmaf import Vmaf
    from experiments.measure import Meter, means

    sequence, colour = job.sequence, settings.colour

    def codes() -> Iterator["Codes"]:
        return read_codes(sequence, colour, settings.max_frames)

    meter = Meter(
        colour,
        sequence.height,
        sequence.width,
        lpips_net=settings.lpips_net,
        device=coder.metric_device,
    )
    vmaf = Vmaf(sequence.height, sequence.width) if settings.vmaf else None
    source = codes()
    gallery = Gallery(output, job, settings)
    count = 0

    def sink(planes: "Planes") -> None:
        nonlocal count
        frame = next(source, None)
        if frame is None:
            raise ValueError(f"more frames were decoded than the {count} of the source")
        meter.add(frame, planes)
        if vmaf:
            vmaf.add(frame, quantise(planes))
        gallery.add(count, frame, planes)
        count += 1

    # Beside the parts: removed with them should this process be killed.
    scratch = output.with_suffix(".parts")
    scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="coding-", dir=scratch) as folder:
        target = job.rate.target_bpp(sequence)
        rate = job.rate.value
        if target is not None:
            rate = coder.find_rate(sequence, codes, colour, target, Path(folder))
        cost = coder.code(sequence, codes, colour, rate, Path(folder), sink)
    if next(source, None) is not None or count != len(cost.frame_bits):
        raise ValueError(
            f"{count} frames were decoded and {len(cost.frame_bits)} coded, which is "
            "not the number of the source"
        )
    per_frame = meter.close()
    if vmaf:
        per_frame["vmaf"] = vmaf.close()
    pixels = sequence.width * sequence.height * count
    bits: float = 8 * cost.nbytes
    if settings.rate == "estimate":
        if cost.estimated_bits is None:
            raise ValueError(f"{coder.name} estimates no bits")
        bits = cost.estimated_bits
    estimated = cost.estimated_bits
    point = Point(
        rate=rate,
        bpp=bits / pixels,
        nbytes=None if settings.rate == "estimate" else cost.nbytes,
        estimated_bpp=None if estimated is None else estimated / pixels,
        kbps=bits / count * float(sequence.fps) / 1000,
        target_bpp=target,
        metrics=means(per_frame),
        per_frame={"bits": cost.frame_bits, **per_frame},
        seconds={name: total / count for name, total in cost.seconds.items()},
        peak_memory=cost.peak_memory,
        pictures=gallery.decoded,
    )
    shown = SequenceResult(
        sequence.set,
        sequence.name,
        sequence.width,
        sequence.height,
        sequence.fps,
        count,
        [point],
        source_kind(sequence),
        gallery.source,
    )
    definitions = {name: METRICS[name].definition for name in point.metrics}
    return Result(
        coder.name,
        coder.describe(),
        replace(settings.protocol(), definitions=definitions),
        {**versions(), **coder.environment(), "unavailable": meter.unavailable},
        [shown],
    )


class Gallery:
    """Keeps chosen frames as PNG, source and decoded.

    Attributes:
        source: Path of each kept frame of the source, relative to the result file.
        decoded: The same of the decoded frames.
    """

    def __init__(self, output: Path, job: Job, settings: Settings) -> None:
        self.source: dict[str, str] = {}
        self.decoded: dict[str, str] = {}
        self._root = output.parent
        self._colour = settings.colour
        self._wanted = settings.pictures
        stem = re.sub("[^A-Za-z0-9_.-]", "_", f"{job.sequence.set}.{job.sequence.name}")
        self._folder = output.with_suffix(".frames") / stem
        self._rate = f"{job.rate.unit}{job.rate.value:g}"

    def add(self, number: int, source: "Codes", planes: "Planes") -> None:
        """Keep a frame if it is one of the chosen."""
        if number not in self._wanted:
            return
        from datamodules.yuv import dequantise, quantise

        self._folder.mkdir(parents=True, exist_ok=True)
        for kept, name, codes in (
            (self.source, "source", source),
            (self.decoded, self._rate, quantise(planes)),
        ):
            path = self._folder / f"{number:05d}.{name}.png"
            _write_png(path, dequantise(codes), self._colour)
            kept[str(number)] = path.relative_to(self._root).as_posix()


def _write_png(path: Path, planes: "Planes", colour: "Colour") -> None:
    import cv2

    from datamodules.writing import whole_or_nothing
    from datamodules.yuv import planes_to_rgb

    rgb = planes_to_rgb(planes, colour).mul(255).round().byte().permute(1, 2, 0)
    done, png = cv2.imencode(".png", rgb.numpy()[..., ::-1])
    assert done, "OpenCV encodes every 8-bit picture"
    with whole_or_nothing(path) as temporary:
        temporary.write_bytes(png.tobytes())
