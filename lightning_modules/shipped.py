"""Trained models that lie in the package, by name: files of ``export``."""

from difflib import get_close_matches
from pathlib import Path

from lightning_modules.exported import Card, read_card

WEIGHTS = Path(__file__).parent / "weights"
SUFFIX = ".safetensors"


def shipped_models() -> dict[str, Path]:
    """Return the file of each model by its name."""
    paths = {path.stem: path for path in WEIGHTS.glob(f"*{SUFFIX}")}
    return dict(sorted(paths.items()))


def shipped_cards() -> dict[str, Card]:
    """Return what each model says of itself, by its name.

    Raises:
        ValueError: A file is none that ``export`` wrote: the package is damaged.
    """
    cards = {}
    for name, path in shipped_models().items():
        try:
            card = read_card(path)
        except ValueError as error:
            raise ValueError(f"{path} {error}: install the suite again") from error
        if card is None:
            raise ValueError(
                f"{path} is no file that export wrote: install the suite again"
            )
        cards[name] = card
    return cards


def find_model(path: str | Path) -> Path:
    """Return the file of a shipped model if that is what a name means.

    Args:
        path: A name without folder and suffix, of which no file is here; anything else
            is given back.

    Raises:
        ValueError: No model of that name ships; it names those that do.
    """
    path = Path(path)
    if path.name != str(path) or path.suffix or path.exists():
        return path
    models = shipped_models()
    if path.name in models:
        return models[path.name]
    close = get_close_matches(path.name.lower(), models, 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    known = f"models that ship: {', '.join(models)}" if models else "no model ships"
    raise ValueError(
        f"there is neither a file {path} nor a shipped model of that name{hint}; "
        f"{known}; else give the path of a checkpoint, for example "
        "runs/NAME/STAGE/last.ckpt"
    )


def model_of(codec: str, fingerprint: bytes, dtype: str) -> str | None:
    """Return the name of the shipped model that a stream was coded with, if one was.

    Args:
        codec: Name of its class, as the stream has it.
        fingerprint: Of the codec in ``dtype``.
        dtype: What it ran in.
    """
    for name, card in shipped_cards().items():
        own = card.fingerprints.get(dtype)
        if (f"{card.codec}Codec", own) == (codec, fingerprint.hex()):
            return name
    return None
