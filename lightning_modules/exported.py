"""A codec alone in one file of safetensors: rounded weights, tables, and a card.

Tensors are the codec's state dict under its own names, and ``tables/NAME/FIELD``: in
int32, or of cumulated frequencies their differences, in 16 bits: of each table those
that it uses, one table after the other (the first files hold rows of equal length, with
zeros). The file's metadata
has the card as JSON, and a digest of it and of every tensor: the format itself would
take a changed byte for another weight. Cards are read without torch.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lightning_modules.codec import VideoCodec

CARD = "learned_video_codec"
DIGEST = "digest"
TABLES = "tables"
FREQUENCIES = "frequencies"
DTYPES = ("float64", "float32", "bfloat16", "float16")
"""In which a codec can run; its fingerprint is that of weights rounded to it."""

_LENGTH = 8  # Bytes that say how long a file's header is.


@dataclass(frozen=True)
class Card:
    """What an exported file says of its codec.

    Attributes:
        codec: Its name in ``CODECS``.
        architecture: Arguments of its network.
        training: See :meth:`SavedModule.training_settings`.
        parameters: How many numbers were trained.
        dtype: What they are stored in.
        fingerprints: By the dtype that the codec runs in, in hexadecimal.
        data: What it was trained on, for readers; may be empty.
        licence: Of that data; may be empty.
        coding: How it codes unless told otherwise, where that is not the codec's own
            way: fields of its ``coding_options``.
    """

    codec: str
    architecture: dict[str, Any]
    training: dict[str, Any]
    parameters: int
    dtype: str
    fingerprints: dict[str, str]
    data: str
    licence: str
    coding: dict[str, Any] = field(default_factory=dict)


def read_card(path: str | Path) -> Card | None:
    """Return the card of an exported file, or ``None`` if it is no such file.

    Raises:
        ValueError: It is one, but lacks an entry. The text goes on from the file's
            name.
        OSError: It cannot be read.
    """
    text = _metadata(Path(path)).get(CARD)
    if text is None:
        return None
    try:
        card = json.loads(text)
        # Files of before say nothing of how they code.
        card = {"coding": {}, **card}
        return Card(**{each.name: card[each.name] for each in fields(Card)})
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"has a damaged card ({type(error).__name__}: {error})"
        ) from error


def _metadata(path: Path) -> dict[str, Any]:
    """Return a file's metadata; none if it is no file of safetensors."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        # Of other files these bytes are no length.
        if not 0 < length <= path.stat().st_size - _LENGTH:
            return {}
        # Every such file begins so; others may be large.
        if (begin := file.read(1)) != b"{":
            return {}
        try:
            header = json.loads(begin + file.read(length - 1))
        except ValueError:
            return {}
    found = header.get("__metadata__", {})
    return found if isinstance(found, dict) else {}


