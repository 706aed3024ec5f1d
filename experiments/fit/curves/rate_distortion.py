"""Quality against bits at each validation: equal bits, BD-rates, table and figure."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from callbacks.metrics.table import validation_keys
from callbacks.pictures import show
from datamodules.whole_files import whole_or_nothing
from experiments.compare.bd import MIN_POINTS, compare_curves, quality_at
from experiments.compare.comparison import Curve
from experiments.fit.curves.reference import METHOD, Reference, load_reference
from experiments.fit.curves.validations import Validation
from experiments.fit.loggers.wandb_run import StageWandbLogger
from experiments.fit.options import LoggerChoice, TrackingOptions
from experiments.results.drawing.wandb_lines import rd_lines
from lightning_modules.base import CodecModule


class RateDistortion(Callback):
    """Compare validations at equal bits, with the reference, and with earlier stages.

    Logs, of each metric that validation measures:

    * ``val/0.1bpp/<metric>``: read off the curve through the rate points at so many
      bits per pixel, where the curve reaches them; the same key of every codec.
    * ``val/bd_rate_<metric>``: against the reference, in %, negative if fewer bits are
      needed; ``_overlap``: the part of the metric's axis that it is of, in %;
      ``_flags``, in W&B only: its caveats.
    * ``val/rd``: a figure; ``val/rd_lines`` and ``val/rd_table`` in W&B. They have the
      last validation of each finished stage and the newest one.

    Stages that leave the bits out of the loss have none of these.

    Args:
        options: ``at_bpp``, ``metrics``, ``strips_every_n_validations`` (of the
            pictures; the last of a stage always has them), ``lpips_net``.
        run_dir: The run's folder.
        reference: What to compare with.
        data: The options of each stage's data, for the reference's caveat.
        earlier: The last validation of each stage so far.
    """

    def __init__(
        self,
        options: TrackingOptions,
        run_dir: Path,
        reference: Reference | None,
        data: Mapping[str, Mapping[str, Any]],
        earlier: Mapping[str, Validation],
    ) -> None:
        self.options = options
        self.media = run_dir / "media"
        self.reference = reference
        self.caveats = {
            stage: reference.caveat_of(own) if reference else ""
            for stage, own in data.items()
        }
        self.validations = dict(earlier)
        known = validation_keys(options.lpips_net)
        self.metrics = [name for name in options.metrics if name in known]
        self._count = 0
        self._said = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Count the validations of each stage anew."""
        self._count = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the curve's figures, before a checkpoint of this step is saved."""
        module = cast(CodecModule, pl_module)
        if trainer.sanity_checking or not trainer.global_step:
            return
        number, self._count = self._count, self._count + 1
        if not module.stage.codes or not trainer.loggers:
            return
        figures = {k: float(v) for k, v in trainer.callback_metrics.items()}
        stage = module.stage.name
        validation = Validation.of(stage, module.run_step, figures)
        if not validation.points:
            return
        # Last in the order, also where a stage goes on.
        self.validations.pop(stage, None)
        self.validations[stage] = validation
        curves = self._curves(validation)
        # Lightning numbers steps from 0: this is the one just done.
        step = trainer.global_step - 1
        numbers = at_equal_bits(curves, self.options.at_bpp)
        texts: dict[str, str] = {}
        if self.reference:
            rates, texts = self._bd_rates(curves, self.reference)
            numbers |= rates
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step)
            if isinstance(logger, StageWandbLogger):
                logger.log_metrics(texts, step)
        every = self.options.strips_every_n_validations
        last = trainer.global_step == trainer.max_steps
        if every and (number % every == 0 or last):
            self._show(trainer, step)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of the stage's validations so far."""
        return {"validations": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._count = state_dict["validations"]

    def _curves(self, validation: Validation) -> dict[str, Curve]:
        """Return the curve of each metric that this validation measured."""
        net = self.options.lpips_net
        curves = {name: validation.curve(name, net) for name in self.metrics}
        return {name: curve for name, curve in curves.items() if curve}

    def _bd_rates(
        self, curves: Mapping[str, Curve], reference: Reference
    ) -> tuple[dict[str, float], dict[str, str]]:
        """Return BD-rates with their overlaps, and the caveats of each."""
        numbers: dict[str, float] = {}
        texts: dict[str, str] = {}
        missing: dict[str, str] = {}
        for name, curve in curves.items():
            if name not in reference.curves:
                continue
            rate, _, flags = compare_curves(reference.curves[name], curve, METHOD)
            key = f"val/bd_rate_{name}"
            if rate.value is None:
                reasons = (flag.text for flag in flags if flag.kind == "not_computable")
                missing[name] = next(reasons, "")
            else:
                numbers[key] = rate.value
            if rate.overlap is not None:
                numbers[f"{key}_overlap"] = rate.overlap
            caveats = [f"{flag.kind}: {flag.text}" for flag in flags]
            if differs := self.caveats[curve.codec]:
                caveats.append(differs)
            texts[f"{key}_flags"] = "; ".join(caveats) or "none"
        if missing and not self._said:
            self._said = True
            listed = "; ".join(f"{name}: {why}" for name, why in missing.items())
            rank_zero_info(f"no BD-rate against {reference.name} yet ({listed})")
        return numbers, texts

    def _show(self, trainer: Trainer, step: int) -> None:
        """Show all stages as a figure, and in W&B as lines and as a table too."""
        newest = next(reversed(self.validations.values()))
        metrics = self._lines()
        if not metrics:
            return
        title = f"validation at step {newest.step} of {newest.stage}"
        path = self.media / f"{newest.step:07d}_{newest.stage}_rd.png"
        try:
            draw(metrics, title, self.reference, path)
        except OSError as error:
            # A full disk must not end a run of days.
            rank_zero_warn(f"no picture {path}: {error!r}")
        else:
            show(trainer.loggers, "val/rd", path, step, title)
        for logger in trainer.loggers:
            if isinstance(logger, StageWandbLogger):
                logger.log_metrics(self._for_wandb(metrics), step)

    def _lines(self) -> dict[str, list[Curve]]:
        """Return the curves of each metric, from the reference to the newest stage."""
        metrics: dict[str, list[Curve]] = {}
        for validation in self.validations.values():
            for name, curve in self._curves(validation).items():
                metrics.setdefault(name, []).append(curve)
        newest = next(reversed(self.validations))
        shown = {n: own for n, own in metrics.items() if own[-1].codec == newest}
        for name, curve in (self.reference.curves if self.reference else {}).items():
            if name in shown:
                shown[name].insert(0, curve)
        return shown

    def _for_wandb(self, metrics: Mapping[str, Sequence[Curve]]) -> dict[str, Any]:
        import wandb

        name, curves = next(iter(metrics.items()))
        return {
            "val/rd_table": wandb.Table(*self.table()),
            "val/rd_lines": rd_lines(
                ((each.codec, each.bpp, each.quality) for each in curves),
                f"{name} at each rate",
            ),
        }

    def table(self) -> tuple[list[str | int], list[list[Any]]]:
        """Return names of columns, and a row for each rate point of each curve."""
        sources: list[tuple[str, int | None, Mapping[str, Mapping[str, float]]]] = [
            (each.stage, each.step, each.points) for each in self.validations.values()
        ]
        if self.reference:
            sources.insert(0, (self.reference.name, None, self.reference.points))
        data = [
            [stage, step, point, values["bpp"], *(values.get(m) for m in self.metrics)]
            for stage, step, points in sources
            for point, values in points.items()
        ]
        return ["stage", "step", "rate", "bpp", *self.metrics], data


def at_equal_bits(
    curves: Mapping[str, Curve], at_bpp: Sequence[float]
) -> dict[str, float]:
    """Read curves off at fixed bits per pixel, where they reach them."""
    values = {
        f"val/{bpp:g}bpp/{name}": quality_at(curve, bpp)
        for name, curve in curves.items()
        for bpp in at_bpp
    }
    return {key: value for key, value in values.items() if value is not None}


def draw(
    metrics: Mapping[str, Sequence[Curve]],
    title: str,
    reference: Reference | None,
    path: Path,
) -> None:
    """Write the figure of :func:`draw_stages`.

    Raises:
        OSError: It cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from experiments.fit.curves.figure import draw_stages
    from experiments.results.drawing.figures import figure_style

    path.parent.mkdir(parents=True, exist_ok=True)
    with figure_style():
        figure = draw_stages(metrics, title, reference.name if reference else None)
        with whole_or_nothing(path) as temporary:
            FigureCanvasAgg(figure).print_png(temporary)


def reference_for(
    options: TrackingOptions,
    logger: LoggerChoice,
    module: CodecModule,
    data: Mapping[str, Mapping[str, Any]],
) -> Reference | None:
    """Return the run's reference, and say once what is compared and how far.

    Args:
        options: Name it, or none.
        logger: The run's choice.
        module: Has the rate points.
        data: As :class:`RateDistortion` takes it.

    Raises:
        ValueError: There is no such reference, or nothing to compare with it.
    """
    if options.reference is None:
        return None
    if logger == "none":
        raise ValueError(
            f"--tracking.reference {options.reference}: --logger none keeps no "
            "BD-rate: choose --logger csv, or leave it out"
        )
    points, least = len(module.rate_points()), MIN_POINTS[METHOD]
    if points < least:
        raise ValueError(
            f"--tracking.reference {options.reference}: this codec is validated at "
            f"{points} rate, and a BD-rate needs {least}: leave it out, and use compare"
        )
    reference = load_reference(options.reference, options.metrics, options.lpips_net)
    caveats = dict.fromkeys(filter(None, map(reference.caveat_of, data.values())))
    text = f"BD-rates against {reference.name}: {', '.join(reference.curves)}"
    rank_zero_info("; ".join(chain([text], caveats)))
    return reference
