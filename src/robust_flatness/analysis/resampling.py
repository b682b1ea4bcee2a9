"""Bootstrap intervals and permutation tests, vectorised over the resamples.

A bootstrap resample is a vector of counts: how often each observation was drawn. A statistic takes counts
[B, n] and returns B values, so that 10,000 resamples are a few matrix products. Variants of one family are
not independent: to resample families, each variant counts as often as its family is drawn.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES = 9999
#: Level of all confidence intervals, and the probabilities of their ends.
LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)

Statistic = Callable[[np.ndarray], np.ndarray]
"""Counts [B, n] -> values [B]; NaN where a resample has no value (say, one point only)."""


class Interval(NamedTuple):
    """A confidence interval; NaN where it cannot be computed."""

    low: float = math.nan
    high: float = math.nan

    @property
    def width(self) -> float:
        return self.high - self.low


UNKNOWN = Interval()


@dataclass(frozen=True)
class Estimate:
    """A statistic of `n` variants of `families` families, with a two-sided p-value and an interval: the wider
    (or only) one from resampling variants (`by_variant`) and families (`by_family`); `over` says which."""

    value: float = math.nan
    interval: Interval = UNKNOWN
    over: str = ""
    p: float = math.nan
    n: int = 0
    families: int = 0
    by_variant: Interval = UNKNOWN
    by_family: Interval = UNKNOWN


def membership(groups: Sequence) -> np.ndarray:
    """Return the indicator matrix [groups, n] of 0 and 1, groups in order of first appearance."""
    codes, names = pd.factorize(np.asarray(groups))
    return np.eye(len(names))[:, codes]


@lru_cache(maxsize=8)
def resampled_counts(n: int, resamples: int) -> np.ndarray:
    """Return counts [resamples, n] of n draws with replacement, as `scipy.stats.bootstrap` with seed 0."""
    drawn = np.random.default_rng(0).integers(0, n, size=(resamples, n))
    flat = drawn + n * np.arange(resamples)[:, None]
    counts = np.bincount(flat.ravel(), minlength=resamples * n).reshape(resamples, n).astype(float)
    counts.flags.writeable = False
    return counts


def bca_interval(statistic: Statistic, groups: Sequence, resamples: int = RESAMPLES) -> Interval:
    r"""Compute the bias-corrected and accelerated bootstrap interval (Efron 1987), resampling groups.

    With z0 = Phi^-1(share of resampled values below the observed one) and
    a = sum U^3 / (6 (sum U^2)^(3/2)), where U_i = mean(theta_(.)) - theta_(i) from leaving out
    group i, the ends are the quantiles of the resampled values at
    Phi(z0 + (z0 + z) / (1 - a (z0 + z))) for z = Phi^-1((1 -+ level) / 2).

    `groups` has the group of each observation, which are drawn and left out as a whole. The interval is the
    value itself where no resample differs from it (a perfect rank correlation), and NaN with fewer than three
    groups, or where most resamples have no value.
    """
    units = membership(groups)
    count = len(units)
    if count < 3:
        return UNKNOWN
    observed = float(statistic(np.ones((1, len(groups))))[0])
    drawn = statistic(resampled_counts(count, resamples) @ units), statistic((1 - np.eye(count)) @ units)
    values, left_out = (found[np.isfinite(found)] for found in drawn)
    if len(values) < resamples / 2 or len(left_out) < 2 or not math.isfinite(observed):
        return UNKNOWN
    if np.all(np.abs(values - observed) < 1e-12):
        return Interval(observed, observed)
    bias = stats.norm.ppf((np.mean(values < observed) + np.mean(values <= observed)) / 2)
    influence = left_out.mean() - left_out
    spread = np.sum(influence**2)
    if not math.isfinite(bias) or spread == 0:
        return UNKNOWN
    ends = bias + stats.norm.ppf(TAILS)
    shares = stats.norm.cdf(bias + ends / (1 - np.sum(influence**3) / (6 * spread**1.5) * ends))
    return Interval(*np.quantile(values, shares).tolist())


def percentile_interval(
    statistic: Statistic, groups: Sequence, resamples: int, method: str = "linear"
) -> Interval:
    """Return the 2.5 % and 97.5 % quantiles of a statistic, resampling groups, by a method of
    `numpy.quantile`; NaN with fewer than three groups."""
    units = membership(groups)
    if len(units) < 3:
        return UNKNOWN
    values = statistic(resampled_counts(len(units), resamples) @ units)
    return Interval(*np.nanquantile(values, TAILS, method=method).tolist())


def estimate(
    statistic: Statistic, families: Sequence, p: float = math.nan, interval: Callable = bca_interval,
    **settings: Any,
) -> Estimate:  # fmt: skip
    """Compute a statistic over variants of `families`, with the intervals `interval(statistic, groups, ...)`.
    In simulations with the 24 families of the catalogue the wider BCa interval at 95 % covers 89 to 96 %."""
    n = len(families)
    value = float(statistic(np.ones((1, n)))[0])
    by_variant, by_family = (interval(statistic, groups, **settings) for groups in (range(n), families))
    wider, over = by_variant, "variants"
    if by_family.width > by_variant.width or math.isnan(by_variant.width):
        wider, over = by_family, "families"
    return Estimate(value, wider, over, p, n, len(set(families)), by_variant, by_family)


@lru_cache(maxsize=8)
def permutations(n: int, count: int) -> tuple[np.ndarray, bool]:
    """Return permutations [B, n] and whether they are all n!; if not, they are `count` random ones."""
    if n < 12 and math.factorial(n) <= count:
        return np.array([*itertools.permutations(range(n))]), True
    orders = np.tile(np.arange(n), (count, 1))
    return np.random.default_rng(0).permuted(orders, axis=1), False


def sign_flip_p(terms: np.ndarray, count: int = RESAMPLES) -> float:
    """Return the two-sided p-value of the sign-flip permutation test of the sum of `terms` [n], such as
    paired differences: under the null hypothesis both signs are equally likely. Exact if 2^n <= `count`."""
    n = len(terms)
    exact = n < 20 and 2**n <= count
    if exact:
        flips = np.array([*itertools.product((1.0, -1.0), repeat=n)])
    else:
        flips = np.random.default_rng(0).choice((1.0, -1.0), size=(count, n))
    return p_value(float(terms.sum()), flips @ terms, exact)


def p_value(observed: float, values: np.ndarray, exact: bool) -> float:
    """Return the two-sided p-value: the share of values at least as far from 0 as the observed one. Random
    resamples count the observed value as one of them, so that p is never 0."""
    if not math.isfinite(observed):
        return math.nan
    # Equal values may differ in their last bits, having been summed in another order.
    beyond = np.sum(np.abs(values) >= abs(observed) - 1e-12)
    return float(beyond / len(values) if exact else (beyond + 1) / (len(values) + 1))


def mean_estimate(values: np.ndarray, families: Sequence, resamples: int = RESAMPLES) -> Estimate:
    """Estimate the mean of values [n], such as paired differences, with the p-value of `sign_flip_p`."""
    if len(values) == 0:
        return Estimate()
    p = sign_flip_p(values / len(values), resamples)
    return estimate(lambda counts: counts @ values / counts.sum(axis=1), families, p, resamples=resamples)
