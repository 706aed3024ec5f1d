"""Threads that code at once: what they share is the same for all, or refused."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from lightning_modules.numerics import KERNELS, current, recreated


def settings():
    return torch.get_num_threads(), torch.backends.mkldnn.enabled, KERNELS.generation


@pytest.fixture
def elsewhere():
    """Run functions one after the other in one other thread."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda function, *given: pool.submit(function, *given).result(timeout=10)


@pytest.mark.parametrize("other", [{"kernels": 0}, {"onednn": False}])
def test_another_threads_kernels_are_not_changed_under_it(elsewhere, other):
    here, before = current(), settings()

    def code():
        with recreated(replace(here, **other)):
            return settings()

    with recreated(here):
        with pytest.raises(ValueError, match="another thread codes with kernels of"):
            elsewhere(code)
        assert settings() == before
    wanted = replace(here, **other)
    assert elsewhere(code)[1:] == (wanted.onednn, wanted.kernels)
    assert settings() == before


def test_threads_that_need_the_same_share_it_until_the_last_is_done(elsewhere):
    older, before = replace(current(), kernels=0), settings()
    blocks = [recreated(older), recreated(replace(older, threads=older.threads + 1))]
    blocks[0].__enter__()
    elsewhere(blocks[1].__enter__)
    # Threads are of each thread.
    assert settings() == (before[0], before[1], 0)
    assert elsewhere(settings) == (before[0] + 1, before[1], 0)
    blocks[0].__exit__(None, None, None)
    assert KERNELS.generation == 0
    elsewhere(blocks[1].__exit__, None, None, None)
    assert settings() == elsewhere(settings) == before


def test_what_was_before_is_restored_in_whatever_order_blocks_end():
    before, here = settings(), current()
    first, second = (recreated(replace(here, kernels=k)) for k in (0, 1))
    first.__enter__()
    second.__enter__()
    assert KERNELS.generation == 1
    first.__exit__(None, None, None)
    assert KERNELS.generation == 1
    second.__exit__(None, None, None)
    assert settings() == before


def test_a_refused_thread_leaves_nothing_behind():
    ready, done = threading.Event(), threading.Event()

    def hold():
        with recreated(replace(current(), kernels=0)):
            ready.set()
            done.wait(10)

    before = settings()
    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait(10)
    with pytest.raises(ValueError, match="or code in another process"):
        with recreated(replace(current(), kernels=1)):
            pytest.fail("it must not begin")
    done.set()
    thread.join()
    assert settings() == before
