"""Density of the eigenvalues of the Hessian, on a logarithmic axis."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from robust_flatness.measures.base import LOSSES
from robust_flatness.plotting import style

#: Lower axis limit as a fraction of the highest density: below one eigenvalue in ten million.
LOWEST = 1e-9
NOTE = (
    "Density of the eigenvalues of the Hessian on training examples unless stated, by stochastic Lanczos "
    "quadrature: the integral over an interval is the share of eigenvalues in it, each spread to a Gaussian. "
    "The tall peak holds the eigenvalues near 0; the farther right the last one, the sharper the minimum."
)


def densities(records: pd.DataFrame, looks: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw a panel for each loss and split, and in it a curve for each network: `looks` by its name."""
    rows = records[records["metric"] == "density"].dropna(subset=["value"])
    rows = rows.assign(eigenvalue=rows["coordinate"].astype(float))
    cells = list(rows.groupby(["split", "loss"], sort=False))
    figure, panels = style.panels(len(cells), min(len(cells), 2), height=2.4)
    for axes, ((split, loss), part) in zip(panels, cells, strict=True):
        for variant, look in looks.items():
            curve = part[part["variant"] == variant].sort_values("eigenvalue")
            axes.semilogy(curve["eigenvalue"], curve["value"], **look)
        top = part["value"].max()
        axes.set(xlabel="eigenvalue (farther right is sharper)", ylabel="density")
        axes.set_ylim(LOWEST * top, 3 * top)
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:.0e}")
        axes.set_title(f"Hessian of {LOSSES[loss]}" + (" on test examples" if split == "test" else ""))
    style.legend(figure, style.entries(panels), NOTE)
    return figure
