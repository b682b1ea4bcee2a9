"""Bootstrap intervals and permutation tests, vectorised over the resamples.

A bootstrap resample is a vector of counts: how often each observation was drawn. A statistic takes
counts of shape [B, n] and returns B values, so that 10,000 resamples are a few matrix products. To
resample families of variants (variants of one family are not independent), families are drawn and each
variant counts as often as its family.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 9999
LEVEL = 0.95

Statistic = Callable[[np.ndarray], np.ndarray]
"""Counts [B, n] -> values [B]; NaN where a resample has no value (say, one point only)."""


class Interval(NamedTuple):
    """A confidence interval; NaN where it cannot be computed."""

    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low


UNKNOWN = Interval(math.nan, math.nan)


def membership(groups: Sequence) -> np.ndarray:
    """Indicator matrix [groups, n] of 0 and 1, groups in order of first appearance."""
    names = list(dict.fromkeys(groups))
    return np.array([[float(group == name) for group in groups] for name in names])


@lru_cache(maxsize=8)
def resampled_counts(n: int, resamples: int, seed: int = 0) -> np.ndarray:
    """Counts [resamples, n] of draws of n out of n with replacement, those of `scipy.stats.bootstrap`."""
    drawn = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
    flat = drawn + n * np.arange(resamples)[:, None]
    counts = np.bincount(flat.ravel(), minlength=resamples * n).reshape(resamples, n).astype(float)
    counts.flags.writeable = False
    return counts


def bca_interval(
    statistic: Statistic, n: int, groups: Sequence | None = None, resamples: int = RESAMPLES,
    level: float = LEVEL, seed: int = 0,
) -> Interval:  # fmt: skip
    r"""Bias-corrected and accelerated bootstrap interval (Efron 1987).

    With z0 = Phi^-1(share of resampled values below the observed one) and
    a = sum U^3 / (6 (sum U^2)^(3/2)), where U_i = mean(theta_(.)) - theta_(i) from leaving out
    observation (or group) i, the ends are the quantiles of the resampled values at
    Phi(z0 + (z0 + z) / (1 - a (z0 + z))) for z = Phi^-1((1 -+ level) / 2).

    `groups`, the group of each of the `n` observations, are resampled and left out as a whole. The interval
    is the value itself where no resample differs from it (a perfect rank correlation), and NaN with fewer
    than three observations or groups, or where most resamples have no value.
    """
    units = np.eye(n) if groups is None else membership(groups)
    count = len(units)
    if count < 3:
        return UNKNOWN
    counts = resampled_counts(count, resamples, seed)
    values = statistic(counts if groups is None else counts @ units)
    values = values[np.isfinite(values)]
    observed = float(statistic(np.ones((1, n)))[0])
    left_out = statistic((1 - np.eye(count)) @ units)
    left_out = left_out[np.isfinite(left_out)]
    if len(values) < resamples / 2 or len(left_out) < 2 or not math.isfinite(observed):
        return UNKNOWN
    if np.all(np.abs(values - observed) < 1e-12):
        return Interval(observed, observed)
    below = (np.mean(values < observed) + np.mean(values <= observed)) / 2
    influence = left_out.mean() - left_out
    spread = np.sum(influence**2)
    if not 0 < below < 1 or spread == 0:
        return UNKNOWN
    bias = stats.norm.ppf(below)
    acceleration = np.sum(influence**3) / (6 * spread**1.5)
    ends = bias + stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    shares = stats.norm.cdf(bias + ends / (1 - acceleration * ends))
    return Interval(*np.quantile(values, shares).tolist())


class Intervals(NamedTuple):
    """Bootstrap intervals of one statistic, resampling variants and resampling families."""

    variants: Interval
    families: Interval

    @property
    def widest(self) -> Interval:
        """The wider of the two, or the one that is known, which is shown and decides."""
        wider = self.variants.width >= self.families.width or math.isnan(self.families.width)
        return self.variants if wider and not math.isnan(self.variants.width) else self.families

    @property
    def over(self) -> str:
        """What the wider one resamples."""
        return "families" if self.widest is self.families else "variants"


def bootstrap(statistic: Statistic, families: Sequence, **settings: float) -> Intervals:
    """Compute the BCa intervals of a statistic over variants, given the family of each. All intervals over
    variants, in figures, tables and verdicts, come from here.

    In simulations with the 24 families of the catalogue the wider 95 % interval covers 89 to 96 %. `settings`
    are `resamples`, `level` and `seed` of `bca_interval`.
    """
    n = len(families)
    return Intervals(bca_interval(statistic, n, **settings), bca_interval(statistic, n, families, **settings))


@lru_cache(maxsize=8)
def permutations(n: int, count: int) -> tuple[np.ndarray, bool]:
    """Orders [B, n] of n things: all n! of them (True) if that is no more than `count`, else
    `count` random ones (False)."""
    if n < 12 and math.factorial(n) <= count:
        return np.array([*itertools.permutations(range(n))]), True
    orders = np.tile(np.arange(n), (count, 1))
    return np.random.default_rng(0).permuted(orders, axis=1), False


def signs(n: int, count: int) -> tuple[np.ndarray, bool]:
    """Signs [B, n] of +1 and -1: all 2^n (True) if that is no more than `count`, else random."""
    if n < 20 and 2**n <= count:
        return np.array([*itertools.product((1.0, -1.0), repeat=n)]), True
    return np.random.default_rng(0).choice((1.0, -1.0), size=(count, n)), False


def sign_flip_p(terms: np.ndarray, count: int = RESAMPLES) -> float:
    """Two-sided p-value of the sum of `terms` [n] under random signs."""
    flips, exact = signs(len(terms), count)
    return p_value(float(terms.sum()), flips @ terms, exact)


def p_value(observed: float, values: np.ndarray, exact: bool) -> float:
    """Two-sided p-value: the share of values at least as far from 0 as the observed one. Random resamples
    count the observed value as one of them, so that p is never 0."""
    if not math.isfinite(observed):
        return math.nan
    # Equal values may differ in their last bits, having been summed in another order.
    beyond = np.sum(np.abs(values) >= abs(observed) - 1e-12)
    return float(beyond / len(values) if exact else (beyond + 1) / (len(values) + 1))
