"""Which machine it is: what a reader needs to compare its figures with others'."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from experiments.results.origin import versions


def describe_machine() -> dict[str, str | int]:
    """Return GPU, driver, processor, memory, versions, threads and date.

    Neither the machine's name in its network nor its user's is among them.
    """
    import torch

    found: dict[str, str | int] = {
        "gpu": "none",
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{_memory() / 2**30:.0f} GiB",
        **versions(),
        "threads": torch.get_num_threads(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(terse=True),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "gpus": torch.cuda.device_count(),
            "gpu_memory": f"{properties.total_memory / 2**30:.0f} GiB",
            "driver": _driver(),
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
        }
    return found


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (done.stdout.split() or ["unknown"])[0]


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
