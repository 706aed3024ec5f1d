"""What a run says at its end."""

from collections.abc import Sequence

from experiments.cli.command import called_as
from experiments.fit.loggers.metrics_csv import read_metrics
from experiments.fit.run_folder import RunFolder
from lightning_modules.stages import Stage

SHOWN = (
    ("val/psnr", "PSNR", "{:.2f} dB"),
    ("val/bpp", "estimated bpp", "{:.4f}"),
    ("val/ms_ssim", "MS-SSIM", "{:.4f}"),
    ("val/lpips", "LPIPS", "{:.4f}"),
    ("val/fid", "FID", "{:.2f}"),
    ("val/tof", "tOF", "{:.3f} px"),
    ("val/tlp", "tLP", "{:.4f}"),
    ("val/bd_rate_psnr", "BD-rate of PSNR", "{:+.1f} %"),
    ("val/bd_rate_psnr_overlap", "its overlap", "{:.0f} %"),
    ("val/real_bpp", "real bpp of a clip", "{:.4f}"),
    ("val/real_to_estimated", "its real / estimated bits", "{:.4f}"),
)

BD_RATE = ("val/bd_rate_psnr", "val/bd_rate_psnr_overlap")
"""Of the last validation only."""


def summary(
    folder: RunFolder,
    stages: list[Stage],
    received: int | None,
    sync: str | None,
    rate: float,
    later: Sequence[str] = (),
) -> str:
    """Return the last lines of a run: stages, validation, folder, what to do next.

    A signal ``received`` stopped the run. ``sync`` is the command that sends an
    offline run to W&B, and ``rate`` one that the codec can code at, for the example.
    ``later`` names the stages after ``--to_stage``.
    """
    done = folder.steps_done(stages)
    rows = [
        f"{stage.name} {steps or 0}/{stage.steps}"
        for stage, steps in zip(stages, done, strict=True)
    ]
    lines = ["", f"run {folder.path.name}: {', '.join(rows)} steps"]
    metrics = read_metrics(folder.path / "metrics.csv")
    # Later rows overwrite earlier ones.
    values = {row[2]: row[3] for row in metrics}
    steps_of = {row[2]: row[0] for row in metrics}
    # A curve that shares no quality with the reference's has no BD-rate.
    for name in BD_RATE:
        if steps_of.get(name) != steps_of.get("val/bpp"):
            values.pop(name, None)
    shown = [
        f"{title} {form.format(values[name])}"
        for name, title, form in SHOWN
        if name in values
    ]
    if shown:
        lines.append("validation (mean over clips and rates): " + ", ".join(shown))
    lines.append(f"folder: {folder.path}")
    if sync:
        lines.append(f"send to W&B: {sync}")
    latest = [s for s, steps in zip(stages, done, strict=True) if steps is not None]
    if received:
        lines.append("stopped by a signal after saving: the same command goes on")
    elif latest:
        checkpoint = folder.last(latest[-1].name)
        lines.append("next:")
        if later:
            lines.append(
                "  the same command without --to_stage goes on with stage " + later[0]
            )
        lines += [
            f"  {called_as('encode')} VIDEO out.lvc --checkpoint {checkpoint} "
            f"--rate {rate:g}",
            f"  {called_as('decode')} out.lvc out.mp4 --checkpoint {checkpoint}",
            f"  {called_as('fit')} ... --run OTHER --init_from {checkpoint}",
        ]
    return "\n".join(lines)
