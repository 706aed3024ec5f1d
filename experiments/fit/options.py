"""What a run is made of, as typed options: the command line and the YAML files."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from lightning_modules.stages import check_least, check_precision

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass
class TrainerOptions:
    """How and where a run trains.

    Attributes:
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        devices: Processes per node; ``auto`` takes every GPU, or one CPU process.
        num_nodes: Nodes (torchrun and SLURM start one process per device on each).
        strategy: Lightning's strategy; ``auto`` is DDP for more than one process.
        precision: Of stages that name none: ``32-true``, ``bf16-mixed``, ...
        deterministic: Use only deterministic kernels (GPU; slower).
        accumulate_grad_batches: Micro-batches per step; the batch size stays.
        clip_norm: Largest gradient norm; larger ones are scaled down to it.
        max_bad_steps: Steps in a row that may have a non-finite gradient.
        skip_factor: Steps with a gradient norm above so many times the running median
            are skipped; none if null.
        ema_decay: Decay of averaged weights that validation and coding use; none if
            null.
        log_every_n_steps: Steps between logged training scalars.
        val_every_n_steps: Steps between validations; each stage ends with one.
        save_every_n_steps: Steps between checkpoints.
        check_ranks_every_n_steps: Steps between checks that all ranks hold the same
            weights.
        threads: CPU threads of each process; 0 leaves torch's choice.

    Raises:
        ValueError: A value is out of range.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int | Literal["auto"] = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    deterministic: bool = False
    accumulate_grad_batches: int = 1
    clip_norm: float = 0.2
    max_bad_steps: int = 20
    skip_factor: float | None = None
    ema_decay: float | None = None
    log_every_n_steps: int = 50
    val_every_n_steps: int = 5000
    save_every_n_steps: int = 1000
    check_ranks_every_n_steps: int = 500
    threads: int = 0

    def __post_init__(self) -> None:
        check_precision("trainer", self.precision)
        intervals = {
            "log_every_n_steps": 1,
            "val_every_n_steps": 1,
            "save_every_n_steps": 1,
            "check_ranks_every_n_steps": 1,
        }
        places = {"devices": 1, "num_nodes": 1, "threads": 0}
        steps = {"accumulate_grad_batches": 1, "max_bad_steps": 0}
        check_least("trainer", self, **intervals, **places, **steps)


@dataclass
class TrackingOptions:
    """Where a run's numbers and pictures go.

    Attributes:
        project: W&B project.
        group: W&B group; the names of the configuration files if null.
        tags: W&B tags beside the codec's name and the stage's.
        metrics: Quality metrics of validation.
        lpips_net: Backbone of LPIPS.
        strips_every_n_validations: Validations between pictures; 0 for none.
        real_bits_every_n_validations: Validations between checks that real bytes
            decode to the encoder's frames; 0 for none.

    Raises:
        ValueError: A value is out of range.
    """

    project: str = "learned-video-codecs"
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    metrics: list[str] = field(
        default_factory=lambda: ["psnr", "psnr_yuv", "ms_ssim", "bpp", "lpips"]
    )
    lpips_net: Literal["alex", "vgg", "squeeze"] = "alex"
    strips_every_n_validations: int = 1
    real_bits_every_n_validations: int = 1

    def __post_init__(self) -> None:
        pictures, bits = "strips_every_n_validations", "real_bits_every_n_validations"
        check_least("tracking", self, **{pictures: 0, bits: 0})


def build_parser(prog: str, description: str) -> "ArgumentParser":
    """Return the parser of everything that defines a run.

    ``experiments/configs/base.yaml`` is always read first, then every ``--config`` in
    its order, then single options.
    """
    from jsonargparse import ActionConfigFile, ArgumentParser

    import lightning_modules
    from datamodules.options import DataOptions
    from lightning_modules.base import CodecModule
    from lightning_modules.stages import Shrink, Stage

    # Short names in YAML resolve to classes that have been imported.
    for name in lightning_modules.__all__:
        getattr(lightning_modules, name)
    parser = ArgumentParser(
        prog=prog,
        usage="%(prog)s [--config FILE ...] [--run NAME] [--SECTION.OPTION VALUE ...]",
        description=description,
        default_config_files=[str(CONFIGS / "base.yaml")],
    )
    parser.add_argument(
        "--config", action=ActionConfigFile, help="YAML file; later ones override."
    )
    parser.add_argument(
        "--run",
        type=str | None,
        default=None,
        help="Name of the run; the same again goes on. Default: from the file names.",
    )
    parser.add_argument(
        "--runs_dir", type=str, default="runs", help="Folder that holds the runs."
    )
    parser.add_argument(
        "--seed",
        type=uint32,
        default=0,
        help="Seed of everything, 0 .. 2**32 - 1.",
    )
    parser.add_argument(
        "--init_from",
        type=str | None,
        default=None,
        help="Checkpoint whose weights a new run starts from.",
    )
    parser.add_argument(
        "--from_stage",
        type=str | None,
        default=None,
        help="Stage to begin with; the ones before it are left out.",
    )
    parser.add_argument(
        "--to_stage",
        type=str | None,
        default=None,
        help="Stage to end with; without it the same command goes on to the others.",
    )
    parser.add_argument(
        "--logger",
        type=Literal["auto", "online", "offline", "csv", "none"],
        default="auto",
        help="auto: W&B online when logged in and the server answers, else offline; "
        "online and offline insist; csv: only metrics.csv, which all but none write.",
    )
    parser.add_subclass_arguments(CodecModule, "model", required=True)
    parser.add_class_arguments(DataOptions, "data")
    parser.add_argument(
        "--stages", type=list[Stage], help="The schedule: one row, one Trainer.fit."
    )
    parser.add_argument(
        "--shrink",
        type=Shrink | None,
        default=None,
        help="Caps on every row, for a rehearsal.",
    )
    parser.link_arguments("seed", "data.seed")
    parser.add_class_arguments(TrainerOptions, "trainer")
    parser.add_class_arguments(TrackingOptions, "tracking")
    return parser


def uint32(value: int | str) -> int:
    """Return what NumPy, Python and torch all take as a seed."""
    if str(value).isdecimal() and int(value) < 2**32:
        return int(value)
    raise ValueError(f"{value!r} is no whole number from 0 to {2**32 - 1}")


def plain(parser: "ArgumentParser", config: "Namespace") -> dict[str, Any]:
    """Return parsed options as plain dicts and lists, for YAML, JSON and W&B."""
    options: dict[str, Any] = yaml.safe_load(parser.dump(config, skip_none=False))
    options.pop("config", None)
    return options
