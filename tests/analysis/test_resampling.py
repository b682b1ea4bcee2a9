"""Bootstrap intervals against scipy's, permutation tests against full enumeration."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from robust_flatness.analysis import resampling
from robust_flatness.analysis.correlation import weighted_pearson, weighted_spearman
from robust_flatness.analysis.rises import Components, mean_interval, power


@pytest.mark.parametrize(
    ("ours", "theirs"), [(weighted_pearson, stats.pearsonr), (weighted_spearman, stats.spearmanr)]
)
def test_bca_interval_is_scipys(ours, theirs):
    rng = np.random.default_rng(3)
    x = rng.normal(size=20)
    y = 0.6 * x + rng.normal(size=20)
    settings = {"paired": True, "vectorized": False, "n_resamples": 999, "rng": np.random.default_rng(0)}
    expected = stats.bootstrap((x, y), lambda a, b: theirs(a, b).statistic, **settings).confidence_interval
    found = resampling.bca_interval(lambda counts: ours(x, y, counts), range(20), resamples=999)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_copies_in_a_family_bring_no_certainty():
    """Five copies of each value: over variants the mean seems sharper than it is, over families not."""
    x = np.random.default_rng(0).normal(size=12)
    honest = resampling.mean_estimate(x, range(12)).interval
    found = resampling.mean_estimate(np.repeat(x, 5), np.repeat(np.arange(12), 5))
    # Ties fall on either side of the observed value by rounding: a resample or two more or less.
    assert tuple(found.by_family) == pytest.approx(tuple(honest), abs=0.01 * honest.width)
    assert found.by_variant.width < 0.6 * found.by_family.width
    assert (found.interval, found.over) == (found.by_family, "families")


def test_a_statistic_that_never_varies_is_its_own_interval():
    found = resampling.bca_interval(lambda counts: np.ones(len(counts)), range(8), resamples=100)
    assert found == resampling.Interval(1.0, 1.0)


def test_sign_flip_p_is_the_full_enumeration_or_near_it():
    terms = np.random.default_rng(0).normal(0.5, 1, 10)
    flipped = [abs(np.dot(signs, terms)) for signs in itertools.product((1, -1), repeat=10)]
    expected = np.mean([value >= abs(terms.sum()) - 1e-9 for value in flipped])
    assert resampling.sign_flip_p(terms, 1024) == expected
    assert resampling.sign_flip_p(terms, 1023) == pytest.approx(expected, abs=4 * math.sqrt(expected / 1023))


def test_p_value_counts_both_tails():
    values = np.array([-3.0, -1.0, 0.5, 2.0, 3.0])
    assert resampling.p_value(2.5, values, exact=True) == 2 / 5
    assert resampling.p_value(2.5, values, exact=False) == 3 / 6
    assert math.isnan(resampling.p_value(math.nan, values, exact=True))


def simulated(rng, components, seeds, examples, mean):
    scales = np.sqrt(components)
    effects = rng.normal(0, scales[0], (seeds, 1)) + rng.normal(0, scales[1], (1, examples))
    return mean + effects + rng.normal(0, scales[2], (seeds, examples))


CASES = [
    (5, 100, Components(0.09, 0.25, 1.0)),
    (5, 100, Components(0.0025, 4.0, 1.0)),
    (3, 100, Components(0.09, 0.25, 1.0)),
    (10, 200, Components(0.01, 0.1, 4.0)),
    (10, 200, Components(0.0, 0.0, 1.0)),
]


@pytest.mark.parametrize(("seeds", "examples", "components"), CASES)
def test_intervals_cover_at_their_level_and_exclude_zero_with_the_power_said(seeds, examples, components):
    """Within three standard deviations of 2000 intervals; more for variances of 0, never estimated below."""
    rng, mean = np.random.default_rng(0), 0.3
    intervals = [mean_interval(simulated(rng, components, seeds, examples, mean))[0] for _ in range(2000)]
    low, high = np.array(intervals).T
    assert 0.925 <= np.mean((low <= mean) & (mean <= high)) <= (0.975 if components.seeds else 0.995)
    assert power(components, mean, seeds, examples) == pytest.approx(np.mean(low > 0), abs=0.08)


def test_one_example_leaves_students_interval_over_seeds():
    values = np.random.default_rng(0).normal(1, 2, 5)
    interval, p = mean_interval(values[:, None])
    expected = stats.ttest_1samp(values, 0)
    assert interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert p == pytest.approx(expected.pvalue)
    assert np.isnan(mean_interval(values[:1, None])[0].width)


def test_values_that_are_equal_in_all_seeds_leave_the_paired_interval_over_examples():
    of_examples = np.random.default_rng(0).normal(0.3, 1, 200)
    interval, _ = mean_interval(np.tile(of_examples, (5, 1)))
    expected = stats.ttest_1samp(of_examples, 0).confidence_interval(0.95)
    assert interval == pytest.approx(tuple(expected))
