"""Every metric that a result file may hold: unit, direction, and what exactly it is.

``python -m experiments.evaluate --metrics`` prints the table, with what each metric
needs that is not there.
"""

from typing import NamedTuple


class Metric(NamedTuple):
    """How a metric is shown and compared.

    Attributes:
        label: Name in tables and plots.
        unit: Empty where there is none.
        higher_is_better: Direction.
        definition: What exactly is computed; files that differ are not compared.
        pooled: Of all frames of a set together, not one value per frame.
        option: Of ``evaluate``, without which it is not measured.
    """

    label: str
    unit: str
    higher_is_better: bool
    definition: str
    pooled: bool = False
    option: str = ""


_PSNR = "PSNR per frame, at most 99.9 dB, peak 255, "
_YUV = " (of a source in RGB: BT.709 full range 4:4:4 of the R, G, B, not rounded)"
_ROUNDED = "output rounded to 8 bits"
_MS_SSIM = (
    "MS-SSIM per plane as the DCVC family: Gaussian window 11 sigma 1.5 within the "
    "plane, K 0.01 and 0.03, 5 scales (4 if a side < 176), 2x2 means with odd edges "
    f"repeated, negative means count 0, {_ROUNDED}, "
)
_RGB = "R, G, B (of 4:2:0: converted, then rounded to 8 bits)"

FEWEST_SAMPLES = 2048
"""Samples below which a FID is biased too much to be compared without a caution."""

LPIPS_NETS = ("alex", "vgg", "squeeze", "random")
"""Backbones of LPIPS; ``random``: a stand-in for rehearsals, which judges nothing."""


def _psnr_metrics() -> dict[str, Metric]:
    metrics = {}
    unrounded = "neither output nor conversions rounded, output clamped"
    for suffix, label, rounding in (
        ("", "", _ROUNDED),
        ("_unrounded", " (unrounded)", unrounded),
    ):
        rgb = _RGB if not suffix else "R, G, B (of 4:2:0: converted)"
        for name, shown, what in (
            ("psnr_y", "PSNR Y", f"Y plane{_YUV}"),
            ("psnr_u", "PSNR U", f"U plane{_YUV}"),
            ("psnr_v", "PSNR V", f"V plane{_YUV}"),
            ("psnr_yuv", "PSNR YUV 6:1:1", f"(6 Y + U + V) / 8 of the planes'{_YUV}"),
            ("psnr_rgb", "PSNR RGB", f"mean error of {rgb}"),
        ):
            definition = f"{_PSNR}{what}, {rounding}"
            metrics[name + suffix] = Metric(shown + label, "dB", True, definition)
    return metrics


def _pooled_metrics() -> dict[str, Metric]:
    features = (
        "2048 pooled features of the TF 2015 Inception-v3, pictures resized to 299x299 "
        f"as TF 1 (bilinear, no antialiasing), {_RGB}, {_ROUNDED}"
    )
    kernel = "kernel (xy/2048 + 1)^3, mean of 100 subsets of 1000, fixed seed"
    squares = (
        "squares of 256 (HiFiC's grid of floor(H/256) x floor(W/256) and one shifted "
        "by 128 with a row and a column less; smaller frames have none)"
    )
    return {
        name + suffix: Metric(
            label + label_suffix,
            "",
            False,
            f"{what} between decoded and source pictures, {samples} of all sequences "
            f"of the set together, {features}",
            pooled=True,
            option=option,
        )
        for suffix, label_suffix, samples, option in (
            ("", "", "whole frames", "--fid frames"),
            ("_256", "/256", squares, "--fid patches"),
        )
        for name, label, what in (
            ("fid", "FID", "FID"),
            ("kid", "KID", f"KID ({kernel})"),
        )
    }


METRICS: dict[str, Metric] = {
    **_psnr_metrics(),
    "ms_ssim_y": Metric("MS-SSIM Y", "", True, f"{_MS_SSIM}Y plane{_YUV}"),
    "ms_ssim_rgb": Metric("MS-SSIM RGB", "", True, f"{_MS_SSIM}mean of {_RGB}"),
    "ms_ssim_y_db": Metric(
        "MS-SSIM Y", "dB", True, "-10 log10(1 - ms_ssim_y) per frame, at most 99.9 dB"
    ),
    "ms_ssim_rgb_db": Metric(
        "MS-SSIM RGB", "dB", True, "-10 log10(1 - ms_ssim_rgb) per frame, at most 99.9"
    ),
    **{
        f"lpips_{net}": Metric(
            f"LPIPS ({net})",
            "",
            False,
            f"LPIPS 0.1, {net}, full size, in [-1, 1], {_RGB}, {_ROUNDED}",
            option="" if net == "alex" else f"--lpips {net}",
        )
        for net in LPIPS_NETS
    },
    "tof": Metric(
        "tOF",
        "",
        False,
        "length in pixels (L2) of the difference between the decoded and the source's "
        "optical flow, mean over all pixels, flow from each frame to the next by "
        "OpenCV 4 DIS, preset medium, of 8-bit BT.709 full-range luma",
    ),
    "tof_teco": Metric(
        "tOF (TecoGAN)",
        "",
        False,
        "length in pixels (L2) of the difference between the decoded and the source's "
        "optical flow, mean over TecoGAN's centre crop (multiples of 32, at least 16 "
        "pixels less), flow from each frame to the next by OpenCV 4 Farneback (0.5, 3, "
        "15, 3, 5, 1.2, 0), of 8-bit BT.709 full-range luma, every pair of frames "
        "(TecoGAN's script: BT.601 grey, no two frames at either end)",
        option="--tof teco",
    ),
    **{
        f"tlp_{net}": Metric(
            f"tLP ({net})",
            "",
            False,
            "difference between the decoded and the source's LPIPS from each frame to "
            f"the next, absolute, not x100, LPIPS as lpips_{net}",
            option="" if net == "alex" else f"--lpips {net}",
        )
        for net in LPIPS_NETS
    },
    "tof_boundary": Metric(
        "tOF at boundaries",
        "",
        False,
        "tof, mean over the pairs of frames whose second begins a unit that is coded "
        "apart from the one before",
    ),
    **{
        f"tlp_boundary_{net}": Metric(
            f"tLP at boundaries ({net})",
            "",
            False,
            f"tlp_{net}, mean over the pairs of frames whose second begins a unit that "
            "is coded apart from the one before",
            option="" if net == "alex" else f"--lpips {net}",
        )
        for net in LPIPS_NETS
    },
    "brisque": Metric(
        "BRISQUE (piq)",
        "",
        False,
        "BRISQUE of the package piq with its support vectors trained on LIVE, of "
        f"{_RGB}, {_ROUNDED}, no reference",
        option="--brisque",
    ),
    **_pooled_metrics(),
    "vmaf": Metric(
        "VMAF", "", True, "libvmaf's default model, 8-bit 4:2:0", option="--vmaf"
    ),
}
"""Every metric a result may hold, by name."""


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
    from callbacks.metrics.brisque import check_brisque
    from callbacks.metrics.distribution import check_inception
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
