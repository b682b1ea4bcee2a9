"""The bend of RErr over RLoss: a continuous hinge, its break and its slopes.

    RErr = a + b RLoss + c max(0, RLoss - t),

fitted by least squares, the break t over a grid. Any concave cloud is steeper below a split than above it;
so the break itself is estimated, with an interval, and the hinge has to fit better than a smooth curve.
"""

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from robust_flatness.analysis.evidence import RLOSS
from robust_flatness.analysis.resampling import RESAMPLES, UNKNOWN, Estimate, estimate, percentile_interval

#: Points of the grid of breaks; smallest number of values of RLoss on either side of a break, and in all.
BREAKS = 101
LEAST_ON_A_SIDE = 3
LEAST = 4 * LEAST_ON_A_SIDE


def fit_hinge(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit hinges to x [n] and y [n] by least squares, observation i counted `counts[b, i]` times. Returns the
    break and the slope above over the slope below it, infinite where y does not rise below: [B] each."""
    centre = x.mean()
    x, y = x - centre, y - y.mean()
    ordered = np.unique(x)
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
        ratio = np.where(below <= 0, np.inf, (below + change) / below)
    explained = np.where(fits, below * xy + change * hy, -np.inf)
    best = np.arange(len(counts)), explained.argmax(axis=1)
    at = np.where(fits[best], grid[best[1]] + centre, np.nan)
    return at, ratio[best]


def smooth_over_hinge(x: np.ndarray, y: np.ndarray, at: float) -> float:
    """Return the residual sum of squares of a cubic divided by that of a hinge with its break at `at`, which
    has as many parameters: above 1 the hinge fits better."""

    def residual(*columns: np.ndarray) -> float:
        design = np.column_stack([np.ones_like(x), *columns])
        return float(np.sum((y - design @ np.linalg.lstsq(design, y)[0]) ** 2))

    return residual(x, x**2, x**3) / residual(x, np.maximum(0, x - at))


def fitted(models: pd.DataFrame, measure: str, resamples: int = RESAMPLES) -> dict[str, Estimate]:
    """Fit the hinge of a measure over test RLoss. Returns its `break`; the ratio of its `slopes`, above over
    below, with that of the two intervals that ends higher; and as its `fit` the residuals of a cubic over
    those of the hinge. Empty with fewer than `LEAST` values of RLoss."""
    rows = models.dropna(subset=[RLOSS, measure])
    x, y = rows[[RLOSS, measure]].to_numpy(float).T
    if rows[RLOSS].nunique() < LEAST:
        return {}
    # "nearest", since ratios may be infinite.
    settings = {"interval": percentile_interval, "resamples": resamples, "method": "nearest"}
    at = estimate(lambda counts: fit_hinge(x, y, counts)[0], rows["family"], **settings)
    ratio = estimate(lambda counts: fit_hinge(x, y, counts)[1], rows["family"], **settings)
    interval, over = ratio.by_variant, "variants"
    if ratio.by_family.high > ratio.by_variant.high:
        interval, over = ratio.by_family, "families"
    smooth = replace(at, value=smooth_over_hinge(x, y, at.value), interval=UNKNOWN, over="")
    return {"break": at, "slopes": replace(ratio, interval=interval, over=over), "fit": smooth}


def kink(models: pd.DataFrame) -> float:
    """Return the loss ln K of a uniform guess among K classes (10 where the table does not say), at which
    RErr over RLoss bends according to the paper."""
    classes = models.get("classes", pd.Series(dtype=float)).dropna()
    return math.log(classes.iloc[0] if len(classes) else 10)
