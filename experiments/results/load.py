"""Read a result file of any suite."""

from pathlib import Path

from experiments.results.compressai import from_compressai, is_compressai
from experiments.results.dcvc import from_dcvc, is_dcvc
from experiments.results.result import KIND, Result
from experiments.results.stated import Statements
from experiments.results.typed_json import ResultError, read_json


def load_any(path: Path, statements: Statements | None = None) -> Result:
    """Read a result file, whose content tells if it is ours, DCVC's or CompressAI's.

    Args:
        path: The file.
        statements: What the user states that the others' files leave out.

    Raises:
        ResultError: It is none of them, or damaged.
        ValueError: Something is stated that the file says itself.
    """
    statements = statements or Statements()
    data = read_json(path)
    if isinstance(data, dict) and data.get("schema") == KIND.schema:
        return Result.from_json(data, path)
    if is_compressai(data):
        return from_compressai(data, path, statements)
    if is_dcvc(data):
        return statements.complete(from_dcvc(data, path))
    raise ResultError(
        f"{path} is no result file: not of this suite (schema {KIND.schema}), not of "
        "DCVC ({set: {sequence: {rate: {ave_all_frame_bpp: ...}}}}), not of CompressAI "
        "({name, results: {bpp: [...], psnr-rgb: [...]}})"
    )
