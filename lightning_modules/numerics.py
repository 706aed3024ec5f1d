"""What the last digits of a network's results depend on, and how it is held.

Sums are rounded otherwise with other threads, other kernels and other instruction sets.
A bitstream therefore says what its encoder ran with, and a decoder does the same again:
threads, oneDNN and the networks' own choice of kernels at any time (:func:`recreated`),
the instruction set before torch is imported (:func:`pin`), which commands do and
libraries cannot.

``avx2`` is what nearly all x86-64 processors since about 2015 can do: torch's own
kernels, oneDNN and MKL are held to it. MKL obeys on Intel's processors; on those of
other makers it has kernels of its own, so the maker counts too. ``native-...`` is
whatever the machine chose, named by what torch calls it.

No torch is imported here before it is asked about.
"""

import os
import platform
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

PORTABLE = "avx2"
ISAS = (PORTABLE, "native-default", "native-avx2", "native-avx512", "native-other")
"""Instruction sets by their position in a header."""

MAKERS = ("other", "GenuineIntel", "AuthenticAMD")
"""Makers of processors by their position in a header."""

MAX_THREADS = 1024
DEFAULT_THREADS = 8
"""At most, where nobody asks for more: every decoder runs as many."""

PINS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ONEDNN_DEFAULT_FPMATH_MODE": "STRICT",
    "MKL_CBWR": "AVX2",
    # Or a team of threads may be smaller than asked for.
    "OMP_DYNAMIC": "FALSE",
    "OMP_THREAD_LIMIT": None,
}
"""Environment of ``avx2``; ``None`` stands for a variable that is not set."""

NO_ONEDNN = 128
NEWER_KERNELS = 64
_NUMBERS = struct.Struct("<HBBB")


class Kernels:
    """Which formulas and kernels the networks of this process choose.

    Each generation rounds otherwise. 0 is that of streams which do not name one; 1 has
    ``silu(4 x) / 4`` for UI2C's activation, and without gradients on a CPU oneDNN for
    1x1 convolutions and channels last in memory (:mod:`lightning_modules.layers`).

    Attributes:
        generation: 0 or 1. It counts for all threads, as torch's own switches do.
    """

    def __init__(self) -> None:
        self.generation = 1


KERNELS = Kernels()


@dataclass(frozen=True)
class NumericConfiguration:
    """What an encoder ran with.

    Attributes:
        threads: Of torch, 1 to 1024.
        onednn: Whether torch could use oneDNN.
        isa: Instruction set, one of ``ISAS``.
        maker: Of the processor, one of ``MAKERS``.
        torch: Its version, without what follows a plus sign.
        kernels: Generation of the networks' formulas and kernels (:class:`Kernels`).

    Raises:
        ValueError: A value is not one that a header can hold.
    """

    threads: int
    onednn: bool
    isa: str
    maker: str
    torch: str
    kernels: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MAX_THREADS:
            raise ValueError(
                f"{self.threads} threads are not possible: give 1 to {MAX_THREADS} "
                "(--threads, or OMP_NUM_THREADS)"
            )
        if self.isa not in ISAS or self.maker not in MAKERS:
            raise ValueError(f"{self.isa!r} of {self.maker!r} is unknown")
        if self.kernels not in (0, 1):
            raise ValueError(f"kernels of generation {self.kernels} are unknown")
        if not (self.torch.isascii() and 1 <= len(self.torch) <= 32):
            raise ValueError(f"{self.torch!r} is no version of torch")

    def to_bytes(self) -> bytes:
        """Return it as it stands in a header."""
        isa = ISAS.index(self.isa) | (0 if self.onednn else NO_ONEDNN)
        isa |= NEWER_KERNELS if self.kernels else 0
        numbers = self.threads, isa, MAKERS.index(self.maker), len(self.torch)
        return _NUMBERS.pack(*numbers) + self.torch.encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes) -> "NumericConfiguration":
        """Return what a header holds, all of it.

        Raises:
            ValueError: It is none.
            IndexError: It names something that this version does not know.
            struct.error: It is cut.
        """
        threads, isa, maker, length = _NUMBERS.unpack_from(data)
        torch = data[_NUMBERS.size :]
        if len(torch) != length:
            raise ValueError("the version of torch does not fill it")
        return cls(
            threads,
            not isa & NO_ONEDNN,
            ISAS[isa & ~(NO_ONEDNN | NEWER_KERNELS)],
            MAKERS[maker],
            torch.decode("ascii"),
            1 if isa & NEWER_KERNELS else 0,
        )

    def unlike(self, here: "NumericConfiguration", device: str = "cpu") -> list[str]:
        """Say what of this cannot be had here; threads and kernels always can.

        Args:
            here: What this process runs with.
            device: Type of device of the networks; a processor counts for its own.
        """
        found = []
        if self.torch != here.torch:
            found.append(f"with torch {self.torch}, this is {here.torch}")
        if device != "cpu":
            return found
        if self.isa != here.isa:
            late = self.isa == PORTABLE and _has_avx2()
            why = ", for torch was imported before the command" if late else ""
            found.append(
                f"with the instruction set {self.isa}, this is {here.isa}{why}"
            )
        if self.maker != here.maker:
            found.append(
                f"on a processor of {self.maker}, this is one of {here.maker}, for "
                "which MKL has other kernels"
            )
        return found

    def _shared_by_threads(self) -> str:
        """Say what all threads of a process have in common."""
        onednn = "with" if self.onednn else "without"
        return f"kernels of generation {self.kernels} {onednn} oneDNN"

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        onednn = "" if self.onednn else ", oneDNN off"
        return f"torch {self.torch}, {self.isa}, {threads}{onednn}"


