"""Every metric: unit, direction, what exactly it is, and who computes it.

Validation and ``evaluate`` both walk this table, and ``compare`` reads it. A new metric
is one function and one row here: validation takes it in ``--tracking.metrics``,
``evaluate`` measures it and ``compare --metric`` shows it. Rows name functions as
``module:name`` and load them when they are needed, so the table itself imports nothing.

``python -m experiments.evaluate --metrics`` prints it, with what each metric needs that
is not there.
"""

from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """How a metric is computed, shown and compared.

    Attributes:
        label: Name in tables and plots.
        unit: Empty where there is none.
        higher_is_better: Direction.
        definition: What exactly is computed; files that differ are not compared.
        function: ``module:name`` of ``f(x_hat, clip)``, which takes clips
            (B, T, 3, H, W), RGB in [0, 1], and returns a value per frame, (B, T).
            A ``temporal.OfChange`` looks at each of the two by itself.
            Validation gives it unrounded clips, ``evaluate`` 8-bit frames. Of a pooled
            metric ``f(source, decoded)``, which takes ``distribution.Samples`` and
            returns a number. Without a function, validation does not know the metric.
        net: Backbone, if the function must be made with one: ``f = name(net)``.
        pairs: The function returns a value per pair of neighbours, (B, T - 1).
        gauge: ``module:Class``, a ``gauges.Gauge`` that ``evaluate`` takes instead of
            the function, because it knows the planes or shares work between metrics.
        pooled: Of all frames of a set together, not one value per frame; says what is
            a sample: ``frames`` or ``patches``.
        moments: Of a pooled metric: the function takes ``distribution.Moments`` too,
            the sums that ranks add up instead of gathering all samples.
        fewest_samples: Of a pooled metric: samples below which it is biased upwards.
        boundary_of: The metric that this is the mean of, over the pairs of frames that
            cross a boundary of units.
        needs: ``module:name`` of a function (of ``net``, if there is one) that raises
            ``ValueError`` if something is missing here, saying what to put where.
        option: Of ``evaluate``, which asks for it; empty if it is always measured.
        validation: Its name in validation, if that is another one.
        column: Whether the table of points that ``evaluate`` prints has room for it.
    """

    label: str
    unit: str
    higher_is_better: bool
    definition: str
    function: str = ""
    net: str = ""
    pairs: bool = False
    gauge: str = ""
    pooled: str = ""
    moments: bool = False
    fewest_samples: int = 0
    boundary_of: str = ""
    needs: str = ""
    option: str = ""
    validation: str = ""
    column: bool = True

    @property
    def per_frame(self) -> bool:
        """Whether a sequence has a list of values, one for each frame or pair."""
        return not (self.pooled or self.boundary_of)

    def load(self) -> Callable[[Any, Any], Any]:
        """Return its function, made with its backbone if it has one."""
        function = resolve_name(self.function)
        return function(self.net) if self.net else function

    def lacks(self) -> str | None:
        """Return what is missing for it on this machine, or ``None``."""
        try:
            if self.needs:
                resolve_name(self.needs)(*filter(None, [self.net]))
        except ValueError as error:
            return str(error)
        return None


DEFAULT_METRICS = (
    *("psnr", "psnr_yuv", "ms_ssim", "bpp", "lpips", "tof", "tlp", "fid"),
)
"""What validation measures unless told otherwise; its names."""

DEFAULT_OPTIONS = ("--lpips alex", "--tof dis")
"""Options that ``evaluate`` takes without being told."""

LPIPS_NETS = ("alex", "vgg", "squeeze", "random")
"""Backbones of LPIPS; ``random``: a stand-in for rehearsals, which judges nothing."""

FEWEST_SAMPLES = 2048
"""Samples below which a FID is biased too much to be compared without a caution: its
network has as many features."""

_PSNR = "PSNR per frame, at most 99.9 dB, peak 255, "
_YUV = " (of a source in RGB: BT.709 full range 4:4:4 of the R, G, B, not rounded)"
_ROUNDED = "output rounded to 8 bits"
_MS_SSIM = (
    "MS-SSIM per plane as the DCVC family: Gaussian window 11 sigma 1.5 within the "
    "plane, K 0.01 and 0.03, 5 scales (4 if a side < 176), 2x2 means with odd edges "
    f"repeated, negative means count 0, {_ROUNDED}, "
)
_RGB = "R, G, B (of 4:2:0: converted, then rounded to 8 bits)"
_DIS = (
    "all pixels, flow from each frame to the next by OpenCV 4 DIS, preset medium, of "
    "8-bit BT.709 full-range luma"
)

