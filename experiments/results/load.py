"""Read a result file of any suite."""

from pathlib import Path

from experiments.results.compressai import from_compressai
from experiments.results.dcvc import from_dcvc, is_dcvc
from experiments.results.result import KIND, Result
from experiments.results.typed_json import ResultError, read_json


def load_any(path: Path) -> Result:
    """Read a result file, whose content tells if it is ours, DCVC's or CompressAI's.

    Raises:
        ResultError: It is none of them, or damaged.
    """
    data = read_json(path)
    if isinstance(data, dict) and data.get("schema") == KIND.schema:
        return Result.from_json(data, path)
    if isinstance(data, dict) and isinstance(data.get("results"), dict):
        return from_compressai(data, path)
    if is_dcvc(data):
        return from_dcvc(data, path)
    raise ResultError(
        f"{path} is no result file: not of this suite (schema {KIND.schema}), not of "
        "DCVC ({set: {sequence: {rate: {ave_all_frame_bpp: ...}}}}), not of CompressAI "
        "({name, results: {bpp: [...], psnr-rgb: [...]}})"
    )
