"""What a run is made of, as typed options: the command line and the YAML files."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import yaml

import lightning_modules
from callbacks.metrics.table import DEFAULT_METRICS, validation_names
from datamodules.options import DataOptions
from experiments.cli.configs import CONFIGS
from lightning_modules.stages import Shrink, Stage, check_least, check_precision

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    MetricName: TypeAlias = str
else:
    # Type checkers cannot read a table.
    MetricName = Literal[tuple(validation_names())]

SEED = "Seed of everything, 0 .. 2**32 - 1."

LoggerChoice = Literal["auto", "online", "offline", "tensorboard", "csv", "none"]

CheckpointChoice = Literal["none", "last", "best", "all"]


@dataclass
class RunOptions:
    """Which run it is, where it begins and ends, and where its numbers go.

    Attributes:
        run: Name of the run; the same again goes on. Default: from the file names. An
            option in braces stands for its value, as in ui2c-{model.lmbda}.
        runs_dir: Folder that holds the runs.
        init_from: Checkpoint whose weights a new run starts from; of the folder of a
            stage or a run, its newest; or the name of a shipped model.
        init_from_min_share: Least share of the codec's weights that it must hold, 0 to
            1; files that a codec knows to be published for it may hold less.
        from_stage: Stage to begin with; the ones before it are left out.
        to_stage: Stage to end with; without it the same command goes on to the others.
        logger: auto: W&B online when logged in and the server answers, else offline;
            online and offline insist; tensorboard: below the run's folder; csv: only
            metrics.csv, which all but none write.
    """

    run: str | None = None
    runs_dir: str = "runs"
    init_from: str | None = None
    init_from_min_share: float = 0.5
    from_stage: str | None = None
    to_stage: str | None = None
    logger: LoggerChoice = "auto"


@dataclass
class TrainerOptions:
    """How and where a run trains.

    Attributes:
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        devices: Processes per node; ``auto`` takes every GPU, or one CPU process.
        num_nodes: Nodes (torchrun and SLURM start one process per device on each).
        strategy: Lightning's strategy; ``auto`` is DDP for more than one process.
        precision: Of stages that name none: ``32-true``, ``bf16-mixed``, ``16-mixed``;
            or ``auto``: ``bf16-mixed`` on GPUs that have bfloat16, ``32-true``
            elsewhere. A run goes on in what it began in.
        matmul_precision: Of products of float32 numbers, in convolutions too:
            ``highest``, ``high`` (TF32), ``medium``; ``auto``: ``high`` on GPUs that
            have TF32; null leaves torch's choice. Coding is never less than exact.
        benchmark: Let cuDNN try its kernels and take the fastest (GPU): a run that
            goes on may take others, so it is not exact.
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
        compile: Whether training runs the codec's blocks compiled (torch.compile: a
            minute or more at the start of each stage); validation and coding do not.
        channels_last: Keep weights of convolutions, and what they give, with channels
            last in memory: faster in bf16 on a GPU.

    Raises:
        ValueError: A value is out of range.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int | Literal["auto"] = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    matmul_precision: Literal["auto", "highest", "high", "medium"] | None = "auto"
    benchmark: bool = False
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
    compile: bool = False
    channels_last: bool = False

    def __post_init__(self) -> None:
        check_precision("trainer", self.precision)
        if self.benchmark and self.deterministic:
            raise ValueError(
                "trainer: benchmark takes kernels by their time, which no two runs "
                "measure alike, and deterministic asks for the same ones: give one of "
                "the two"
            )
        intervals = [name for name in vars(self) if name.endswith("_every_n_steps")]
        places = {"devices": 1, "num_nodes": 1, "threads": 0}
        steps = {"accumulate_grad_batches": 1, "max_bad_steps": 0}
        check_least("trainer", self, **dict.fromkeys(intervals, 1), **places, **steps)


@dataclass
class TrackingOptions:
    """Where a run's numbers and pictures go.

    Attributes:
        project: W&B project; ``$WANDB_PROJECT``, else learned-video-codecs, if null.
        entity: W&B user or team; ``$WANDB_ENTITY``, else the login's, if null.
        group: W&B group; ``$WANDB_RUN_GROUP``, else the codec's configuration file, if
            null: an ablation stands beside its baseline, a shrunk schedule apart.
        tags: W&B tags beside the codec's name; ``$WANDB_TAGS`` if empty.
        metrics: What validation measures, where the files that it needs are there.
        lpips_net: Backbone of LPIPS and tLP.
        pooled_every_n_validations: Validations between those that measure FID and KID,
            which cost most; the last of a stage always does. 0 for no others.
        strips_every_n_validations: Validations between pictures; 0 for none.
        at_bpp: Bits per pixel at which quality is read off the curve through the rate
            points, where it reaches them: ``val/0.1bpp/psnr``, the same key of every
            codec.
        reference: What each validation has BD-rates against: a result file of
            evaluate or anchor (its mean points), the folder of a run (its last
            validation), or of a stage in it.
        log_checkpoints: Checkpoints of each stage that has ended which W&B gets as
            model artifacts: last, best, all (both) or none.
        real_bits_every_n_validations: Validations between checks that real bytes
            decode to the encoder's frames; 0 for none.

    Raises:
        ValueError: A value is out of range.
    """

    project: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    metrics: list[MetricName] = field(default_factory=lambda: list(DEFAULT_METRICS))
    lpips_net: Literal["alex", "vgg", "squeeze"] = "alex"
    pooled_every_n_validations: int = 1
    strips_every_n_validations: int = 1
    at_bpp: list[float] = field(default_factory=lambda: [0.02, 0.05, 0.1, 0.2])
    reference: str | None = None
    log_checkpoints: CheckpointChoice = "none"
    real_bits_every_n_validations: int = 1

    def __post_init__(self) -> None:
        names = [name for name in vars(self) if name.endswith("_every_n_validations")]
        check_least("tracking", self, **dict.fromkeys(names, 0))
        for bpp in self.at_bpp:
            if not 0 < bpp < math.inf:
                raise ValueError(
                    f"tracking: at_bpp has {bpp}, each must be above 0 and finite"
                )


