import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_modules import allocator

ROOT = Path(__file__).parents[2]
glibc = pytest.mark.skipif(not allocator._is_glibc(), reason="needs glibc")
FAULTS = """
import ctypes, resource, sys
from lightning_modules.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else False
lib = ctypes.CDLL(None)
lib.malloc.restype = ctypes.c_void_p
lib.free.argtypes = [ctypes.c_void_p]
def touch():
    block = lib.malloc(48 << 20)
    ctypes.memset(block, 1, 48 << 20)
    lib.free(block)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how, **environment):
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    kept, count = done.stdout.split()
    return kept == "True", int(count)


@glibc
def test_what_was_freed_is_not_faulted_in_again():
    assert faults("keep") == (True, pytest.approx(0, abs=100))
    kept, count = faults("leave")
    assert not kept and count > 100


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "65536"),
        ("MALLOC_MMAP_MAX_", "4"),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=65536"),
    ],
)
def test_what_the_environment_says_stays(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(ctypes, "CDLL", None)
    assert not allocator.keep_freed_memory()


@pytest.mark.parametrize("found", [AttributeError, ValueError, None, "musl"])
def test_other_libraries_are_left_as_they_are(monkeypatch, found):
    def confstr(name):
        if isinstance(found, type):
            raise found
        return found

    monkeypatch.setattr(os, "confstr", confstr)
    monkeypatch.setattr(ctypes, "CDLL", None)
    assert not allocator.keep_freed_memory()


@glibc
def test_a_glibc_that_maps_no_less_gets_what_it_takes(monkeypatch):
    asked = []

    class Older:
        @staticmethod
        def mallopt(name, value):
            asked.append((name, value))
            return int(name != allocator.M_MMAP_THRESHOLD or value <= 32 << 20)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Older)
    for name in (*allocator.USERS, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    assert allocator.keep_freed_memory()
    assert [value for _, value in asked] == [1 << 30, 32 << 20, 1 << 30]
