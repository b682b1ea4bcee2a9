"""Least-squares lines with bootstrap bands."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robust_flatness.analysis.coefficients import complete, weighted_line
from robust_flatness.analysis.resampling import LEVEL, resampled_counts


@dataclass(frozen=True)
class Line:
    """A least-squares line with a pointwise bootstrap band, on a grid of x."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    slope: float


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line | None:
    """Line through the points, with a 95 % band from percentiles of lines through resampled variants; None
    with fewer than three points or without variation in x."""
    x, y = complete(x, y)
    if len(x) < 3 or np.ptp(x) == 0:
        return None
    grid = np.linspace(x.min(), x.max(), 50)
    intercept, slope = weighted_line(x, y, np.ones((1, len(x))))
    intercepts, slopes = weighted_line(x, y, resampled_counts(len(x), 999))
    lines = intercepts[:, None] + slopes[:, None] * grid
    lines = lines[np.isfinite(slopes)]
    low, high = np.quantile(lines, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Line(grid, intercept[0] + slope[0] * grid, low, high, float(slope[0]))
