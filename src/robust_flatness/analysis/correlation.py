"""Correlations of flatness with robustness: coefficient, interval and p-value."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robust_flatness.analysis.coefficients import (
    COEFFICIENTS,
    coefficient,
    complete,
    finite,
    weighted_line,
    weighted_partial,
    weighted_ranks,
)
from robust_flatness.analysis.resampling import (
    LEVEL,
    RESAMPLES,
    UNKNOWN,
    Interval,
    Statistic,
    bca_interval,
    p_value,
    permutations,
    signs,
    wider,
)


def permutation_p(
    x: Sequence[float], y: Sequence[float], kind: str = "pearson", count: int = RESAMPLES, seed: int = 0
) -> float:
    """Two-sided p-value of a correlation under permutations of y; exact where n! <= `count`. For
    Kendall's tau it is scipy's, exact for few observations without ties, else by its normal limit."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 3:
        return math.nan
    if kind == "kendall":
        from scipy.stats import kendalltau

        return float(kendalltau(x, y).pvalue)
    if kind == "spearman":
        once = np.ones((1, len(x)))
        x, y = weighted_ranks(x, once)[0], weighted_ranks(y, once)[0]
    x, y = x - x.mean(), y - y.mean()
    norm = math.sqrt(x @ x * (y @ y))
    if norm == 0:
        return math.nan
    orders, exact = permutations(len(x), count, seed)
    return p_value(float(x @ y) / norm, y[orders] @ x / norm, exact)


def student_p(r: float, n: int) -> float:
    """Two-sided p-value of r from Student's t with n - 2 degrees of freedom (as the paper has it)."""
    from scipy.special import stdtr

    if n < 3 or not math.isfinite(r):
        return math.nan
    return 0.0 if abs(r) >= 1 else float(2 * stdtr(n - 2, -abs(r) * math.sqrt((n - 2) / (1 - r * r))))


@dataclass(frozen=True)
class Correlation:
    """A correlation with its 95 % intervals and p-value.

    `interval` is the wider of `over_variants` and `over_families` and decides; `p` is the
    permutation test's (NaN if not asked for), `p_student` that of Student's t.
    """

    kind: str
    value: float
    over_variants: Interval
    over_families: Interval
    p: float
    n: int
    families: int

    @property
    def p_student(self) -> float:
        return student_p(self.value, self.n)

    @property
    def interval(self) -> Interval:
        return wider(self.over_variants, self.over_families)


def correlate(
    x: Sequence[float],
    y: Sequence[float],
    families: Sequence,
    kind: str = "pearson",
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    test: bool = True,
) -> Correlation:
    """Correlation of two measures over variants; rows where one is missing are left out. `test` asks
    for the permutation test."""
    families = np.asarray(families, object)[finite(x, y)]
    x, y = complete(x, y)
    return _with_intervals(
        lambda counts: COEFFICIENTS[kind](x, y, counts),
        families,
        {"resamples": resamples, "level": level, "seed": seed},
        kind=kind,
        value=coefficient(x, y, kind),
        p=permutation_p(x, y, kind, resamples, seed) if test else math.nan,
    )


def partial(
    x: Sequence[float],
    y: Sequence[float],
    given: Sequence[float],
    families: Sequence,
    kind: str = "pearson",
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Correlation:
    """Partial correlation of two measures given a third (see `weighted_partial`), over variants.

    p-value: what the third measure leaves of y is permuted (Freedman and Lane 1983).
    """
    families = np.asarray(families, object)[finite(x, y, given)]
    x, y, given = complete(x, y, given)
    n, once = len(x), np.ones((1, len(x)))

    def statistic(counts: np.ndarray) -> np.ndarray:
        return weighted_partial(x, y, given, counts, kind)

    p = math.nan
    if n > 3:
        values = (x, y, given)
        if kind == "spearman":
            values = tuple(weighted_ranks(value, once)[0] for value in values)
        left = []
        for value in values[:2]:
            intercept, slope = weighted_line(values[2], value, once)
            left.append(value - intercept - slope * values[2])
        p = permutation_p(*left, "pearson", resamples, seed) if np.all(np.isfinite(left)) else math.nan
    return _with_intervals(
        statistic,
        families,
        {"resamples": resamples, "level": level, "seed": seed},
        kind=kind,
        value=float(statistic(once)[0]) if n > 3 else math.nan,
        p=p,
    )


def _with_intervals(
    statistic: Statistic, families: Sequence, settings: dict[str, float], **known: Any
) -> Correlation:
    """The correlation of which `known` is all but its intervals, those of `statistic` over variants and
    over families."""
    return Correlation(
        over_variants=bca_interval(statistic, len(families), **settings),
        over_families=bca_interval(statistic, len(families), families, **settings),
        n=len(families),
        families=len(set(families)),
        **known,
    )


#: The least number of settings of a family, the baseline included, that has a coefficient of its own.
LEAST_SETTINGS = 3


def granulated(
    x: Sequence[float],
    y: Sequence[float],
    families: Sequence[str],
    numeric: Collection[str],
    baseline: str = "at",
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Correlation:
    """The granulated Kendall coefficient (Jiang et al. 2020, "Fantastic Generalization Measures", their
    psi for one axis at a time): Kendall's tau-b within each family in which one number is varied,
    averaged over families.

    A measure may order all variants well and still not see what one hyper-parameter does; this one
    asks within each. The baseline is a setting of every family; families with fewer than three settings
    are left out. The interval is over families, p is of random signs of their coefficients; `n` counts
    variants, `families` those that carry it.
    """
    families = np.asarray(families, object)[finite(x, y)]
    x, y = complete(x, y)
    at = families == baseline
    taus, used = [], at.copy()
    for family in numeric:
        rows = (families == family) | at
        if family != baseline and (families == family).any() and rows.sum() >= LEAST_SETTINGS:
            tau = coefficient(x[rows], y[rows], "kendall")
            if math.isfinite(tau):
                taus.append(tau)
                used |= rows
    taus, count = np.array(taus), len(taus)

    def statistic(counts: np.ndarray) -> np.ndarray:
        return counts @ taus / counts.sum(axis=1)

    if count == 0:
        return Correlation("granulated", math.nan, UNKNOWN, UNKNOWN, math.nan, 0, 0)
    flips, exact = signs(count, resamples, seed)
    mean = float(taus.mean())
    interval = bca_interval(statistic, count, resamples=resamples, level=level, seed=seed)
    return Correlation(
        kind="granulated",
        value=mean,
        over_variants=UNKNOWN,
        over_families=interval,
        p=p_value(mean, flips @ taus / count, exact),
        n=int(used.sum()),
        families=count,
    )
