"""Reference encoders that the user has built: HM and VTM."""

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.writing import write_picture
from datamodules.yuv import Codes
from experiments.anchor.base import AnchorCoder, Coded, EncoderTask
from experiments.anchor.pictures import PIXEL_FORMATS, PixelFormat, read_picture
from lightning_modules.clock import CodingClock


@dataclass
class ReferenceCoder(AnchorCoder):
    """Runs an encoder program on a raw file with the command line of its settings.

    Attributes:
        binary: The encoder.
        decoder: The decoder; without it the encoder's own reconstruction is compared,
            and the description says so.
        config: The encoder's configuration file.

    Raises:
        ValueError: A program cannot be run.
    """

    binary: Path
    decoder: Path | None
    config: Path

    def __post_init__(self) -> None:
        self.binary = _program(self.binary)
        self.decoder = self.decoder and _program(self.decoder)
        self.config = self.config.absolute()

    def describe(self) -> dict[str, Any]:
        """Return the preset, the command line, and whose frames are compared."""
        run = self.preset.run
        decoded = "decoder" if self.decoder else "the encoder's own reconstruction"
        return {
            **super().describe(),
            "config": self.config.name,
            "config_sha256": hashlib.sha256(self.config.read_bytes()).hexdigest(),
            "version": self._version(),
            "paper_versions": {**run["paper_versions"]},
            "command": [*run["encode"]],
            "command_colour": run["encode_colour"],
            "measured": decoded,
            "frame_bits": "of the encoder's log, or even where it does not say",
        }

    def environment(self) -> dict[str, Any]:
        """Return the encoder's path and checksum."""
        digest = hashlib.sha256(self.binary.read_bytes()).hexdigest()
        return {"binary": str(self.binary), "binary_sha256": digest}

    def remarks(self) -> list[str]:
        """Return also that no paper used this version, if none did."""
        papers, version = self.preset.run["paper_versions"], self._version()
        if version in papers:
            return super().remarks()
        used = "; ".join(f"{number}: {who}" for number, who in papers.items())
        return [
            *super().remarks(),
            f"the version of {self.binary.name} is {version}, papers used {used}",
        ]

    def _version(self) -> str:
        """Return the version in the encoder's greeting."""
        pattern = self.preset.run["version_line"]
        found = re.search(pattern, _run([str(self.binary)], check=False))
        return found["version"] if found else "unknown"

    def write(
        self, task: EncoderTask, pictures: Iterable[Codes], clock: CodingClock
    ) -> Coded:
        """Write the source as a raw file and run the encoder on it."""
        source = task.path.with_name("source.yuv")
        frames = 0
        with source.open("wb") as file:
            for samples in pictures:
                write_picture(file, samples)
                frames += 1
        run = self.preset.run
        arguments = [*run["encode"], *run["encode_colour"][task.colour]]
        with clock.running():
            log = self._call(self.binary, arguments, task, frames=frames, input=source)
        source.unlink()
        if not task.path.is_file() or not task.path.stat().st_size:
            raise task.error("the encoder wrote no bitstream")
        lines = list(re.finditer(run["frame_line"], log))
        if len(lines) != frames:
            even = 8 * task.path.stat().st_size / max(1, frames)
            return Coded([even] * frames, None)
        intra = [n for n, line in enumerate(lines) if line["type"].upper() == "I"]
        return Coded([float(line["bits"]) for line in lines], intra)

    def read(self, task: EncoderTask) -> Iterator[tuple[Codes, PixelFormat]]:
        """Run the decoder, or take the encoder's reconstruction."""
        output = self._reconstruction(task)
        if self.decoder:
            output.unlink(missing_ok=True)
            self._call(self.decoder, self.preset.run["decode"], task, output=output)
        if not output.is_file():
            raise task.error(f"no frames were written to {output.name}")
        held_as = self._output_format(task)
        with output.open("rb") as file:
            while samples := read_picture(file, held_as, task.height, task.width):
                yield samples, held_as

    def _output_format(self, task: EncoderTask) -> PixelFormat:
        return PIXEL_FORMATS[self.preset.run["output_formats"][task.colour]]

    def _reconstruction(self, task: EncoderTask) -> Path:
        return task.path.with_name("decoded.yuv")

    def _call(
        self, program: Path, template: list[str], task: EncoderTask, **more: Any
    ) -> str:
        """Return the output of a program with a filled template, or raise its end."""
        depth = task.pixel_format.depth
        values = self.preset.values(self.knob, task.rate, self.intra_period, depth)
        filled = [
            text.format(
                **values,
                config=self.config,
                width=task.width,
                height=task.height,
                # They take whole numbers; no bit depends on it.
                fps=max(1, round(task.sequence.fps)),
                stream=task.path,
                reconstruction=self._reconstruction(task),
                output_depth=self._output_format(task).depth,
                **more,
            )
            for text in template
        ]
        try:
            return _run([str(program), *filled])
        except ValueError as error:
            raise task.error(error) from error


def _program(path: Path) -> Path:
    found = shutil.which(path) or shutil.which(path.absolute())
    if found is None:
        raise ValueError(f"{path} is no program that can be run")
    return Path(found).absolute()


def _run(command: list[str], *, check: bool = True) -> str:
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if check and result.returncode:
        words = [line.strip() for line in result.stdout.splitlines() if line.strip()]
        last = words[-1] if words else "it printed nothing"
        raise ValueError(f"{command[0]} ended with code {result.returncode}: {last}")
    return result.stdout