def pin(isa: str) -> None:
    """Hold this process, and those that it starts, to an instruction set.

    It works until torch is imported; after that, and on a processor that lacks it,
    nothing changes, and :func:`current` tells so.

    Args:
        isa: ``avx2``; anything else leaves the environment as it is.
    """
    if isa != PORTABLE or "torch" in sys.modules or not _has_avx2():
        return
    for name, value in PINS.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def current() -> NumericConfiguration:
    """Return what this process runs with, as of now."""
    import torch

    onednn = _onednn()
    found = torch.backends.cpu.get_cpu_capability().lower()
    isa = f"native-{found}" if f"native-{found}" in ISAS else "native-other"
    held = all(os.environ.get(name) == value for name, value in PINS.items())
    if held and found == PORTABLE:
        isa = PORTABLE
    return NumericConfiguration(
        threads=torch.get_num_threads(),
        onednn=onednn.is_available() and onednn.enabled,
        isa=isa,
        maker=_cpu().get("vendor_id", "other"),
        torch=torch.__version__.partition("+")[0],
        kernels=KERNELS.generation,
    )


class _Shared:
    """Holds oneDNN and kernels, which all threads share, to an encoder's.

    Who leaves restores those of whoever came before him and is still there, in whatever
    order they leave; the last one restores what nobody asked for.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[object, tuple[int, NumericConfiguration]] = {}
        self._before = True, 1

    @contextmanager
    def held(self, wanted: NumericConfiguration) -> Iterator[None]:
        """Have all threads compute so within a block."""
        key = object()
        with self._lock:
            self._check(wanted)
            if not self._asked:
                self._before = _onednn().enabled, KERNELS.generation
            self._asked[key] = threading.get_ident(), wanted
            self._set(wanted.onednn, wanted.kernels)
        try:
            yield
        finally:
            with self._lock:
                del self._asked[key]
                for _, last in self._asked.values():
                    self._set(last.onednn, last.kernels)
                if not self._asked:
                    self._set(*self._before)

    def _check(self, wanted: NumericConfiguration) -> None:
        for thread, other in self._asked.values():
            same = (other.onednn, other.kernels) == (wanted.onednn, wanted.kernels)
            if thread != threading.get_ident() and not same:
                raise ValueError(
                    f"another thread codes with {other._shared_by_threads()}, and this "
                    f"stream needs {wanted._shared_by_threads()}, which is one for all "
                    "threads: wait until it is done, or code in another process"
                )

    @staticmethod
    def _set(onednn: bool, kernels: int) -> None:
        _onednn().enabled, KERNELS.generation = onednn, kernels


SHARED = _Shared()
"""The one of this process."""


@contextmanager
def recreated(wanted: NumericConfiguration | None) -> Iterator[None]:
    """Compute with an encoder's threads and kernels; then restore.

    Torch's number of threads is of each thread. oneDNN and kernels are the process's:
    threads that code at once must all be within a block of this, with the same.

    Args:
        wanted: The encoder's; ``None``, which it did not say, changes neither threads
            nor oneDNN. It then chose the kernels of generation 0.

    Raises:
        ValueError: Another thread computes with others now.
    """
    import torch

    wanted = wanted or replace(current(), kernels=0)
    before = torch.get_num_threads()
    with SHARED.held(wanted):
        torch.set_num_threads(wanted.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _onednn() -> Any:
    """Return torch's settings of oneDNN."""
    import torch

    return torch.backends.mkldnn


def default_threads() -> int:
    """Return torch's number of threads: OMP_NUM_THREADS or the cores, at most 8."""
    import torch

    return min(torch.get_num_threads(), DEFAULT_THREADS)


def _has_avx2() -> bool:
    """Whether the processor has AVX2 and FMA; torch would not ask before it uses them.

    Only Linux says so; elsewhere the environment stays as it is.
    """
    flags = _cpu().get("flags", "").split()
    return platform.machine() == "x86_64" and {"avx2", "fma"} <= set(flags)


@cache
def _cpu() -> dict[str, str]:
    """Return what Linux says of the first processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().split("\n\n")[0].splitlines() if path.exists() else []
    fields = (line.partition(":") for line in lines)
    found = {name.strip(): value.strip() for name, _, value in fields}
    if found.get("vendor_id") not in MAKERS:
        found["vendor_id"] = "other"
    return found
