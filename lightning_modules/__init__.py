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
        path: A ``.ckpt`` file, a ``.safetensors`` file that ``export`` wrote, weights
            that were published for one of the codecs, or the name of a model that
            ships; a file of that name counts before it.
        device: Where to put it.
        dtype: A torch dtype; ``None`` keeps float32.

    Raises:
        ValueError: There is no such file, it is no checkpoint of this suite, it was
            cut or has changed, or its contents do not fit this version of the codec.
    """
    import torch

    path = find_model(path)
    contents = _read(path)
    codec = None if "codec" in contents else _published(path, contents)
    codec = codec or _trained(path, _checked(path, contents))
    codec.to(device=device, dtype=dtype or torch.float32).eval()
    codec.requires_grad_(False)
    return codec


def _trained(path: Path, checkpoint: dict[str, Any]) -> "VideoCodec":
    """Return the codec of a checkpoint that ``fit`` wrote."""
    from lightning_modules.saved_file import fitting

    entry = checkpoint["codec"]
    with fitting(path, entry["name"]):
        kind, named = codec_class(entry["name"]), entry["architecture"]
        weights = codec_weights(checkpoint)
        codec = kind(**kind.architecture_of(named, weights))
        codec.name_as(named)
        codec.load_state_dict(weights)
        codec.trained_with = dict(entry.get("training", {}))
        codec.take_tables(entry["tables"])
        # Only of exported files: how their makers found that they code best.
        codec.configure(**entry.get("coding", {}))
    return codec


def _published(path: Path, contents: dict[str, Any]) -> "VideoCodec | None":
    """Return the codec of weights that somebody published; ``None`` for others."""
    import torch

    from lightning_modules.released import state_dict_of

    _, weights = state_dict_of(contents)
    if not isinstance(weights, dict) or not weights:
        return None
    if not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
        return None
    try:
        for name in CODECS:
            if (codec := codec_class(name).from_released(weights, path)) is not None:
                return codec
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return None


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
    return _checked(path, _read(path))


def _read(path: Path) -> dict[str, Any]:
    """Return what a file holds, a checkpoint or a state dict of anyone's."""
    from lightning_modules.exported import read_card, read_exported
    from lightning_modules.saved_file import read_saved

    if not path.is_file():
        raise ValueError(
            f"there is no checkpoint {path}: give the path of a .ckpt file, for "
            "example runs/NAME/STAGE/last.ckpt"
        )
    try:
        exported = read_card(path) is not None
        contents = read_exported(path) if exported else read_saved(path, blanks=True)
    except ValueError as error:
        raise ValueError(
            f"{path} {error}: restore it, or take another checkpoint of the run, such "
            "as the stage's best.ckpt or last.ckpt"
        ) from error
    return contents if isinstance(contents, dict) else {}


def _checked(path: Path, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint, or raise ``ValueError`` if it is none that ``fit`` wrote."""
    try:
        CODECS[checkpoint["codec"]["name"]]
        dict(checkpoint["state_dict"])
    except Exception as error:
        raise ValueError(
            f"{path} is no checkpoint of this suite ({type(error).__name__}: {error})"
        ) from error
    return checkpoint


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
