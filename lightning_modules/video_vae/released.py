"""The published weights of CV-VAE and LeanVAE, under this package's names.

Their files hold more than a codec needs: heads for a variance, discriminators, losses.
Only names and shapes of the published state dicts are used here.

Source: AILab-CVC/CV-VAE (the model for SD 2.1) and westlake-repl/LeanVAE.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from lightning_modules.released import Released, misfits

LATENT_LAYERS = frozenset(
    {
        "encoder.last.weight",
        "encoder.last.bias",
        "decoder.first.weight",
        "encoder.sensing.weight",
        "decoder.guess.weight",
    }
)
"""Layers whose shape depends on the latent's channels."""

_CV_VAE = (
    (r"^(encoder|decoder)\.norm_out\.", r"\1.norm."),
    (r"^encoder\.conv_in\.", "encoder.first."),
    (r"^encoder\.conv_out\.", "encoder.last."),
    (r"^decoder\.conv_in\.", "decoder.first."),
    (r"^decoder\.conv_out\.", "decoder.last."),
    (r"^encoder\.down\.(\d)\.block\.", r"encoder.levels.\1."),
    (r"^encoder\.down\.(\d)\.downsample\.conv\.", r"encoder.levels.\1.2."),
    # They count the decoder's levels from the finest, against the order of the data.
    *((rf"^decoder\.up\.{i}\.block\.", f"decoder.levels.{3 - i}.") for i in range(4)),
    *(
        (rf"^decoder\.up\.{i}\.upsample\.conv\.", f"decoder.levels.{3 - i}.3.")
        for i in range(4)
    ),
    (r"\.mid\.block_1\.", ".middle.0."),
    (r"\.mid\.block_2\.", ".middle.2."),
    (r"\.mid\.attn_1\.(norm|q|k|v|proj_out)_t\.", r".middle.1.time.\1."),
    (r"\.mid\.attn_1\.(norm|q|k|v|proj_out)\.", r".middle.1.space.\1."),
    (r"(\.middle\.1\.\w+)\.q\.", r"\1.query."),
    (r"(\.middle\.1\.\w+)\.k\.", r"\1.key."),
    (r"(\.middle\.1\.\w+)\.v\.", r"\1.value."),
    (r"(\.middle\.1\.\w+)\.proj_out\.", r"\1.out."),
    (r"\.nin_shortcut\.", ".shortcut."),
)

_LEAN_VAE = (
    (r"^encoder\.(\w+)_proj\.1\.", r"encoder.patches.\1."),
    (r"^decoder\.(\w+)_proj\.0\.", r"decoder.patches.\1."),
    (r"\.(low|high)_layer\.", r".\1."),
    (r"\.fusion_layer\.", ".fused."),
    (r"^latent_bottleneck\.phi$", "encoder.sensing.weight"),
    (r"^latent_bottleneck\.Q$", "decoder.guess.weight"),
    (r"^latent_bottleneck\.weights\.(\d+)$", r"decoder.iterations.\1.step"),
    (r"^latent_bottleneck\.threshold\.(\d+)$", r"decoder.iterations.\1.threshold"),
    (r"^latent_bottleneck\.forward_l\.(\d+)\.", r"decoder.iterations.\1.analysis."),
    (r"^latent_bottleneck\.backward_l\.(\d+)\.", r"decoder.iterations.\1.synthesis."),
    (r"\.dconv_layer\.(\d+)\.ds_conv\.", r".\1.depthwise."),
    (r"\.ffd_layer\.(\d+)\.0\.", r".\1.norm."),
    (r"\.ffd_layer\.(\d+)\.1\.", r".\1.widen."),
    (r"\.ffd_layer\.(\d+)\.4\.", r".\1.narrow."),
)

_KINDS = (
    ("CV-VAE", "decoder.up.0.block.0.conv1.weight", ("encoder", "decoder"), _CV_VAE),
    (
        "LeanVAE",
        "latent_bottleneck.phi",
        ("encoder", "decoder", "latent_bottleneck"),
        _LEAN_VAE,
    ),
)
"""Name, a key that tells it, the parts a codec needs, and what they are called here."""

_OTHER_CV_VAE = "encoder.down_blocks.0."


