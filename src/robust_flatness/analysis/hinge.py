"""A bend of RErr over RLoss: a continuous hinge, its break and its slopes.

    RErr = a + b RLoss + c max(0, RLoss - t),

fitted by least squares, the break t over a grid. Any concave cloud has steeper slopes below a split
than above it, wherever the split lies; so the break itself is estimated, with an interval, and the hinge
has to fit better than a smooth curve.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from robust_flatness.analysis.resampling import (
    LEVEL,
    RESAMPLES,
    UNKNOWN,
    Interval,
    membership,
    resampled_counts,
)

#: Points of the grid of breaks; smallest number of different variants on either side of a break, and in all.
BREAKS = 101
LEAST_ON_A_SIDE = 3
LEAST = 4 * LEAST_ON_A_SIDE
RLOSS = "test_rloss_pgd"


@dataclass(frozen=True)
class Hinge:
    """Hinges fitted to resamples: break, slopes below and above it, each [B]; NaN where none fits."""

    at: np.ndarray
    below: np.ndarray
    above: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        """Slope above over slope below; infinite where RErr does not rise below the break."""
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(self.below > 0, self.above / self.below, np.inf)
        return np.where(np.isnan(self.at), np.nan, ratio)


def fit_hinge(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> Hinge:
    """The hinge of least squares with observation i counted `counts[b, i]` times."""
    centre = x.mean()
    x, y = x - centre, y - y.mean()
    ordered = np.unique(x)
    if len(ordered) < 2 * LEAST_ON_A_SIDE:
        return Hinge(*np.full((3, len(counts)), np.nan))
    grid = np.linspace(ordered[LEAST_ON_A_SIDE - 1], ordered[-LEAST_ON_A_SIDE], BREAKS)
    over = np.maximum(0, x[:, None] - grid)
    total = counts.sum(axis=1, keepdims=True)

    def mean(values: np.ndarray) -> np.ndarray:
        return counts @ values.reshape(len(x), -1) / total

    mx, my, mh = mean(x), mean(y), mean(over)
    xx, xy = mean(x * x) - mx**2, mean(x * y) - mx * my
    hh, xh = mean(over**2) - mh**2, mean(over * x[:, None]) - mx * mh
    hy = mean(over * y[:, None]) - mh * my
    determinant = xx * hh - xh**2
    drawn = (counts > 0).astype(float)
    sides = np.minimum(drawn @ (x[:, None] <= grid), drawn @ (x[:, None] > grid))
    fits = (sides >= 2) & (determinant > 1e-9 * np.var(x) ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        below = np.where(fits, (hh * xy - xh * hy) / determinant, np.nan)
        change = np.where(fits, (xx * hy - xh * xy) / determinant, np.nan)
    explained = np.where(fits, below * xy + change * hy, -np.inf)
    best = explained.argmax(axis=1)
    rows = np.arange(len(counts))
    at = np.where(fits[rows, best], grid[best] + centre, np.nan)
    return Hinge(at, below[rows, best], (below + change)[rows, best])


def smooth_over_hinge(x: np.ndarray, y: np.ndarray) -> float:
    """Residual sum of squares of a cubic over that of a hinge with a fitted break, which has as many
    parameters. Above 1 the hinge fits better, than a quadratic as well."""

    def residual(*columns: np.ndarray) -> float:
        design = np.column_stack([np.ones_like(x), *columns])
        return float(np.sum((y - design @ np.linalg.lstsq(design, y)[0]) ** 2))

    at = fit_hinge(x, y, np.ones((1, len(x)))).at[0]
    return residual(x, x**2, x**3) / residual(x, np.maximum(0, x - at))


@dataclass(frozen=True)
class Fitted:
    """The hinge of an experiment with percentile intervals of break and ratio of slopes, each the one that
    decides of those over variants and over families: the wider, and that of higher upper end."""

    at: float
    ratio: float
    smooth: float
    at_interval: Interval
    at_over: str
    ratio_interval: Interval
    ratio_over: str


def fitted(
    models: pd.DataFrame, measure: str, resamples: int = RESAMPLES, level: float = LEVEL
) -> Fitted | None:
    """The hinge of a measure over test RLoss, over the variants that have both; None with fewer than `LEAST`
    values of RLoss, or where no hinge fits."""
    rows = models.dropna(subset=[RLOSS, measure])
    x, y = (tuple(rows[column].astype(float)) for column in (RLOSS, measure))
    return _fitted(x, y, tuple(rows["family"]), resamples, level) if len(set(x)) >= LEAST else None


@lru_cache(maxsize=8)
def _fitted(x: tuple, y: tuple, families: tuple, resamples: int, level: float) -> Fitted | None:
    x, y = np.array(x), np.array(y)
    once = fit_hinge(x, y, np.ones((1, len(x))))
    if math.isnan(once.at[0]):
        return None
    units = membership(families)
    draws = {"variants": resampled_counts(len(x), resamples)}
    if len(units) >= 3:
        draws["families"] = resampled_counts(len(units), resamples) @ units
    hinges = {over: fit_hinge(x, y, counts) for over, counts in draws.items()}
    breaks = {over: _percentiles(hinge.at, level) for over, hinge in hinges.items()}
    ratios = {over: _percentiles(hinge.ratio, level) for over, hinge in hinges.items()}
    at_over = max(breaks, key=lambda over: breaks[over].width)
    ratio_over = max(ratios, key=lambda over: ratios[over].high)
    values = float(once.at[0]), float(once.ratio[0]), smooth_over_hinge(x, y)
    return Fitted(*values, breaks[at_over], at_over, ratios[ratio_over], ratio_over)


def _percentiles(values: np.ndarray, level: float) -> Interval:
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return UNKNOWN
    ends = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return Interval(*ends.tolist())
