"""Reading files of ``torch.save``, only if they hold what was written.

Such a file is a ZIP archive, which has a CRC32 of each record; ``torch.load`` compares
none of them, so that a changed byte would become another weight without a word.
"""

import errno
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

_STEP = 1 << 22
_DIRECTORY = 0x10  # Of MS-DOS attributes.

# NotImplementedError, a RuntimeError, comes with flags that torch.save does not set.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
)


class UntrustedFileError(ValueError):
    """A file holds Python objects, and reading those can run any program."""


class Blank:
    """Stands where a file has a Python object: it takes its parts and keeps none."""

    def __init__(self, *parts: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_saved(path: str | Path, *, mmap: bool = True, blanks: bool = False) -> Any:
    """Read tensors and plain values, after a check of every byte of them.

    Args:
        path: A file of ``torch.save``. One from before it wrote archives has no
            checksum, and is read without a check; so is a ``.safetensors`` file.
        mmap: Whether tensors stay in the file until they are used.
        blanks: Whether Python objects of an archive, such as a training's options,
            become :class:`Blank` instead of an error. Nothing of theirs is run.

    Raises:
        UntrustedFileError: It holds Python objects besides tensors and plain values.
            With ``blanks``: such as no training writes, or it is no archive.
        ValueError: It was cut or has changed, or ``torch.save`` did not write it. The
            text of all errors goes on from the file's name.
        OSError: It cannot be read.
    """
    import torch

    if Path(path).suffix == ".safetensors":
        return _read_safetensors(Path(path))
    archive = check_saved(path)
    serialization = torch.serialization
    objects: list[str] = []
    try:
        if blanks and archive:
            objects = serialization.get_unsafe_globals_in_checkpoint(path)
        with serialization.safe_globals([(Blank, name) for name in objects]):
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=mmap and archive
            )
    except OSError:
        raise
    except Exception as error:
        found = re.search(r"(?i)unsupported (?:global|class|operand)", str(error))
        if found or objects:
            text = str(error)[found.start() :] if found else ""
            if named := re.search(r"GLOBAL (\S+\.\S+)", text):
                objects = [named[1]]
            listed = f" ({', '.join(objects[:3])})" if objects else ""
            raise UntrustedFileError(
                f"holds Python objects{listed} besides tensors, and reading those can "
                "run any program"
            ) from error
        raise ValueError(
            f"is a damaged checkpoint, or none ({_reason(error)})"
        ) from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"is not a whole .safetensors file ({error})") from error


def check_saved(path: str | Path) -> bool:
    """Return whether a file of ``torch.save`` is an archive, whose bytes are right.

    Raises:
        ValueError: As :func:`read_saved`.
        OSError: It cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"PK"):
        _check_records(path)
        return True
    if not start.startswith(b"\x80"):
        found = f"it begins with {start!r}" if start else "it is empty"
        raise ValueError(
            f"is not a checkpoint: {found}, so torch.save did not write it"
        )
    return False


def _check_records(path: Path) -> None:
    """Compare the CRC32 of each record; raise ``ValueError`` if one differs."""
    name = ""
    try:
        with zipfile.ZipFile(path) as archive:
            for record in archive.infolist():
                name = record.filename
                # PyTorch's reader would leave its tensor's memory as it was.
                if record.external_attr & _DIRECTORY:
                    raise zipfile.BadZipFile("it is marked as a directory")
                with archive.open(record) as file:
                    while file.read(_STEP):
                        pass
    except (*_BROKEN, OSError) as error:
        # A wrong place in the file; any other is of the disk.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        where = f"record {name}: " if name else ""
        raise ValueError(
            f"was cut, or has changed since it was written ({where}{_reason(error)})"
        ) from error


@contextmanager
def fitting(path: str | Path, codec: str) -> Iterator[None]:
    """Turn errors of a checkpoint that this version cannot use into one that names it.

    Args:
        path: The checkpoint.
        codec: Name of the codec that it is of.

    Raises:
        ValueError: The block raised any error but one of files or memory.
    """
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(
            f"{path} does not fit {codec} as this version has it ({_reason(error)}): "
            "use the version that wrote it, or another checkpoint"
        ) from error


def _reason(error: Exception) -> str:
    text = shorten(str(error), 200, placeholder=" ...")
    return f"{type(error).__name__}: {text}"
