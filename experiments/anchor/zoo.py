"""Weights of CompressAI's models: which file they are in, and how they are loaded."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from experiments.anchor.settings import Preset
from lightning_modules.perceptual import hub_file
from lightning_modules.saved_file import read_saved

HASH_DIGITS = 8
"""Of the SHA-256 of a file, in the names of published files."""


@dataclass(frozen=True)
class Weights:
    """One file of weights.

    Attributes:
        file: Where it is.
        sha256: Of its bytes.
        published: Whether it is the file that CompressAI publishes, by the digits of
            its checksum that its name has; None for a file of one's own.
    """

    file: Path
    sha256: str
    published: bool | None

    def describe(self) -> dict[str, Any]:
        """Return its fields for the record."""
        return {**asdict(self), "file": str(self.file)}


def find_weights(
    preset: Preset, knob: str, rates: Mapping[float, str | None]
) -> dict[float, Weights]:
    """Return the weights of each rate.

    Args:
        preset: Names the model, and what it is trained for.
        knob: ``quality`` (published weights) or ``checkpoint`` (files as given).
        rates: What was given for each.

    Raises:
        ValueError: A file is not there. Nothing is downloaded.
    """
    found = {}
    for rate, given in rates.items():
        if given is not None:
            path = Path(given).absolute()
            if not path.is_file():
                raise ValueError(f"--checkpoint {rate:g}: there is no file {path}")
            found[rate] = Weights(path, _sha256(path), None)
            continue
        url = _zoo_url(preset, int(rate))
        path = hub_file(url.rpartition("/")[2])
        if not path.is_file():
            raise ValueError(
                f"--quality {rate:g} of {preset.name} is in {path.name}, which is not "
                f"in {path.parent}: get {url} and put it there, set TORCH_HOME to the "
                "folder that holds hub/checkpoints, or name a file with --checkpoint "
                "RATE=FILE"
            )
        digest = _sha256(path)
        named = path.name.partition(".")[0].rpartition("-")[2]
        found[rate] = Weights(path, digest, digest[:HASH_DIGITS] == named)
    return found


def _zoo_url(preset: Preset, quality: int) -> str:
    """Return where CompressAI's zoo has the file of a quality."""
    from lightning_modules.compressai import image, video

    files = {**image.model_urls, **video.model_urls}
    url: str = files[preset.run["model"]][preset.run["metric"]][quality]
    return url


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=1)
def load_model(model: str, weights: Weights, device: str) -> Any:
    """Build a model, ready to code.

    Sizes are those of the weights. Tables of the entropy coder are those of a published
    file, and built anew for others, whose own may be older than their weights.

    Args:
        model: Its name in CompressAI.
        weights: Where its weights are: a state dict, alone or in a training checkpoint.
        device: Where it runs.

    Returns:
        A ``CompressionModel`` in eval mode.

    Raises:
        ValueError: The file is damaged, or of another model.
    """
    from lightning_modules.compressai import MODELS, load_pretrained

    path = weights.file
    try:
        state = read_saved(path, mmap=False)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read as weights: it {_first_line(error)}"
        ) from error
    # As CompressAI's own scripts and trainer save them.
    for key in ("network", "state_dict", "model_state_dict"):
        if isinstance(state, dict) and key in state:
            state = state[key]
    try:
        network = MODELS[model].from_state_dict(load_pretrained(state))
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} has no weights of {model}: {_first_line(error)}"
        ) from error
    network.update(force=weights.published is None)
    return network.eval().to(device)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(":")
