"""Starting a run from another run's weights, with a report of what matched."""

from pathlib import Path

import torch

from lightning_modules import codec_weights
from lightning_modules.codec import VideoCodec


def init_from(codec: VideoCodec, path: str | Path) -> str:
    """Copy what fits of a checkpoint's weights into ``codec``.

    Args:
        codec: Gets the weights.
        path: A checkpoint of this suite (its averaged weights, if it has them), or a
            plain state dict.

    Returns:
        A report: how many were loaded, and which are missing, unexpected or of
        another shape.

    Raises:
        ValueError: The file cannot be read, or nothing in it matches.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"--init_from {path}: there is no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"--init_from {path}: not a checkpoint ({error})") from error
    given = codec_weights(checkpoint) if "state_dict" in checkpoint else checkpoint
    wanted = codec.state_dict()
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
    report = [f"init_from {path}: {len(fits)} of {len(wanted)} weights loaded"]
    for name, entries in groups.items():
        if entries:
            more = f" and {len(entries) - 5} more" if len(entries) > 5 else ""
            report.append(f"  {len(entries)} {name}: {', '.join(entries[:5])}{more}")
    if not fits:
        raise ValueError("\n".join([*report, "nothing matches: is it another codec?"]))
    codec.load_state_dict({**wanted, **{key: given[key] for key in fits}})
    return "\n".join(report)
