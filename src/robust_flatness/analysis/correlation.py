"""Correlations of flatness with robustness: coefficient, interval, p-value, and linear fits."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from robust_flatness.analysis.resampling import (
    LEVEL,
    RESAMPLES,
    UNKNOWN,
    Interval,
    bca_interval,
    p_value,
    permutations,
    resampled_counts,
    signs,
    wider,
)

Coefficient = Callable[..., np.ndarray]


def weighted_pearson(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson's r of x [n] and y [n] with observation i counted `counts[b, i]` times: [B].

    NaN where x or y does not vary.
    """
    # Centring first keeps the moments' differences accurate.
    x, y = _standardised(x), _standardised(y)
    moments = counts @ np.column_stack([x, y, x * x, y * y, x * y]) / counts.sum(axis=1, keepdims=True)
    mean_x, mean_y, xx, yy, xy = moments.T
    return _ratio(xy - mean_x * mean_y, xx - mean_x**2, yy - mean_y**2)


def _standardised(x: np.ndarray) -> np.ndarray:
    deviation = x - x.mean()
    return deviation / (np.sqrt(np.mean(deviation**2)) or 1.0)


def _ratio(covariance: np.ndarray, variance_x: np.ndarray, variance_y: np.ndarray) -> np.ndarray:
    """Covariance over standard deviations. A resample of equal values varies by rounding only."""
    varies = (variance_x > 1e-12) & (variance_y > 1e-12)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(varies, np.clip(covariance / np.sqrt(variance_x * variance_y), -1, 1), np.nan)


def weighted_ranks(x: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Midranks [B, n] of x [n] in a sample that holds observation i `counts[b, i]` times.

    The rank of a value is (number of smaller ones) + (number of equal ones + 1) / 2.
    """
    ahead = (x[:, None] < x).astype(float) + (x[:, None] == x) / 2
    return counts @ ahead + 0.5


def weighted_spearman(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Spearman's rho, Pearson's r of the midranks, with observation i counted `counts[b, i]` times:
    [B]."""
    total = counts.sum(axis=1, keepdims=True)
    # Midranks of a sample of N have the mean (N + 1) / 2; in units of N, to compare with 1.
    x, y = ((weighted_ranks(values, counts) - (total + 1) / 2) / total for values in (x, y))
    weighted = counts * x
    xy, xx = (np.einsum("bi,bi->b", weighted, values) for values in (y, x))
    yy = np.einsum("bi,bi,bi->b", counts, y, y)
    total = total[:, 0]
    return _ratio(xy / total, xx / total, yy / total)


def weighted_kendall(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Kendall's tau-b with observation i counted `counts[b, i]` times: [B].

    With the signs s of all differences, tau-b = sum s_x s_y / sqrt(sum s_x^2 sum s_y^2).
    """
    of_x, of_y = (np.sign(values[:, None] - values) for values in (x, y))
    both, in_x, in_y = (
        np.einsum("bi,bi->b", counts @ pairs, counts) for pairs in (of_x * of_y, of_x**2, of_y**2)
    )
    total = counts.sum(axis=1) ** 2
    return _ratio(both / total, in_x / total, in_y / total)


#: The coefficients by name.
COEFFICIENTS: dict[str, Coefficient] = {
    "pearson": weighted_pearson,
    "spearman": weighted_spearman,
    "kendall": weighted_kendall,
}


def weighted_partial(
    x: np.ndarray, y: np.ndarray, given: np.ndarray, counts: np.ndarray, kind: str = "pearson"
) -> np.ndarray:
    """Partial correlation of x and y given a third measure z, of resamples: [B].

    (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2)) with Pearson's or Spearman's coefficient: the
    correlation of what a line in z (in its ranks) leaves of x and of y.
    """
    weighted = COEFFICIENTS[kind]
    xy, xz, yz = weighted(x, y, counts), weighted(x, given, counts), weighted(y, given, counts)
    return _ratio(xy - xz * yz, 1 - xz**2, 1 - yz**2)


def coefficient(x: Sequence[float], y: Sequence[float], kind: str = "pearson") -> float:
    """Pearson's r, Spearman's rho or Kendall's tau-b of two samples; NaN with fewer than three
    observations."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    return float(COEFFICIENTS[kind](x, y, np.ones((1, len(x))))[0]) if len(x) > 2 else math.nan


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


def finite(*columns: Sequence[float]) -> np.ndarray:
    """Where all columns have a value: [n] of bool."""
    return np.all([np.isfinite(np.asarray(column, float)) for column in columns], axis=0)


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
    kept = finite(x, y)
    x, y = np.asarray(x, float)[kept], np.asarray(y, float)[kept]
    families = [family for family, keep in zip(families, kept, strict=True) if keep]

    def statistic(counts: np.ndarray) -> np.ndarray:
        return COEFFICIENTS[kind](x, y, counts)

    settings = {"resamples": resamples, "level": level, "seed": seed}
    return Correlation(
        kind=kind,
        value=coefficient(x, y, kind),
        over_variants=bca_interval(statistic, len(x), **settings),
        over_families=bca_interval(statistic, len(x), families, **settings),
        p=permutation_p(x, y, kind, resamples, seed) if test else math.nan,
        n=len(x),
        families=len(set(families)),
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
    kept = finite(x, y, given)
    x, y, given = (np.asarray(values, float)[kept] for values in (x, y, given))
    families = [family for family, keep in zip(families, kept, strict=True) if keep]
    n, once = len(x), np.ones((1, int(kept.sum())))

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
    settings = {"resamples": resamples, "level": level, "seed": seed}
    return Correlation(
        kind=kind,
        value=float(statistic(once)[0]) if n > 3 else math.nan,
        over_variants=bca_interval(statistic, n, **settings),
        over_families=bca_interval(statistic, n, families, **settings),
        p=p,
        n=n,
        families=len(set(families)),
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
    kept = finite(x, y)
    x, y = np.asarray(x, float)[kept], np.asarray(y, float)[kept]
    families = np.asarray(families, object)[kept]
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


def weighted_line(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares intercept and slope of y = a + b x, observation i counted `counts[b, i]`
    times: [B] each; NaN where x does not vary."""
    total = counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = counts @ x / total, counts @ y / total
        variance = counts @ (x * x) / total - mean_x**2
        slope = (counts @ (x * y) / total - mean_x * mean_y) / variance
    slope = np.where(variance > 1e-12 * max(float(np.var(x)), 1e-300), slope, np.nan)
    return mean_y - slope * mean_x, slope


@dataclass(frozen=True)
class Line:
    """A least-squares line with a pointwise bootstrap band, on a grid of x."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    slope: float


def fit_line(
    x: Sequence[float],
    y: Sequence[float],
    resamples: int = 999,
    level: float = LEVEL,
    seed: int = 0,
    points: int = 50,
) -> Line | None:
    """Line through the points, band from the percentiles of lines through resampled variants.

    None with fewer than three points or without variation in x.
    """
    kept = finite(x, y)
    x, y = np.asarray(x, float)[kept], np.asarray(y, float)[kept]
    if len(x) < 3 or np.ptp(x) == 0:
        return None
    grid = np.linspace(x.min(), x.max(), points)
    intercept, slope = weighted_line(x, y, np.ones((1, len(x))))
    intercepts, slopes = weighted_line(x, y, resampled_counts(len(x), resamples, seed))
    lines = intercepts[:, None] + slopes[:, None] * grid
    lines = lines[np.isfinite(slopes)]
    low, high = np.quantile(lines, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Line(grid, intercept[0] + slope[0] * grid, low, high, float(slope[0]))
