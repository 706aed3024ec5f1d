"""What every metric of a result is and needs, and whether it is there."""

from experiments.results.result import METRICS


def describe_metrics() -> str:
    """Return every metric: unit and direction, of what, how to get it, what it is."""
    lines = []
    for name, metric in METRICS.items():
        better = "higher is better" if metric.higher_is_better else "lower is better"
        over = "of a set" if metric.pooled else "of frames"
        facts = [metric.unit, better, over, metric.option]
        lines.append(f"{name} ({metric.label}): {', '.join(filter(None, facts))}")
        lines.append(f"    {metric.definition}")
        reason = reason_of(name)
        if reason is not None:
            lines.append(f"    unavailable here: {reason}")
    return "\n".join(lines)


def reason_of(name: str) -> str | None:
    """Return what a metric lacks on this machine, or ``None``.

    Args:
        name: Key of ``METRICS``.
    """
    from callbacks.brisque import check_brisque
    from callbacks.distribution_metrics import check_inception
    from datamodules.ffmpeg import find_ffmpeg
    from lightning_modules.perceptual import check_lpips

    try:
        if METRICS[name].pooled:
            check_inception()
        elif name == "brisque":
            check_brisque()
        elif name == "vmaf":
            find_ffmpeg()
        elif name.startswith(("lpips_", "tlp_")):
            check_lpips(name.rpartition("_")[2])
    except ValueError as error:
        return str(error)
    return None
