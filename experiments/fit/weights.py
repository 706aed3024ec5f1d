"""Starting a run from another run's weights, with a report of what matched."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from experiments.cli.checkpoints import find_checkpoint
from lightning_modules import codec_weights
from lightning_modules.codec import VideoCodec
from lightning_modules.exported import read_card, read_exported
from lightning_modules.released import Released, state_dict_of
from lightning_modules.saved_file import UntrustedFileError, read_saved


def init_from(codec: VideoCodec, path: str | Path, min_share: float = 0.0) -> str:
    """Copy what fits of a checkpoint's weights into ``codec``.

    Args:
        codec: Gets the weights.
        path: A checkpoint of this suite (its averaged weights, if it has them; of a
            folder or a shipped model's name the one that :func:`find_checkpoint`
            finds), a file of ``export``, a plain state dict (also a ``.safetensors``
            file), or weights that the codec knows to be published for it.
        min_share: Least share of the codec's weights, 0 to 1, that must be loaded;
            published weights, which are checked as such, may be fewer.

    Returns:
        A report: how many were loaded, which are missing, unexpected or of another
        shape, and what of published weights was left out.

    Raises:
        ValueError: The file cannot be read, too little in it matches, it holds
            something else than tensors or numbers that are not finite, or published
            weights that do not fit.
    """
    if not 0 <= min_share <= 1:
        raise ValueError(f"--init_from_min_share is {min_share}, it must be 0 to 1")
    try:
        path = find_checkpoint(Path(path))
    except ValueError as error:
        raise ValueError(f"--init_from {error}") from error
    if not path.is_file():
        raise ValueError(f"--init_from {path}: there is no such file")
    checkpoint = _read(path)
    entry, weights = state_dict_of(checkpoint)
    _check_tensors(path, entry, weights)
    if "state_dict" in checkpoint:
        _check_tensors(path, "ema", checkpoint.get("ema", {}))
    wanted = codec.state_dict()
    source = ""
    try:
        released = codec.find_released(weights)
        if released is not None:
            given = released.weights
            source = f", released weights of {released.kind}"
            beside = codec.released_beside(weights, path)
            if beside and (other := _released_beside(codec, beside)):
                given = {**other.weights, **given}
                source += f", and of {other.kind} in {beside.name}"
        elif "state_dict" in checkpoint:
            given = codec_weights(checkpoint)
        else:
            given = weights
    except ValueError as error:
        raise ValueError(f"--init_from {path}: {error}") from error
    both = given.keys() & wanted.keys()
    fits = {key for key in both if given[key].shape == wanted[key].shape}
    groups = {
        "missing": sorted(wanted.keys() - given.keys()),
        "unexpected": sorted(given.keys() - wanted.keys()),
        "shape differs": [
            f"{key} {tuple(given[key].shape)} instead of {tuple(wanted[key].shape)}"
            for key in sorted(both - fits)
        ],
    }
    report = [f"init_from {path}{source}: {len(fits)} of {len(wanted)} weights loaded"]
    for name, entries in groups.items():
        if entries:
            more = f" and {len(entries) - 5} more" if len(entries) > 5 else ""
            report.append(f"  {len(entries)} {name}: {', '.join(entries[:5])}{more}")
    if released is not None and both - fits:
        fresh = ", ".join(sorted(both - fits))
        report.append(f"  newly initialised, by the latent's size: {fresh}")
    if released is not None and released.left_out:
        parts = (f"{name} ({n})" for name, n in sorted(released.left_out.items()))
        report.append(f"  left out of the file: {', '.join(parts)}")
    said = "; ".join(line.strip() for line in report)
    if not fits:
        raise ValueError(f"{said}; nothing matches: is it another codec?")
    if released is None and len(fits) < min_share * len(wanted):
        raise ValueError(
            f"{said}; that is {len(fits) / len(wanted):.1%}, less than "
            f"{min_share:.0%} of the weights: is it of another size or codec? "
            "--init_from_min_share 0 trains on from any share"
        )
    for key in sorted(fits):
        if not given[key].isfinite().all():
            raise ValueError(
                f"--init_from {path}: {key} holds numbers that are not finite, as "
                "after a training that diverged: take an earlier checkpoint"
            )
    codec.load_state_dict({**wanted, **{key: given[key] for key in fits}})
    return "\n".join(report)


def _released_beside(codec: VideoCodec, path: Path) -> Released | None:
    """Return what the other file of a published model has for the codec."""
    entry, weights = state_dict_of(_read(path))
    _check_tensors(path, entry, weights)
    return codec.find_released(weights)


def _check_tensors(path: Path, name: str, weights: Any) -> None:
    """Raise ``ValueError`` if an entry of a file is no mapping of names to tensors."""
    where = f"--init_from {path}:{f' {name!r}' if name else ''}"
    if not isinstance(weights, Mapping):
        raise ValueError(
            f"{where} is of type {type(weights).__name__}, not a state dict (names and "
            "their tensors)"
        )
    for key, value in weights.items():
        if not isinstance(key, str):
            raise ValueError(f"{where} has the key {key!r}, which is not a name (text)")
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{where} has under {key!r} a value of type {type(value).__name__}, "
                "not a tensor: a state dict has names and their tensors"
            )


def _read(path: Path) -> dict[str, Any]:
    try:
        if read_card(path) is not None:
            return read_exported(path)
    except ValueError as error:
        raise ValueError(f"--init_from {path} {error}: get the file again") from error
    try:
        checkpoint = read_saved(path, mmap=False, blanks=True)
    except UntrustedFileError as error:
        raise ValueError(
            f"--init_from {path}: {error}. If you trust the file, convert it once: "
            "python -c \"import torch; torch.save(torch.load('IN', "
            "weights_only=False)['state_dict'], 'OUT')\""
        ) from error
    except ValueError as error:
        safetensors = path.suffix == ".safetensors"
        named = "" if safetensors else " (of safetensors, it must be called so)"
        raise ValueError(
            f"--init_from {path}: {error}: restore it, or name another{named}"
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f"--init_from {path}: holds a {type(checkpoint).__name__}, not a state dict"
        )
    return checkpoint
