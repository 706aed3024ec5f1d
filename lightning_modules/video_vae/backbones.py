"""The video VAEs by name."""

from collections.abc import Collection

from lightning_modules.video_vae.backbone import Backbone, Name, Norm, Size
from lightning_modules.video_vae.cv_vae import CV_VAE_WIDTHS, CVVAE
from lightning_modules.video_vae.lean_vae import LEAN_VAE_WIDTHS, LeanVAE


def build_backbone(
    name: Name,
    size: Size,
    channels: int,
    *,
    half_3d: bool = True,
    norm: Norm = "clip",
) -> Backbone:
    """Return an untrained backbone.

    Args:
        name: ``cv_vae`` (convolutional, the paper's main one) or ``lean_vae`` (light,
            wavelets and compressed sensing).
        size: ``paper``, or a narrower one to try things out.
        channels: Of the latent.
        half_3d: As in :class:`CVVAE`.
        norm: As there.

    Raises:
        ValueError: There is no such backbone or size, or it lacks that option.
    """
    sizes: dict[str, Collection[str]] = {
        "cv_vae": CV_VAE_WIDTHS,
        "lean_vae": LEAN_VAE_WIDTHS,
    }
    if name not in sizes:
        raise ValueError(f"backbone {name!r}: it is one of {', '.join(sizes)}")
    if size not in sizes[name]:
        raise ValueError(f"size {size!r}: it is one of {', '.join(sizes[name])}")
    if norm not in ("clip", "frame"):
        raise ValueError(f"norm {norm!r}: it is clip or frame")
    if name == "cv_vae":
        return CVVAE(channels, CV_VAE_WIDTHS[size], half_3d=half_3d, norm=norm)
    if not half_3d or norm != "clip":
        raise ValueError("half_3d and norm are options of cv_vae; lean_vae has neither")
    return LeanVAE(channels, LEAN_VAE_WIDTHS[size])
