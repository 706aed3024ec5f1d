"""How the C library keeps memory that networks free on a CPU.

By default glibc gives large tensors back to the system when they are freed, and each
pass of a network faults them in again, page by page: 100,000 and more a pass of 832x480
pixels, 8 to 26 % of its CPU seconds.
"""

import ctypes
import os

KEPT = 1 << 30
"""Bytes: free memory beyond it goes back, and so does each larger block."""
MMAP_LIMIT = 32 << 20  # More an older glibc refuses.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

USERS = (
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_MMAP_MAX_",
    "MALLOC_TOP_PAD_",
)
"""Environment by which a user has chosen already; ``GLIBC_TUNABLES`` is another."""


def keep_freed_memory() -> bool:
    """Have glibc keep up to 1 GB of freed memory for this process.

    Peaks do not grow: the next tensors take what earlier ones left. Children that are
    forked inherit it. Another C library, and an environment that says how glibc
    allocates, are left as they are.

    Returns:
        Whether it does so now.
    """
    chosen = any(name in os.environ for name in USERS)
    if chosen or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    if not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mapped = mallopt(M_MMAP_THRESHOLD, KEPT) or mallopt(M_MMAP_THRESHOLD, MMAP_LIMIT)
    return bool(mallopt(M_TRIM_THRESHOLD, KEPT) and mapped)


def _is_glibc() -> bool:
    try:
        return "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (AttributeError, ValueError, OSError):
        return False
