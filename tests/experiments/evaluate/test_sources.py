"""What all rates share of a source: found once, kept while there is room."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from callbacks.metrics.source_memory import SourceMemory, size_of
from datamodules.sequences.files import VideoSequence
from datamodules.sequences.find import find_sequences
from datamodules.writing import write_png
from experiments.evaluate import sources
from experiments.evaluate.job import Job, Rate
from experiments.evaluate.jobs import Waiting
from experiments.evaluate.options import JobOptions
from experiments.evaluate.sources import Source, Sources


@pytest.fixture
def pictures(tmp_path):
    """Two sequences of three PNG images."""
    for name in "ab":
        for number in range(3):
            picture = np.full((48, 64, 3), 50 * number, np.uint8)
            write_png(picture, tmp_path / name / f"{number}.png")
    return find_sequences([str(tmp_path)])


@pytest.fixture
def options(tmp_path):
    return JobOptions(sequences=("unused",), output=tmp_path / "a.json")


def count_reads(monkeypatch):
    reads, real = [], sources.read_codes
    monkeypatch.setattr(
        sources, "read_codes", lambda *a: reads.append(a[0].name) or real(*a)
    )
    return reads


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_frames_are_read_once_for_all_rates(pictures, options, monkeypatch):
    reads, kept = count_reads(monkeypatch), Sources()
    for sequence in (pictures[0], pictures[0], pictures[1], pictures[0]):
        passes = [list(kept.of(sequence, options).codes()) for _ in range(2)]
        assert len(passes[0]) == 3
        assert all(map(equal, *passes))
    # One is held at a time.
    assert reads == ["a", "b", "a"]
    assert kept.of(pictures[0], options).memory.nbytes == 3 * 48 * 64 * 3 // 2
    other = replace(options, max_frames=2)
    assert len(list(kept.of(pictures[0], other).codes())) == 2


def test_frames_that_do_not_fit_are_read_again(pictures, options, monkeypatch):
    reads = count_reads(monkeypatch)
    source = Source(pictures[0], options, room=3 * 3 * 48 * 64)
    assert [len(list(source.codes())) for _ in range(2)] == [3, 3]
    assert reads == ["a", "a"]
    assert not source.memory.nbytes


def test_a_pass_that_ends_early_keeps_nothing(pictures, options, monkeypatch):
    reads = count_reads(monkeypatch)
    source = Source(pictures[0], options, room=2**20)
    next(source.codes())
    assert len(list(source.codes())) == 3
    assert reads == ["a", "a"]


def test_nobody_changes_a_frame_for_the_next_rate(pictures, options):
    source = Source(pictures[0], options, room=2**20)
    list(source.codes())
    with pytest.raises(ValueError, match="read-only"):
        next(source.codes())[0][:] = 0


def test_a_memory_keeps_the_first_values_and_finds_the_others_again():
    memory, found = SourceMemory(2600), []

    def find(number):
        found.append(number)
        return [torch.full((100,), number), np.zeros(100, np.float32)]

    for _ in range(2):
        for number in range(3):
            value = memory.find(number, "x", lambda n=number: find(n))
            assert (value[0] == number).all()
    assert found == [0, 1, 2, 2]
    assert memory.nbytes == 2 * (800 + 400 + 64)
    assert size_of({"a": torch.zeros(2, device="meta")}) is None


def test_workers_go_on_with_their_own_sequence():
    def job(name, rate):
        sequence = VideoSequence("s", name, None, 8, 8, 25, 1)
        return Job(sequence, Rate(rate))

    jobs = [job(name, rate) for name in "abc" for rate in (1, 2)]
    waiting = Waiting(jobs)
    first, second = waiting.take(None), waiting.take(None)
    assert [first, second] == [job("a", 1), job("b", 1)]
    assert waiting.take(second) == job("b", 2)
    assert waiting.take(second) == job("c", 1)
    assert waiting.take(first) == job("a", 2)
    # Nothing else is left: two share the last one.
    assert waiting.take(first) == job("c", 2)
    assert waiting.take(first) is None
