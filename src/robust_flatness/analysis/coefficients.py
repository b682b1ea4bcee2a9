"""Correlation coefficients and least-squares lines of many resamples at a time, each given as the counts of
the observations."""

import math
from collections.abc import Sequence

import numpy as np


def weighted_pearson(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson's r of x [n] and y [n] with observation i counted `counts[b, i]` times: [B]. NaN where x or y
    does not vary."""
    # Centring first keeps the moments' differences accurate.
    x, y = ((values - values.mean()) / (values.std() or 1.0) for values in (x, y))
    moments = counts @ np.column_stack([x, y, x * x, y * y, x * y]) / counts.sum(axis=1, keepdims=True)
    mean_x, mean_y, xx, yy, xy = moments.T
    return _ratio(xy - mean_x * mean_y, xx - mean_x**2, yy - mean_y**2)


def _ratio(covariance: np.ndarray, variance_x: np.ndarray, variance_y: np.ndarray) -> np.ndarray:
    """Covariance over standard deviations; NaN where a variance is zero but for rounding."""
    varies = (variance_x > 1e-12) & (variance_y > 1e-12)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(varies, np.clip(covariance / np.sqrt(variance_x * variance_y), -1, 1), np.nan)


def weighted_spearman(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Spearman's rho, Pearson's r of the midranks, with observation i counted `counts[b, i]` times: [B]."""
    total = counts.sum(axis=1)
    # A midrank minus the mean rank is half the sum of the signs of the differences to all values. It is given
    # in units of the sample's size, so that variances compare with 1.
    x, y = (counts @ np.sign(values - values[:, None]) / 2 / total[:, None] for values in (x, y))
    weighted = counts * x
    xy, xx = (np.einsum("bi,bi->b", weighted, values) for values in (y, x))
    yy = np.einsum("bi,bi,bi->b", counts, y, y)
    return _ratio(xy / total, xx / total, yy / total)


def weighted_kendall(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Kendall's tau-b with observation i counted `counts[b, i]` times: [B]. With the signs s of all
    differences, tau-b = sum s_x s_y / sqrt(sum s_x^2 sum s_y^2)."""
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
    """Partial correlation of x and y given z: [B]. (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2)) with
    Pearson's or Spearman's coefficient r: the correlation of the residuals of x and y (of their ranks) given
    z."""
    weighted = COEFFICIENTS[kind]
    xy, xz, yz = weighted(x, y, counts), weighted(x, given, counts), weighted(y, given, counts)
    return _ratio(xy - xz * yz, 1 - xz**2, 1 - yz**2)


def coefficient(x: Sequence[float], y: Sequence[float], kind: str = "pearson") -> float:
    """Pearson's r, Spearman's rho or Kendall's tau-b over the observations that have both values; NaN with
    fewer than three."""
    values = np.column_stack([x, y]).astype(float)
    x, y = values[np.isfinite(values).all(axis=1)].T
    return float(COEFFICIENTS[kind](x, y, np.ones((1, len(x))))[0]) if len(x) > 2 else math.nan


def weighted_line(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares intercept and slope of y = a + b x, observation i counted `counts[b, i]` times: [B] each;
    NaN where x does not vary."""
    total = counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = counts @ x / total, counts @ y / total
        variance = counts @ (x * x) / total - mean_x**2
        slope = (counts @ (x * y) / total - mean_x * mean_y) / variance
    slope = np.where(variance > 1e-12 * max(float(np.var(x)), 1e-300), slope, np.nan)
    return mean_y - slope * mean_x, slope