_ROOM = "callbacks.metrics"


def _psnr_rows() -> dict[str, Metric]:
    rows = {}
    unrounded = "neither output nor conversions rounded, output clamped"
    # Validation measures unrounded clips under the shorter names.
    functions = {
        "psnr_yuv": (f"{_ROOM}.quality:psnr_yuv", ""),
        "psnr_rgb": ("lightning_modules.psnr:psnr", "psnr"),
    }
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
            function, validation = functions.get(name + suffix, ("", ""))
            rows[name + suffix] = Metric(
                shown + label,
                "dB",
                True,
                f"{_PSNR}{what}, {rounding}",
                function=function,
                gauge=f"{_ROOM}.gauges:Psnr",
                validation=validation,
                column=bool(function),
            )
    return rows


def _ms_ssim(label: str, unit: str, definition: str) -> Metric:
    gauge = f"{_ROOM}.gauges:MsSsim"
    return Metric(label, unit, True, definition, gauge=gauge, column=False)


def _distance(label: str, definition: str, **more: Any) -> Metric:
    """Return a row without unit, of which less is better."""
    return Metric(label, "", False, definition, **more)


def _boundary(label: str, of: str, option: str) -> Metric:
    definition = (
        f"{of}, mean over the pairs of frames whose second begins a unit that is coded "
        "apart from the one before"
    )
    return _distance(label, definition, boundary_of=of, option=option)


def _perceptual(label: str, definition: str, function: str, net: str) -> Metric:
    return _distance(
        f"{label} ({net})",
        definition,
        function=function,
        net=net,
        gauge=f"{_ROOM}.gauges:Perceptual",
        needs="lightning_modules.perceptual:check_lpips",
        option=f"--lpips {net}",
        validation=label.lower(),
    )


def _flow(
    label: str, definition: str, function: str, option: str, norm: str = "L2"
) -> Metric:
    lengths = {"L1": "sum of the components, |du| + |dv|,", "L2": "length"}
    return _distance(
        label,
        f"{lengths[norm]} in pixels ({norm}) of the difference between the decoded and "
        f"the source's optical flow, mean over {definition}",
        function=function,
        pairs=True,
        gauge=f"{_ROOM}.gauges:Flow",
        option=option,
    )


def _pooled_rows() -> dict[str, Metric]:
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
        label.lower() + suffix: _distance(
            label + label_suffix,
            f"{what} between decoded and source pictures, {samples} of all sequences "
            f"of the set together, {features}",
            function=f"{_ROOM}.distribution:{function}",
            pooled=pooled,
            moments=label == "FID",
            fewest_samples=fewest,
            needs=f"{_ROOM}.distribution:check_inception",
            option=f"--fid {pooled}",
        )
        for suffix, label_suffix, samples, pooled in (
            ("", "", "whole frames", "frames"),
            ("_256", "/256", squares, "patches"),
        )
        # KID has no bias to speak of.
        for label, what, function, fewest in (
            ("FID", "FID", "frechet_distance", FEWEST_SAMPLES),
            ("KID", f"KID ({kernel})", "kernel_distance", 0),
        )
    }


