"""Correlations between the columns of a table with a row per variant, with intervals and p-values."""

import math
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from robust_flatness.analysis.coefficients import COEFFICIENTS, coefficient, weighted_line, weighted_partial
from robust_flatness.analysis.resampling import (
    RESAMPLES,
    Estimate,
    bca_interval,
    estimate,
    p_value,
    permutations,
    sign_flip_p,
)


def permutation_p(
    x: Sequence[float], y: Sequence[float], kind: str = "pearson", count: int = RESAMPLES
) -> float:
    """Two-sided p-value of a correlation under permutations of y; exact where n! <= `count`. For
    Kendall's tau it is scipy's, exact for few observations without ties, else by its normal limit."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if kind == "kendall":
        return float(stats.kendalltau(x, y).pvalue)
    if kind == "spearman":
        x, y = stats.rankdata(x), stats.rankdata(y)
    x, y = x - x.mean(), y - y.mean()
    norm = math.sqrt(x @ x * (y @ y))
    if not norm > 0:
        return math.nan
    orders, exact = permutations(len(x), count)
    return p_value(float(x @ y) / norm, y[orders] @ x / norm, exact)


def correlate(
    rows: pd.DataFrame, x: str, y: str, kind: str = "pearson", given: str | None = None,
    resamples: int = RESAMPLES, **settings: float,
) -> Estimate:  # fmt: skip
    """Correlation of two columns over the variants that have both; with `given` Pearson's or Spearman's
    partial correlation given that column (see `weighted_partial`).

    The p-value is of `permutation_p`; for a partial correlation the residuals of x and y given the third
    column are permuted (Freedman and Lane 1983). `rows` has the column `family`; with fewer than three
    variants (four for a partial correlation) all numbers are NaN.
    """
    names = [x, y, given] if given else [x, y]
    rows = rows.dropna(subset=names)
    families, values = rows["family"], [rows[name].to_numpy(float) for name in names]
    if len(rows) <= len(names):
        return Estimate(n=len(rows), families=families.nunique())
    if given is None:
        p = permutation_p(*values, kind, resamples)
    else:
        ranks = map(stats.rankdata, values) if kind == "spearman" else values
        p = permutation_p(*_residuals(*ranks), "pearson", resamples)

    def statistic(counts: np.ndarray) -> np.ndarray:
        return (
            COEFFICIENTS[kind](*values, counts) if given is None else weighted_partial(*values, counts, kind)
        )

    return estimate(statistic, families, p, resamples=resamples, **settings)


def _residuals(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> list[np.ndarray]:
    """Return what least-squares lines in `given` leave of x and y."""
    lines = [weighted_line(given, values, np.ones((1, len(given)))) for values in (x, y)]
    return [values - a - b * given for values, (a, b) in zip((x, y), lines, strict=True)]


def difference(
    rows: pd.DataFrame, x: str, other: str, y: str, kind: str, absolute: bool = False,
    resamples: int = RESAMPLES, **settings: float,
) -> Estimate:  # fmt: skip
    """Correlation of `x` with `y` minus that of `other` with `y` (Pearson's or Spearman's; of their absolute
    values if `absolute`), over the variants that have all three.

    The p-value (NaN if `absolute`) is of a sign-flip permutation test: with all three standardised (ranks for
    Spearman's), the difference is the mean of z_y (z_x - z_other), and were x and other exchangeable within a
    variant, the sign of each term would be random.
    """
    rows = rows.dropna(subset=[x, other, y])
    one, two, target = values = [rows[name].to_numpy(float) for name in (x, other, y)]
    n, weighted, size = len(rows), COEFFICIENTS[kind], np.abs if absolute else np.positive
    if n < 3:
        return Estimate(n=n, families=rows["family"].nunique())

    def statistic(counts: np.ndarray) -> np.ndarray:
        return size(weighted(one, target, counts)) - size(weighted(two, target, counts))

    if kind == "spearman":
        values = [stats.rankdata(value) for value in values]
    first, second, third = ((value - value.mean()) / (value.std() or math.nan) for value in values)
    p = math.nan if absolute else sign_flip_p(third * (first - second) / n, resamples)
    return estimate(statistic, rows["family"], p, resamples=resamples, **settings)


def granulated(
    rows: pd.DataFrame, x: str, y: str, numeric: Collection[str], resamples: int = RESAMPLES
) -> Estimate:
    """The granulated Kendall coefficient (Jiang et al. 2020, "Fantastic Generalization Measures", their
    psi for one axis at a time): Kendall's tau-b within each family in which one number is varied,
    averaged over families.

    The baseline is a setting of every family; families with fewer than three settings are left out. The
    interval resamples families, p is of the sign-flip permutation test of their coefficients; `n` counts the
    variants of the `families` that have a coefficient.
    """
    rows = rows.dropna(subset=[x, y])
    at, taus, used = rows["family"] == "at", [], set()
    for family in numeric:
        of_family = rows[(rows["family"] == family) | at]
        tau = coefficient(of_family[x], of_family[y], "kendall")
        if len(of_family) > at.sum() and math.isfinite(tau):
            taus.append(tau)
            used |= {*of_family.index}
    taus, count = np.array(taus), len(taus)
    if count == 0:
        return Estimate()

    def mean(counts: np.ndarray) -> np.ndarray:
        return counts @ taus / counts.sum(axis=1)

    by_family, p = bca_interval(mean, range(count), resamples), sign_flip_p(taus / count, resamples)
    return Estimate(float(taus.mean()), by_family=by_family, p=p, n=len(used), families=count)
