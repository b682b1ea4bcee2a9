"""Correlations between the columns of a table with a row per variant, with intervals and p-values: for many
resamples at once, each given by the count of every observation."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from robust_flatness.analysis import resampling
from robust_flatness.analysis.resampling import RESAMPLES, Estimate, estimate, sign_flip_p


def weighted_pearson(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Pearson's r [B] of x [n] and y [n], with observation i repeated `counts[b, i]` times, or NaN."""
    # Standardise first: differences of large moments would cancel.
    x, y = ((values - values.mean()) / (values.std() or 1.0) for values in (x, y))
    moments = counts @ np.column_stack([x, y, x * x, y * y, x * y]) / counts.sum(axis=1, keepdims=True)
    mean_x, mean_y, xx, yy, xy = moments.T
    return _ratio(xy - mean_x * mean_y, xx - mean_x**2, yy - mean_y**2)


def _ratio(covariance: np.ndarray, variance_x: np.ndarray, variance_y: np.ndarray) -> np.ndarray:
    """Return covariance over standard deviations; NaN where a variance is zero up to rounding."""
    varies = (variance_x > 1e-12) & (variance_y > 1e-12)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(varies, np.clip(covariance / np.sqrt(variance_x * variance_y), -1, 1), np.nan)


def weighted_spearman(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Spearman's rho [B], Pearson's r of the midranks; arguments as in `weighted_pearson`."""
    total = counts.sum(axis=1)
    # A midrank minus the mean rank is half the sum of the signs of the differences to all values. It is given
    # in units of the sample's size, so that variances compare with 1.
    x, y = (counts @ np.sign(values - values[:, None]) / 2 / total[:, None] for values in (x, y))
    weighted = counts * x
    xy, xx = (np.einsum("bi,bi->b", weighted, values) for values in (y, x))
    yy = np.einsum("bi,bi,bi->b", counts, y, y)
    return _ratio(xy / total, xx / total, yy / total)


def weighted_kendall(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return Kendall's tau-b [B]; arguments as in `weighted_pearson`. With the signs s of all differences,
    tau-b = sum s_x s_y / sqrt(sum s_x^2 sum s_y^2)."""
    of_x, of_y = (np.sign(values[:, None] - values) for values in (x, y))
    products = of_x * of_y, of_x**2, of_y**2
    both, in_x, in_y = (np.einsum("bi,bi->b", counts @ pairs, counts) for pairs in products)
    total = counts.sum(axis=1) ** 2
    return _ratio(both / total, in_x / total, in_y / total)


#: The coefficients by name.
COEFFICIENTS = {"pearson": weighted_pearson, "spearman": weighted_spearman, "kendall": weighted_kendall}


def weighted_partial(
    x: np.ndarray, y: np.ndarray, given: np.ndarray, counts: np.ndarray, kind: str = "pearson"
) -> np.ndarray:
    """Return the partial correlation [B] of x and y given z = `given`, (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2)
    (1 - r_yz^2)), with r of the given kind; other arguments as in `weighted_pearson`."""
    weighted = COEFFICIENTS[kind]
    xy, xz, yz = weighted(x, y, counts), weighted(x, given, counts), weighted(y, given, counts)
    return _ratio(xy - xz * yz, 1 - xz**2, 1 - yz**2)


def coefficient(x: Sequence[float], y: Sequence[float], kind: str = "pearson") -> float:
    """Return a coefficient of `COEFFICIENTS` of the pairs without NaN; NaN with fewer than three pairs."""
    values = np.column_stack([x, y]).astype(float)
    x, y = values[np.isfinite(values).all(axis=1)].T
    return float(COEFFICIENTS[kind](x, y, np.ones((1, len(x))))[0]) if len(x) > 2 else math.nan


def permutation_p(x: np.ndarray, y: np.ndarray, kind: str = "pearson", count: int = RESAMPLES) -> float:
    """Return the two-sided p-value of a correlation under permutations of y; exact where n! <= `count`. For
    Kendall's tau it is scipy's, exact for few observations without ties, else by its normal limit."""
    if kind == "kendall":
        return float(stats.kendalltau(x, y).pvalue)
    x, y = _standardised(x, kind), _standardised(y, kind)
    orders, exact = resampling.permutations(len(x), count)
    return resampling.p_value(float(x @ y) / len(x), y[orders] @ x / len(x), exact)


def _standardised(values: np.ndarray, kind: str) -> np.ndarray:
    """Return values (ranks unless `kind` is pearson), scaled to mean 0 and variance 1; NaN if all equal."""
    values = values if kind == "pearson" else stats.rankdata(values)
    return (values - values.mean()) / (values.std() or math.nan)


def correlate(
    rows: pd.DataFrame, x: str, y: str, kind: str = "pearson", given: str | None = None,
    resamples: int = RESAMPLES,
) -> Estimate:  # fmt: skip
    """Estimate the correlation of two columns over the variants that have both; with `given` the
    partial correlation given that column (see `weighted_partial`).

    The p-value is that of `permutation_p`; for a partial correlation the residuals of x and y (unless
    Pearson's, of their ranks) given the third column are permuted (Freedman and Lane 1983). `rows` has the
    column `family`; with fewer than three variants (four for a partial correlation) all numbers are NaN.
    """
    names = [x, y, given] if given else [x, y]
    rows = rows.dropna(subset=names)
    values = rows[names].to_numpy(float).T
    if len(rows) <= len(names):
        return Estimate(n=len(rows), families=rows["family"].nunique())
    if given is None:
        statistic, p = partial(COEFFICIENTS[kind], *values), permutation_p(*values, kind, resamples)
    else:
        statistic = partial(weighted_partial, *values, kind=kind)
        *both, third = (_standardised(value, kind) for value in values)
        p = permutation_p(*(value - third * (third @ value) / len(rows) for value in both), count=resamples)
    return estimate(statistic, rows["family"], p, resamples=resamples)


def difference(
    rows: pd.DataFrame, x: str, other: str, y: str, kind: str, absolute: bool = False,
    resamples: int = RESAMPLES,
) -> Estimate:  # fmt: skip
    """Estimate the correlation of `x` with `y` minus that of `other` with `y` (Pearson's or Spearman's; of
    their absolute values if `absolute`), over the variants that have all three.

    The p-value (NaN if `absolute`) is from a sign-flip permutation test: with all three standardised (ranks
    for Spearman's), the difference is the mean of z_y (z_x - z_other), and were x and other exchangeable
    within a variant, the sign of each term would be random.
    """
    rows = rows.dropna(subset=[x, other, y])
    values = rows[[x, other, y]].to_numpy(float).T
    if len(rows) < 3:
        return Estimate(n=len(rows), families=rows["family"].nunique())

    def statistic(counts: np.ndarray) -> np.ndarray:
        first, second = (COEFFICIENTS[kind](value, values[2], counts) for value in values[:2])
        return np.abs(first) - np.abs(second) if absolute else first - second

    one, two, target = (_standardised(value, kind) for value in values)
    p = math.nan if absolute else sign_flip_p(target * (one - two) / len(rows), resamples)
    return estimate(statistic, rows["family"], p, resamples=resamples)


def granulated(
    rows: pd.DataFrame, x: str, y: str, numeric: Collection[str], resamples: int = RESAMPLES
) -> Estimate:
    """Estimate the granulated Kendall coefficient (Jiang et al. 2020, "Fantastic Generalization Measures",
    psi for one axis at a time): the mean of Kendall's tau-b within each family in which one number is varied.

    The baseline is a setting of every family; families with fewer than three settings are left out. The
    interval resamples families, the p-value is from a sign-flip permutation test of their coefficients; `n`
    counts the variants of the `families` that have a coefficient.
    """
    rows = rows.dropna(subset=[x, y])
    taus, used = [], set()
    for family in numeric:
        of_family = rows[rows["family"].isin([family, "at"])]
        tau = coefficient(of_family[x], of_family[y], "kendall")
        if family in {*of_family["family"]} and math.isfinite(tau):
            taus.append(tau)
            used |= {*of_family.index}
    return replace(resampling.mean_estimate(np.array(taus), range(len(taus)), resamples), n=len(used))