METRICS: dict[str, Metric] = {
    **_psnr_rows(),
    "ms_ssim_y": _ms_ssim("MS-SSIM Y", "", f"{_MS_SSIM}Y plane{_YUV}"),
    "ms_ssim_rgb": _ms_ssim("MS-SSIM RGB", "", f"{_MS_SSIM}mean of {_RGB}")._replace(
        function=f"{_ROOM}.quality:ms_ssim", validation="ms_ssim", column=True
    ),
    "ms_ssim_y_db": _ms_ssim(
        "MS-SSIM Y", "dB", "-10 log10(1 - ms_ssim_y) per frame, at most 99.9 dB"
    ),
    "ms_ssim_rgb_db": _ms_ssim(
        "MS-SSIM RGB", "dB", "-10 log10(1 - ms_ssim_rgb) per frame, at most 99.9"
    ),
    **{
        f"lpips_{net}": _perceptual(
            "LPIPS",
            f"LPIPS 0.1, {net}, full size, in [-1, 1], {_RGB}, {_ROUNDED}",
            "lightning_modules.perceptual:Lpips",
            net,
        )
        for net in LPIPS_NETS
    },
    "tof": _flow("tOF", _DIS, f"{_ROOM}.temporal:tof", "--tof dis"),
    "tof_l1": _flow("tOF (L1)", _DIS, f"{_ROOM}.temporal:tof_l1", "--tof dis_l1", "L1"),
    "tof_teco": _flow(
        "tOF (TecoGAN)",
        "TecoGAN's centre crop (multiples of 32, at least 16 pixels less), flow from "
        "each frame to the next by OpenCV 4 Farneback (0.5, 3, 15, 3, 5, 1.2, 0), of "
        "8-bit BT.709 full-range luma, every pair of frames (TecoGAN's script: BT.601 "
        "grey, no two frames at either end)",
        f"{_ROOM}.temporal:tof_teco",
        "--tof teco",
    ),
    **{
        f"tlp_{net}": _perceptual(
            "tLP",
            "difference between the decoded and the source's LPIPS from each frame to "
            f"the next, absolute, not x100, LPIPS as lpips_{net}",
            f"{_ROOM}.temporal:Tlp",
            net,
        )._replace(pairs=True)
        for net in LPIPS_NETS
    },
    "tof_boundary": _boundary("tOF at boundaries", "tof", "--tof dis"),
    "tof_l1_boundary": _boundary(
        "tOF (L1) at boundaries", "tof_l1", "--tof dis_l1"
    )._replace(column=False),
    **{
        f"tlp_boundary_{net}": _boundary(
            f"tLP at boundaries ({net})", f"tlp_{net}", f"--lpips {net}"
        )._replace(column=False)
        for net in LPIPS_NETS
    },
    "brisque": _distance(
        "BRISQUE (piq)",
        "BRISQUE of the package piq with its support vectors trained on LIVE, of "
        f"{_RGB}, {_ROUNDED}, no reference",
        function=f"{_ROOM}.brisque:brisque",
        needs=f"{_ROOM}.brisque:check_brisque",
        option="--brisque",
    ),
    **_pooled_rows(),
    "vmaf": Metric(
        "VMAF",
        "",
        True,
        "libvmaf's default model, 8-bit 4:2:0",
        gauge=f"{_ROOM}.vmaf:Vmaf",
        needs="datamodules.ffmpeg:find_ffmpeg",
        option="--vmaf",
    ),
}
"""Every metric a result may hold, by name."""


def pooled_names(kind: str) -> list[str]:
    """Return the metrics whose samples are ``frames``, or ``patches``."""
    return [name for name, metric in METRICS.items() if metric.pooled == kind]


def validation_keys(net: str = "alex") -> dict[str, str]:
    """Return the names in the table of the metrics of clips, by those in validation.

    Args:
        net: Backbone of LPIPS.
    """
    return {
        metric.validation or name: name
        for name, metric in METRICS.items()
        if metric.function and metric.net in ("", net)
    }


def validation_metrics(net: str = "alex") -> dict[str, Metric]:
    """Return the metrics of clips by their names in validation.

    Args:
        net: Backbone of LPIPS.
    """
    return {name: METRICS[key] for name, key in validation_keys(net).items()}


def validation_names() -> list[str]:
    """Return what ``--tracking.metrics`` takes: those of the table, and the rate."""
    return [*validation_metrics(), "bpp"]


def describe_metrics() -> str:
    """Return every metric: unit and direction, of what, how to get it, what it is."""
    lines = []
    for name, metric in METRICS.items():
        better = "higher is better" if metric.higher_is_better else "lower is better"
        over = "of a set" if metric.pooled else "of frames"
        option = "" if metric.option in DEFAULT_OPTIONS else metric.option
        facts = [metric.unit, better, over, option]
        lines.append(f"{name} ({metric.label}): {', '.join(filter(None, facts))}")
        lines.append(f"    {metric.definition}")
        if reason := metric.lacks():
            lines.append(f"    unavailable here: {reason}")
    return "\n".join(lines)
