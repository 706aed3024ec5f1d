"""The comparison of results whose BD-rate is known."""

import pytest

from experiments.compare.assemble import compare_results


@pytest.fixture(scope="session")
def compare():
    """Compare results with the one that is called ``a``."""

    def run(*results, anchor="a", **options):
        return compare_results(list(results), anchor, **options)

    return run


@pytest.fixture(scope="session")
def value():
    """Return a BD-rate of a comparison."""

    def of(comparison, kind, set=None, sequence=None, codec="b", metric="psnr_yuv"):
        return comparison.row(codec, metric, kind, set, sequence).rate.value

    return of