def read_exported(path: str | Path) -> dict[str, Any]:
    """Read an exported file as the checkpoint that ``load_codec`` takes.

    Raises:
        ValueError: It was cut, has changed, or lacks an entry. The text goes on from
            the file's name.
        OSError: It cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    card = read_card(path)
    if card is None:
        raise ValueError("is no file that export wrote")
    metadata = _metadata(Path(path))
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"was cut, or is damaged ({error})") from error
    if _digest(metadata[CARD], tensors) != metadata.get(DIGEST):
        raise ValueError("has changed since it was written")
    weights: dict[str, Any] = {}
    tables: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if rest:
            table, _, part = rest.rpartition("/")
            if part == FREQUENCIES:
                lengths = tensors.get(f"{TABLES}/{table}/length")
                part, tensor = "cdf", _cumulated(tensor, lengths)
            tables.setdefault(table, {})[part] = tensor
        else:
            weights[f"codec.{kind}"] = tensor
    return {
        "codec": {
            "name": card.codec,
            "architecture": card.architecture,
            "training": card.training,
            "tables": tables,
            "coding": card.coding,
        },
        "state_dict": weights,
        "hyper_parameters": {**card.architecture, **card.training},
    }


def _packed(cdf: "Tensor", lengths: "Tensor") -> "Tensor":
    """Return the frequencies of each table that it uses, in one row."""
    import torch

    frequencies = cdf.diff(dim=1).to(torch.uint16)
    return frequencies[_used(lengths, frequencies.shape[1])]


def _used(lengths: "Tensor", width: int) -> "Tensor":
    import torch

    return torch.arange(width) < lengths[:, None] - 1


def _cumulated(frequencies: "Tensor", lengths: "Tensor | None") -> "Tensor":
    """Return cumulated frequencies of packed ones, or of rows of equal length."""
    import torch

    whole = frequencies.to(torch.int32)
    if whole.ndim == 1 and lengths is not None:
        used = _used(lengths, int(lengths.max()) - 1)
        whole = torch.zeros_like(used, dtype=torch.int32).masked_scatter(used, whole)
    whole = whole.cumsum(dim=1, dtype=torch.int32)
    return torch.nn.functional.pad(whole, (1, 0))


def round_weights(codec: "VideoCodec", dtype: "torch.dtype") -> None:
    """Round parameters to a dtype, in place; the tables then belong to what is left.

    Buffers stay: among them are bounds such as 1e-9, which are 0 in float16. Tables
    stay, too, where no parameter changes.

    Args:
        codec: In float32, in evaluation mode.
        dtype: What a file will hold.

    Raises:
        ValueError: A parameter is not finite, or too large for the dtype.
    """
    import torch

    changed = False
    for name, parameter in codec.named_parameters():
        before = parameter.detach()
        after = before.to(dtype).to(before.dtype)
        if not after.isfinite().all():
            largest = before.abs().max().item()
            raise ValueError(
                f"the largest number of {name} is {largest:g}, which is not finite in "
                f"{str(dtype).removeprefix('torch.')}: choose float32, or an earlier "
                "checkpoint if training diverged"
            )
        changed |= not torch.equal(before, after)
        parameter.data.copy_(after)
    if changed:
        codec.tables = None


def write_exported(
    path: Path,
    codec: "VideoCodec",
    dtype: "torch.dtype",
    *,
    data: str = "",
    licence: str = "",
) -> Card:
    """Write a codec as it is after :func:`round_weights`, and return its card.

    Args:
        path: The file; callers see to it that it is whole or not there.
        codec: In float32. How it is configured to code is how a reader codes.
        dtype: What its parameters were rounded to.
        data: What it was trained on.
        licence: Of that data.

    Raises:
        ValueError: Its architecture or training is nothing that JSON can hold.
    """
    from safetensors.torch import save

    parameters = dict(codec.named_parameters(remove_duplicate=False))
    # Clones: weights that share memory are refused.
    tensors = {
        name: tensor.detach()
        .to("cpu", dtype if name in parameters else None, copy=True)
        .contiguous()
        for name, tensor in codec.state_dict().items()
    }
    for name, own in codec.tables.items():
        held = own.to_tensors()
        for part, tensor in held.items():
            if part == "cdf":
                part, tensor = FREQUENCIES, _packed(tensor, held["length"])
            tensors[f"{TABLES}/{name}/{part}"] = tensor
    card = Card(
        codec.shown_name,
        dict(codec.architecture),
        codec.trained_with,
        sum(each.numel() for each in codec.parameters()),
        str(dtype).removeprefix("torch."),
        _fingerprints(codec),
        data,
        licence,
        _own_coding(codec),
    )
    try:
        text = json.dumps(asdict(card), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"architecture or training of {codec.shown_name} does not fit a card "
            f"({error})"
        ) from error
    metadata = {"format": "pt", CARD: text, DIGEST: _digest(text, tensors)}
    # Its save_file makes files that only their owner may read.
    path.write_bytes(save(tensors, metadata))
    return Card(**json.loads(text))


def _own_coding(codec: "VideoCodec") -> dict[str, Any]:
    """Return how a codec is told to code, where that is not its class's way."""
    usual = asdict(codec.coding_options())
    told = asdict(codec.coding)
    return {name: value for name, value in told.items() if value != usual[name]}


def _fingerprints(codec: "VideoCodec") -> dict[str, str]:
    """Return the fingerprint that streams name, by the dtype that they are coded in."""
    import copy

    import torch

    tables = codec.tables
    found = {}
    for name in DTYPES:
        other = copy.deepcopy(codec).to(dtype=getattr(torch, name))
        other.tables = tables
        found[name] = other.fingerprint().hex()
    return found


def _digest(card: str, tensors: "Mapping[str, Tensor]") -> str:
    import torch

    digest = hashlib.blake2b(card.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
