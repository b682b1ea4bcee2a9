"""Coefficients under weights, p-values and fitted lines against direct computations."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from robust_flatness.analysis import correlation


@pytest.fixture
def data():
    rng = np.random.default_rng(5)
    x = rng.integers(0, 6, size=12).astype(float)  # ties
    return x, x + rng.normal(size=12).round(1)


@pytest.fixture
def counts():
    return np.random.default_rng(2).integers(0, 3, size=(40, 12)).astype(float)


SCIPYS = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}


@pytest.mark.parametrize("kind", correlation.COEFFICIENTS)
def test_counts_are_repetitions(data, counts, kind):
    x, y = data
    found, theirs = correlation.COEFFICIENTS[kind](x, y, counts), SCIPYS[kind]
    for value, times in zip(found, counts.astype(int), strict=True):
        assert value == pytest.approx(theirs(np.repeat(x, times), np.repeat(y, times)).statistic, abs=1e-12)


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_permutation_p_is_the_full_enumeration(kind, n):
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=n).round(1), rng.normal(size=n).round(1)
    observed = abs(correlation.coefficient(x, y, kind))
    orders = map(list, itertools.permutations(range(n)))
    expected = np.mean([abs(correlation.coefficient(x, y[o], kind)) >= observed - 1e-9 for o in orders])
    assert correlation.permutation_p(x, y, kind) == pytest.approx(expected)


def test_correlate_leaves_out_what_is_missing(data):
    x, y = data
    columns = {"x": [math.nan, *x, 1.0], "y": [1.0, *y, math.nan], "family": ["a", *"bbccddeeffgg", "h"]}
    found = correlation.correlate(pd.DataFrame(columns), "x", "y", resamples=200)
    assert found.n == 12
    assert found.families == 6
    assert found.value == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found.interval == max(found.by_variant, found.by_family, key=lambda interval: interval.width)


def test_partial_correlation_is_that_of_residuals(counts):
    rng = np.random.default_rng(3)
    x, y, given = rng.normal(size=(3, 12))
    x, y = x + given, y - given
    found = correlation.weighted_partial(x, y, given, counts)
    for value, times in zip(found, counts.astype(int), strict=True):
        repeated = [np.repeat(values, times) for values in (x, y, given)]
        design = np.column_stack([np.ones(times.sum()), repeated[2]])
        left = [values - design @ np.linalg.lstsq(design, values)[0] for values in repeated[:2]]
        assert value == pytest.approx(stats.pearsonr(*left).statistic, abs=1e-9)


def test_granulated_coefficient_is_the_mean_tau_within_families():
    """Each with the baseline. A family of a single setting, and one that is not numeric, are left out."""
    rows = [("at", 5, 5), ("a", 1, 9), ("a", 2, 8.5), ("a", 3, 8.8), ("b", 9, 1), ("b", 8, 2), ("c", 0, 0)]
    rows = pd.DataFrame([*rows, ("d", 7, 7), ("d", 8, 9)], columns=["family", "x", "y"])
    found = correlation.granulated(rows, "x", "y", ["a", "b", "c"])
    expected = [stats.kendalltau(part["x"], part["y"]).statistic for part in (rows[:4], rows.iloc[[0, 4, 5]])]
    assert found.value == pytest.approx(np.mean(expected))
    assert (found.n, found.families) == (6, 2)
    assert math.isnan(found.interval.width)