def released_weights(
    weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> Released | None:
    """Return published weights for a network with a backbone, or ``None`` for others.

    Args:
        weights: A state dict, its keys perhaps with a prefix before all of the model.
        wanted: The network's state dict.

    Raises:
        ValueError: They are of a published model, but the network's backbone is
            another, or of another size.
    """
    found = find_released(weights)
    if found is None:
        return None
    given = {f"backbone.{key}": value for key, value in found.weights.items()}
    own = {
        key: value
        for key, value in wanted.items()
        if key.startswith(("backbone.encoder.", "backbone.decoder."))
    }
    wrong = [
        key
        for key in misfits(given, own)
        if key.removeprefix("backbone.") not in LATENT_LAYERS
    ]
    if wrong:
        raise ValueError(
            f"these are the released weights of {found.kind}, and {len(wrong)} of "
            f"them do not fit the network ({', '.join(wrong[:3])}, ...): it must "
            f"have {'cv_vae' if found.kind == 'CV-VAE' else 'lean_vae'} as its "
            "backbone, in the paper's size, with the same half_3d"
        )
    return replace(found, weights=given)


def find_released(weights: Mapping[str, Tensor]) -> Released | None:
    """Return published weights under a backbone's names, or ``None`` for others.

    Args:
        weights: As :func:`released_weights` takes it.

    Raises:
        ValueError: They are of a published model that no backbone here is.
    """
    for kind, telling, parts, names in _KINDS:
        if telling in weights:
            return _rename(weights, kind, "", parts, names)
        for key in weights:
            if key.endswith(f".{telling}"):
                return _rename(weights, kind, key.removesuffix(telling), parts, names)
    if any(_OTHER_CV_VAE in key for key in weights):
        raise ValueError(
            "these are weights of a VAE in the layout of SD 3 (vae3d_sd3), whose "
            "padding and attention differ: take those of CV-VAE for SD 2.1, vae3d or "
            "vae3d_v1-1"
        )
    return None


def refuse_alone(weights: Mapping[str, Tensor], path: Path) -> None:
    """Raise ``ValueError`` if weights are of a backbone, which alone codes nothing.

    Args:
        weights: As :func:`released_weights` takes it.
        path: Its file, for the message.
    """
    found = find_released(weights)
    if found is None:
        return
    lean = " --config ablations/video_vae/lean_vae" if found.kind == "LeanVAE" else ""
    raise ValueError(
        f"these are the released weights of {found.kind}, a backbone without a latent "
        "codec, so they code nothing yet: train a VideoVAE from them, python -m "
        f"experiments.fit --config video_vae{lean} --config "
        f"ablations/video_vae/released_weights --init_from {path}"
    )


def _rename(
    weights: Mapping[str, Tensor],
    kind: str,
    prefix: str,
    parts: tuple[str, ...],
    names: tuple[tuple[str, str], ...],
) -> Released:
    renamed: dict[str, Tensor] = {}
    left_out: dict[str, int] = {}
    for full, value in weights.items():
        key = full.removeprefix(prefix)
        part = key.split(".")[0]
        if not full.startswith(prefix) or part not in parts:
            part = full.split(".")[0] if not full.startswith(prefix) else part
            left_out[part] = left_out.get(part, 0) + 1
            continue
        for pattern, replacement in names:
            key = re.sub(pattern, replacement, key)
        renamed[key] = _reshape(key, value)
    if kind == "CV-VAE":
        _drop_variance(renamed, left_out)
    return Released(kind, renamed, left_out)


def _reshape(key: str, value: Tensor) -> Tensor:
    """Return a weight of a convolution as the layer here holds it."""
    if value.ndim != 4:
        return value
    # 1x1 convolutions of the attention are linear layers here, and kernels that see
    # one frame have three dimensions.
    return value.flatten(1) if ".middle.1." in key else value.unsqueeze(2)


def _drop_variance(weights: dict[str, Tensor], left_out: dict[str, int]) -> None:
    """Keep the mean of an encoder whose last layer gives a mean and a variance."""
    first = weights.get("decoder.first.weight")
    if first is None or first.ndim < 2:
        # Another network, or part of a file: what does not fit is said of all layers.
        return
    z = first.shape[1]
    for key in ("encoder.last.weight", "encoder.last.bias"):
        if key in weights and weights[key].shape[:1] == (2 * z,):
            weights[key] = weights[key][:z]
            name = "variance of encoder.conv_out"
            left_out[name] = left_out.get(name, 0) + 1
