"""Export a trained codec: ``python -m experiments.fit.export RUN OUT.safetensors``."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datamodules.whole_files import whole_or_nothing
from experiments.cli.checkpoints import checkpoint_option
from experiments.cli.command import run_command
from experiments.cli.options import option, parse
from lightning_modules import coding_options
from lightning_modules.exported import round_weights, write_exported
from lightning_modules.shipped import SUFFIX

EPILOG = """\
examples:
  python -m experiments.fit.export runs/ui2c ui2c.safetensors
  python -m experiments.fit.export runs/ui2c/pairs_3/best.ckpt small.safetensors \\
      --dtype float16 --data "Vimeo-90k septuplets" --licence "see its page"
  python -m experiments.fit.export runs/ui2c ui2c.safetensors --refresh 64

OUT is taken wherever a .ckpt file is: --checkpoint, --init_from, load_codec. Of a run
with a config.yaml, that is written beside it as OUT.yaml, without this machine's paths.
float16 halves the file; the codec is then that of the rounded weights, and its streams
are not those of the run. In lightning_modules/weights, both files ship with the suite,
and OUT's name without suffix is a checkpoint.
"""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a trained codec alone, weights and integer tables, into a small file.

    Attributes:
        checkpoint: Trained codec: a file, or the folder of a stage or a run, whose
            newest is taken. Averaged weights count where it has them.
        output: File to write, called .safetensors; what is there is not replaced.
        dtype: What parameters are rounded to.
        data: What it was trained on, for those who choose a model.
        licence: Of that data.
        coding: Of the codec: how it codes with this file, unless told otherwise.

    Raises:
        ValueError: The output is called otherwise.
    """

    checkpoint: Path = option(metavar="RUN", positional=True, read=checkpoint_option)
    output: Path = option(metavar="OUT", positional=True)
    dtype: Literal["float32", "float16"] = "float32"
    data: str = option("", metavar="TEXT")
    licence: str = option("", metavar="TEXT")
    coding: dict[str, Any] = option(also=coding_options)

    def __post_init__(self) -> None:
        if self.output.suffix != SUFFIX:
            raise ValueError(
                f"OUT is {self.output}: it must be called {SUFFIX}, for example "
                f"{self.output.with_suffix(SUFFIX)}"
            )

    @property
    def config(self) -> Path:
        """Where the run's configuration is written to."""
        return self.output.with_suffix(".yaml")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see :func:`run_command`."""
    return run_command(lambda: export(parse(ExportOptions, "fit.export", argv, EPILOG)))


def export(options: ExportOptions) -> None:
    """Write what the options say.

    Raises:
        ValueError: The checkpoint cannot be used, or there is such a file already.
    """
    for path in (options.output, options.config):
        if path.exists():
            raise ValueError(f"{path} exists: remove it, or choose another OUT")

    import torch

    from experiments.fit.export.portable import portable_config
    from lightning_modules import load_codec

    codec = load_codec(options.checkpoint)
    codec.configure(**options.coding)
    dtype = getattr(torch, options.dtype)
    round_weights(codec, dtype)
    config = portable_config(options.checkpoint, options.data, options.licence)
    with ExitStack() as stack:
        temporary = stack.enter_context(whole_or_nothing(options.output))
        card = write_exported(
            temporary, codec, dtype, data=options.data, licence=options.licence
        )
        if load_codec(temporary).fingerprint() != codec.fingerprint():
            raise ValueError(
                f"{codec.shown_name} is not the same after it was read again: its "
                "architecture holds what a card cannot"
            )
        if config:
            stack.enter_context(whole_or_nothing(options.config)).write_text(config)
        nbytes = temporary.stat().st_size
    print(
        f"{options.output}: {card.codec}, {card.parameters} parameters as "
        f"{card.dtype}, {nbytes / 1e6:.2f} MB, weights {card.fingerprints['float32']}"
    )
    if config:
        print(f"{options.config}: what it was trained with")
