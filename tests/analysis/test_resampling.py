"""Bootstrap intervals against scipy's, permutation tests against full enumeration."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from robust_flatness.analysis.coefficients import weighted_pearson, weighted_spearman
from robust_flatness.analysis.resampling import Interval, bca_interval, p_value, permutations, signs


@pytest.fixture
def sample():
    rng = np.random.default_rng(3)
    x = rng.normal(size=20)
    return x, 0.6 * x + rng.normal(size=20)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(weighted_pearson, stats.pearsonr), (weighted_spearman, stats.spearmanr)]
)
def test_bca_interval_is_scipys(sample, ours, theirs):
    x, y = sample
    expected = stats.bootstrap(
        (x, y),
        lambda a, b: theirs(a, b).statistic,
        paired=True,
        vectorized=False,
        method="BCa",
        n_resamples=999,
        rng=np.random.default_rng(0),
    ).confidence_interval
    found = bca_interval(lambda counts: ours(x, y, counts), len(x), resamples=999)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_copies_in_a_family_bring_no_certainty():
    """Five copies of each value: over variants the mean seems sharper than it is, over families not."""
    x = np.random.default_rng(0).normal(size=12)
    copies = np.repeat(x, 5)
    mean = lambda values: lambda counts: counts @ values / counts.sum(axis=1)  # noqa: E731
    honest = bca_interval(mean(x), 12)
    families = bca_interval(mean(copies), 60, np.repeat(np.arange(12), 5))
    variants = bca_interval(mean(copies), 60)
    # Ties fall on either side of the observed value by rounding: a resample or two more or less.
    assert tuple(families) == pytest.approx(tuple(honest), abs=0.01 * honest.width)
    assert variants.width < 0.6 * families.width


def test_a_statistic_that_never_varies_is_its_own_interval():
    found = bca_interval(lambda counts: np.ones(len(counts)), 8, resamples=100)
    assert found == Interval(1.0, 1.0)
    assert not found.low <= 0 <= found.high


def test_permutations_and_signs_are_complete_where_they_fit():
    orders, exact = permutations(4, 24)
    assert exact
    assert {*map(tuple, orders.tolist())} == {*itertools.permutations(range(4))}
    orders, exact = permutations(5, 24)
    assert not exact
    assert (np.sort(orders, axis=1) == np.arange(5)).all()
    flips, exact = signs(3, 8)
    assert exact
    assert len({*map(tuple, flips.tolist())}) == 8
    flips, exact = signs(4, 8)
    assert not exact
    assert set(flips.ravel().tolist()) == {1.0, -1.0}


def test_p_value_counts_both_tails():
    values = np.array([-3.0, -1.0, 0.5, 2.0, 3.0])
    assert p_value(2.5, values, exact=True) == 2 / 5
    assert p_value(2.5, values, exact=False) == 3 / 6
    assert math.isnan(p_value(math.nan, values, exact=True))