def uint32(value: int | str) -> int:
    """Return a number that NumPy, Python and torch all take as a seed."""
    if str(value).isdecimal() and int(value) < 2**32:
        return int(value)
    raise ValueError(f"{value!r} is no whole number from 0 to {2**32 - 1}")


def build_parser(
    description: str = "", *, describe_only: bool = False
) -> "ArgumentParser":
    """Return the parser of everything that defines a run.

    ``experiments/configs/base.yaml`` is always read first, then every ``--config`` in
    its order, then single options; rows of ``stages`` can be changed by name in files
    and options (:mod:`experiments.fit.layers`). One that is to
    ``describe_only`` shows ``--help`` and loads no codec.
    """
    from experiments.fit.layers import Layer, LayeredParser, ListConfigs

    parser = LayeredParser(
        usage="%(prog)s [--config FILE ...] [--run NAME] [--SECTION.OPTION VALUE ...]",
        description=description,
        default_config_files=[str(CONFIGS / "base.yaml")],
    )
    parser.describe_only = describe_only
    parser.add_argument(
        "--config",
        action=Layer,
        help="YAML file, or the name of one that --list_configs shows; later ones "
        "override.",
    )
    parser.add_argument(
        "--list_configs",
        action=ListConfigs,
        help="Show the configuration files that are part of the suite, and exit.",
    )
    # Help would show a function's address.
    seed = int if describe_only else uint32
    parser.add_argument("--seed", type=seed, default=0, help=SEED)
    parser.add_class_arguments(RunOptions)
    if describe_only:
        # Without the seconds that loading codecs takes.
        names = ", ".join(lightning_modules.CODECS)
        parser.add_argument(
            "--model",
            metavar="NAME | .OPTION VALUE",
            help=f"The codec ({names}) and its options, which --model.help NAME shows.",
        )
    else:
        from lightning_modules.base import CodecModule

        # Short names in YAML resolve to classes that have been imported.
        for name in lightning_modules.CODECS:
            getattr(lightning_modules, name)
        parser.add_subclass_arguments(CodecModule, "model", required=True)
    parser.add_class_arguments(DataOptions, "data")
    parser.add_argument(
        "--stages",
        type=list[Stage],
        help="The schedule: one row, one Trainer.fit. --stages.NAME.FIELD VALUE "
        "changes one, --stages.all.FIELD VALUE every row; --stages.help lists fields.",
    )
    parser.add_argument(
        "--shrink",
        type=Shrink | None,
        default=None,
        help="Caps on every row, for a rehearsal; --shrink.total_steps N alone is a "
        "short run of any schedule.",
    )
    parser.link_arguments("seed", "data.seed")
    parser.add_class_arguments(TrainerOptions, "trainer")
    parser.add_class_arguments(TrackingOptions, "tracking")
    return parser


def plain(parser: "ArgumentParser", config: "Namespace") -> dict[str, Any]:
    """Return parsed options as plain dicts and lists, for YAML, JSON and W&B."""
    options: dict[str, Any] = yaml.safe_load(parser.dump(config, skip_none=False))
    options.pop("config", None)
    return options


def complete(parser: "ArgumentParser", options: dict[str, Any]) -> dict[str, Any]:
    """Return plain options that an earlier version wrote as this one would.

    What there was not then has its default; what cannot be read now stays as it is.
    """
    from jsonargparse import ArgumentError

    exits, parser.exit_on_error = parser.exit_on_error, False
    try:
        return plain(parser, parser.parse_object(options))
    except ArgumentError:
        return options
    finally:
        parser.exit_on_error = exits


def instantiate(parser: "ArgumentParser", config: "Namespace") -> "Namespace":
    """Make what parsed options describe.

    Raises:
        ValueError: An argument is wrong; it says no more than the class that refuses
            it, where the parser would list all that the option could have been.
    """
    try:
        return parser.instantiate(config)
    except ValueError as error:
        if str(error).startswith("Does not validate against any of the Union"):
            raise error.__cause__ or error from None
        raise
