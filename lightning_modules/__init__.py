"""The codecs. A new one is one folder, one configuration file and one line here.

Names resolve on first use, so that a command that needs no training does not pay for
importing Lightning.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_modules.execution import DecodingExecution, Execution
from lightning_modules.shipped import find_model

if TYPE_CHECKING:
    import torch

    from lightning_modules.codec import VideoCodec

CODECS = {
    "DHVC": "lightning_modules.dhvc",
    "DualDomain": "lightning_modules.dual_domain",
    "ScaleSpaceFlow": "lightning_modules.scale_space_flow",
    "UI2C": "lightning_modules.ui2c",
    "VideoVAE": "lightning_modules.video_vae",
}
"""Folder of each codec NAME: ``module.py`` with the class NAME, ``codec.py`` with
NAMECodec and, if it can be told how to code, ``options.py`` with CodingOptions;
what decoders can be told too is in a base class of it, DecodingOptions."""

__all__ = ["CODECS", "load_codec", "read_checkpoint", *CODECS]


def coding_options() -> list[type]:
    """Return the dataclasses of what codecs can be told when they code.

    They import no torch.
    """
    return [*_options("CodingOptions"), Execution]


def decoding_options() -> list[type]:
    """Return those that decoders can be told too; the rest stands in the stream."""
    return [*_options("DecodingOptions"), DecodingExecution]


def _options(name: str) -> list[type]:
    paths = [f"{folder}.options" for folder in CODECS.values()]
    modules = [import_module(path) for path in paths if find_spec(path)]
    return [getattr(module, name) for module in modules if hasattr(module, name)]


def __getattr__(name: str) -> Any:
    if name not in CODECS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{CODECS[name]}.module"), name)


def load_codec(
    path: str | Path, device: "str | torch.device" = "cpu", dtype: Any = None
) -> "VideoCodec":
    """Load the network of a checkpoint that ``fit`` wrote, ready to code.

    Averaged weights are taken where the checkpoint has them.

    Args:
        path: A ``.ckpt`` file, a ``.safetensors`` file that ``export`` wrote, or the
            name of a model that ships; a file of that name counts before it.
        device: Where to put it.
        dtype: A torch dtype; ``None`` keeps float32.

    Raises:
        ValueError: There is no such file, it is no checkpoint of this suite, it was
            cut or has changed, or its contents do not fit this version of the codec.
    """
    import torch

    from lightning_modules.saved_file import fitting

    checkpoint = read_checkpoint(path)
    entry = checkpoint["codec"]
    with fitting(path, entry["name"]):
        kind, named = codec_class(entry["name"]), entry["architecture"]
        codec = kind(
            **{name: own for name, own in named.items() if name not in kind.former}
        )
        codec.name_as(named)
        codec.load_state_dict(codec_weights(checkpoint))
        codec.trained_with = dict(entry.get("training", {}))
        codec.take_tables(entry["tables"])
    codec.to(device=device, dtype=dtype or torch.float32).eval()
    codec.requires_grad_(False)
    return codec


def codec_class(name: str) -> "type[VideoCodec]":
    """Return the network's class of one of ``CODECS``."""
    kind: type[VideoCodec] = getattr(
        import_module(f"{CODECS[name]}.codec"), f"{name}Codec"
    )
    return kind


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what :func:`load_codec` takes; ``codec`` says whose it is.

    Raises:
        ValueError: There is no such file, it is no checkpoint of this suite, or it
            was cut or has changed since it was written.
    """
    path = find_model(path)
    if not path.is_file():
        raise ValueError(
            f"there is no checkpoint {path}: give the path of a .ckpt file, for "
            "example runs/NAME/STAGE/last.ckpt"
        )
    try:
        checkpoint = _read(path)
    except ValueError as error:
        raise ValueError(
            f"{path} {error}: restore it, or take another checkpoint of the run, such "
            "as the stage's best.ckpt or last.ckpt"
        ) from error
    try:
        CODECS[checkpoint["codec"]["name"]]
        dict(checkpoint["state_dict"])
    except Exception as error:
        raise ValueError(
            f"{path} is no checkpoint of this suite ({type(error).__name__}: {error})"
        ) from error
    return checkpoint


def _read(path: Path) -> dict[str, Any]:
    """Read a file of ``export``, or else of ``fit``."""
    from lightning_modules.exported import read_card, read_exported
    from lightning_modules.saved_file import read_saved

    found: dict[str, Any] = (
        read_saved(path) if read_card(path) is None else read_exported(path)
    )
    return found


def codec_weights(checkpoint: dict[str, Any]) -> "dict[str, torch.Tensor]":
    """Return the codec's weights of a checkpoint, averaged ones if it has them."""
    prefix = "codec."
    weights = {
        key.removeprefix(prefix): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith(prefix)
    }
    weights.update(checkpoint.get("ema", {}))
    return weights
