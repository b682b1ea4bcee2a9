"""Bootstrap intervals and permutation tests, vectorised over the resamples.

A bootstrap resample is a vector of counts: how often each observation was drawn. A statistic takes
counts of shape [B, n] and returns B values, so that 10,000 resamples are a few matrix products. To
resample whole families of variants (those of one family are not independent), families are drawn
and each variant counts as often as its family.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

NORMAL = NormalDist()

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
    """Which observation belongs to which group: [groups, n] of 0 and 1, groups as they appear."""
    names = list(dict.fromkeys(groups))
    return np.array([[float(group == name) for group in groups] for name in names])


@lru_cache(maxsize=8)
def resampled_counts(n: int, resamples: int, seed: int = 0) -> np.ndarray:
    """Counts [resamples, n] of `resamples` draws of n out of n with replacement.

    The draws are those of `scipy.stats.bootstrap` with the same seed.
    """
    drawn = np.random.default_rng(seed).integers(0, n, size=(resamples, n))
    flat = drawn + n * np.arange(resamples)[:, None]
    counts = np.bincount(flat.ravel(), minlength=resamples * n).reshape(resamples, n).astype(float)
    counts.flags.writeable = False
    return counts


def bca_interval(
    statistic: Statistic,
    n: int,
    groups: Sequence | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    r"""Bias-corrected and accelerated bootstrap interval (Efron 1987).

    With z0 = Phi^-1(share of resampled values below the observed one) and
    a = sum U^3 / (6 (sum U^2)^(3/2)), where U_i = mean(theta_(.)) - theta_(i) from leaving out
    observation (or family) i, the ends are the quantiles of the resampled values at
    Phi(z0 + (z0 + z) / (1 - a (z0 + z))) for z = Phi^-1((1 -+ level) / 2).

    Parameters
    ----------
    statistic
        Counts [B, n] -> values [B].
    n
        Number of observations.
    groups
        The group of each observation: whole groups are drawn and left out.

    Returns
    -------
    Interval
        The value itself where no resample differs from it (a perfect rank correlation); NaN with
        fewer than three observations or groups, or where resamples have no value.
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
    bias = NORMAL.inv_cdf(below)
    acceleration = np.sum(influence**3) / (6 * spread**1.5)
    ends = [bias + NORMAL.inv_cdf(share) for share in ((1 - level) / 2, (1 + level) / 2)]
    shares = [NORMAL.cdf(bias + end / (1 - acceleration * end)) for end in ends]
    return Interval(*np.quantile(values, shares).tolist())


def student_interval(values: Sequence[float], level: float = LEVEL) -> tuple[Interval, float]:
    """Interval of the mean of few independent values, and its two-sided p-value: Student's t with n - 1
    degrees of freedom. NaN with fewer than two values."""
    from scipy.special import stdtr

    values = np.asarray(values, float)
    n = len(values)
    if n < 2:
        return UNKNOWN, math.nan
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n)
    reach = t_quantile(level, n - 1) * error
    if error == 0:
        return Interval(mean, mean), 0.0 if mean else 1.0
    return Interval(mean - reach, mean + reach), float(2 * stdtr(n - 1, -abs(mean) / error))


def t_quantile(level: float, degrees: float) -> float:
    """The t with P(|T| <= t) = `level`; the normal's where the degrees of freedom are infinite."""
    from scipy.special import stdtrit

    share = (1 + level) / 2
    return NORMAL.inv_cdf(share) if math.isinf(degrees) else float(stdtrit(degrees, share))


def crossed_interval(
    values: np.ndarray, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> tuple[Interval, float]:
    r"""Interval of the mean over seeds and examples, and its two-sided p-value.

    Seeds and examples are drawn anew, each with replacement and independently, and every drawn seed is
    paired with every drawn example (Owen 2007, "The pigeonhole bootstrap": its variance is at least
    the true one, also where each seed has examples of its own). Resampling few seeds shows too small
    a spread: the part of each resampled mean that is due to the seeds drawn is multiplied by
    sqrt(S / (S - 1)) and by the ratio of Student's quantile with S - 1 degrees of freedom to the
    normal's. The interval is of percentiles; p is twice the smaller share of resampled means on one
    side of 0.

    Parameters
    ----------
    values
        [seeds, examples], without missing ones.

    Returns
    -------
    tuple
        NaN with fewer than two seeds; with one example, Student's interval over seeds.
    """
    count, examples = values.shape
    if count < 2 or examples < 2:
        return student_interval(values.mean(axis=1) if examples else (), level)
    of_seeds = resampled_counts(count, resamples, seed) / count
    of_examples = resampled_counts(examples, resamples, seed + 1) / examples
    means = np.einsum("bn,bn->b", of_seeds @ values, of_examples)
    due_to_seeds = of_seeds @ values.mean(axis=1) - values.mean()
    widening = math.sqrt(count / (count - 1)) * t_quantile(level, count - 1) / t_quantile(level, math.inf)
    means = means + (widening - 1) * due_to_seeds
    interval = Interval(*np.quantile(means, [(1 - level) / 2, (1 + level) / 2]).tolist())
    side = min(int(np.sum(means <= 0)), int(np.sum(means >= 0)))
    return interval, min(1.0, 2 * (side + 1) / (resamples + 1))


def wider(first: Interval, second: Interval) -> Interval:
    """The wider of two intervals; one that is unknown gives way."""
    if math.isnan(first.width) or math.isnan(second.width):
        return second if math.isnan(first.width) else first
    return first if first.width >= second.width else second


@lru_cache(maxsize=8)
def permutations(n: int, count: int, seed: int = 0) -> tuple[np.ndarray, bool]:
    """Orders [B, n] of n things: all n! of them (True) if that is no more than `count`, else
    `count` random ones (False)."""
    if n < 12 and math.factorial(n) <= count:
        return np.array([*itertools.permutations(range(n))]), True
    orders = np.tile(np.arange(n), (count, 1))
    return np.random.default_rng(seed).permuted(orders, axis=1), False


def signs(n: int, count: int, seed: int = 0) -> tuple[np.ndarray, bool]:
    """Signs [B, n] of +1 and -1: all 2^n (True) if that is no more than `count`, else random."""
    if n < 20 and 2**n <= count:
        return np.array([*itertools.product((1.0, -1.0), repeat=n)]), True
    return np.random.default_rng(seed).choice((1.0, -1.0), size=(count, n)), False


def p_value(observed: float, values: np.ndarray, exact: bool) -> float:
    """Two-sided p-value: the share of values at least as far from 0 as the observed one.

    Random resamples count the observed value as one of them, so that p is never 0.
    """
    if not math.isfinite(observed):
        return math.nan
    # Equal values may differ in their last bits, having been summed in another order.
    beyond = np.sum(np.abs(values) >= abs(observed) - 1e-12)
    return float(beyond / len(values) if exact else (beyond + 1) / (len(values) + 1))
