"""Correlations of flatness with robustness: coefficient, intervals and p-value."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from robust_flatness.analysis.coefficients import (
    COEFFICIENTS,
    coefficient,
    complete,
    finite,
    weighted_line,
    weighted_partial,
)
from robust_flatness.analysis.resampling import (
    LEVEL,
    RESAMPLES,
    UNKNOWN,
    Interval,
    Intervals,
    bca_interval,
    bootstrap,
    p_value,
    permutations,
    sign_flip_p,
)

#: Smallest number of settings, the baseline included, for which a family has a coefficient.
LEAST_SETTINGS = 3


def permutation_p(
    x: Sequence[float], y: Sequence[float], kind: str = "pearson", count: int = RESAMPLES
) -> float:
    """Two-sided p-value of a correlation under permutations of y; exact where n! <= `count`. For
    Kendall's tau it is scipy's, exact for few observations without ties, else by its normal limit."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 3:
        return math.nan
    if kind == "kendall":
        return float(stats.kendalltau(x, y).pvalue)
    if kind == "spearman":
        x, y = stats.rankdata(x), stats.rankdata(y)
    x, y = x - x.mean(), y - y.mean()
    norm = math.sqrt(x @ x * (y @ y))
    if norm == 0:
        return math.nan
    orders, exact = permutations(len(x), count)
    return p_value(float(x @ y) / norm, y[orders] @ x / norm, exact)


def student_p(r: float, n: int) -> float:
    """Two-sided p-value of r from Student's t with n - 2 degrees of freedom, as in the paper."""
    if n < 3 or not math.isfinite(r):
        return math.nan
    return 0.0 if abs(r) >= 1 else float(2 * stats.t.sf(abs(r) * math.sqrt((n - 2) / (1 - r * r)), n - 2))


@dataclass(frozen=True)
class Correlation:
    """A correlation over `n` variants of `families` families, with bootstrap intervals; `p` is the
    permutation test's."""

    kind: str
    value: float
    intervals: Intervals
    p: float
    n: int
    families: int

    @property
    def p_student(self) -> float:
        return student_p(self.value, self.n)

    @property
    def interval(self) -> Interval:
        """The wider interval of those over variants and over families."""
        return self.intervals.widest


def correlate(
    x: Sequence[float], y: Sequence[float], families: Sequence, kind: str = "pearson",
    resamples: int = RESAMPLES, level: float = LEVEL, test: bool = True,
) -> Correlation:  # fmt: skip
    """Correlation of two measures over the variants that have both. `test` asks for the permutation test."""
    families = np.asarray(families, object)[finite(x, y)]
    x, y = complete(x, y)

    def statistic(counts: np.ndarray) -> np.ndarray:
        return COEFFICIENTS[kind](x, y, counts)

    intervals = bootstrap(statistic, families, resamples=resamples, level=level)
    p = permutation_p(x, y, kind, resamples) if test else math.nan
    return Correlation(kind, coefficient(x, y, kind), intervals, p, len(x), len(set(families)))


def partial(
    x: Sequence[float], y: Sequence[float], given: Sequence[float], families: Sequence,
    kind: str = "pearson", resamples: int = RESAMPLES, level: float = LEVEL,
) -> Correlation:  # fmt: skip
    """Partial correlation of two measures given a third (see `weighted_partial`), over variants. p-value: the
    residuals of y given the third measure are permuted (Freedman and Lane 1983)."""
    families = np.asarray(families, object)[finite(x, y, given)]
    x, y, given = complete(x, y, given)
    n, once = len(x), np.ones((1, len(x)))

    def statistic(counts: np.ndarray) -> np.ndarray:
        return weighted_partial(x, y, given, counts, kind)

    value = p = math.nan
    if n > 3:
        value = float(statistic(once)[0])
        first, second, third = (x, y, given) if kind == "pearson" else map(stats.rankdata, (x, y, given))
        residuals = []
        for values in (first, second):
            intercept, slope = weighted_line(third, values, once)
            residuals.append(values - intercept - slope * third)
        if np.all(np.isfinite(residuals)):
            p = permutation_p(*residuals, "pearson", resamples)
    intervals = bootstrap(statistic, families, resamples=resamples, level=level)
    return Correlation(kind, value, intervals, p, n, len(set(families)))


def granulated(
    x: Sequence[float], y: Sequence[float], families: Sequence[str], numeric: Collection[str],
    resamples: int = RESAMPLES,
) -> Correlation:  # fmt: skip
    """The granulated Kendall coefficient (Jiang et al. 2020, "Fantastic Generalization Measures", their
    psi for one axis at a time): Kendall's tau-b within each family in which one number is varied,
    averaged over families.

    The baseline is a setting of every family; families with fewer than three
    settings are left out. The interval resamples families, p is of random signs of their coefficients;
    `n` counts the variants of the `families` that have a coefficient.
    """
    families = np.asarray(families, object)[finite(x, y)]
    x, y = complete(x, y)
    at = families == "at"
    taus, used = [], at.copy()
    for family in numeric:
        rows = (families == family) | at
        if (families == family).any() and rows.sum() >= LEAST_SETTINGS:
            tau = coefficient(x[rows], y[rows], "kendall")
            if math.isfinite(tau):
                taus.append(tau)
                used |= rows
    taus, count = np.array(taus), len(taus)
    if count == 0:
        return Correlation("granulated", math.nan, Intervals(UNKNOWN, UNKNOWN), math.nan, 0, 0)

    def mean(counts: np.ndarray) -> np.ndarray:
        return counts @ taus / counts.sum(axis=1)

    intervals = Intervals(UNKNOWN, bca_interval(mean, count, resamples=resamples))
    p = sign_flip_p(taus / count, resamples)
    return Correlation("granulated", float(taus.mean()), intervals, p, int(used.sum()), count)
