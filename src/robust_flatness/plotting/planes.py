"""Contours of clean and robust loss on a plane in weight space."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_flatness.measures.base import LOSSES
from robust_flatness.plotting import style

#: Number of contour levels between the lowest loss and the highest one that is not an outlier.
LEVELS = 12


def figure(networks: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw a row of both losses for each network, from its records of the measure `plane` by its label."""
    drawn, axes = style.panels(len(LOSSES) * len(networks), len(LOSSES), height=2.9)
    for number, (label, records) in enumerate(networks.items()):
        for panel, loss in zip(axes[len(LOSSES) * number :], LOSSES, strict=False):
            draw(panel, records, loss)
            panel.set_title(f"{label}: {LOSSES[loss]}")
    note = "Axes: multiples of each filter's norm along two random directions."
    if any((records["metric"] == "path").any() for records in networks.values()):
        note = (
            "Axes: distances along the first two principal components of the snapshots, whose projections "
            "onto the plane are joined in their order; normalisation layers keep the network's values."
        )
    style.legend(drawn, {}, f"Cross: the network's weights. {note} Far higher losses share the last colour.")
    return drawn


def draw(axes: Axes, records: pd.DataFrame, loss: str) -> None:
    """Draw the contours of one loss, and the path of the snapshots if there is one."""
    rows = records[(records["metric"] == "plane") & (records["loss"] == loss)]
    grid = _places(rows).assign(value=rows["value"]).pivot(index="b", columns="a", values="value")
    values = grid.to_numpy()
    levels = np.linspace(np.nanmin(values), values[style.near(values)].max(), LEVELS + 1)
    surface = axes.contourf(grid.columns, grid.index, values, levels, cmap="cividis", extend="max")
    axes.figure.colorbar(surface, ax=axes, format="%.3g").ax.tick_params(labelsize=6)
    axes.contour(grid.columns, grid.index, values, levels, colors="white", linewidths=0.4, linestyles="-")
    shares = dict(records.loc[records["metric"] == "explained", ["coordinate", "value"]].to_numpy())
    names = {axis: f"{axis} ({share:.0%} of the variance)" for axis, share in shares.items()}
    axes.set(xlabel=names.get("a", "a"), ylabel=names.get("b", "b"))
    snapshots = records[records["metric"] == "path"].sort_values("value")
    if len(snapshots):
        path = _places(snapshots)
        axes.plot([*path["a"], 0.0], [*path["b"], 0.0], "o-", color=style.VERMILLION, markersize=3)
    axes.plot(0, 0, "X", color="white", markeredgecolor="black", markersize=7)


def _places(records: pd.DataFrame) -> pd.DataFrame:
    """Return the coordinates a, b of records."""
    return records["coordinate"].str.split(",", expand=True).set_axis(["a", "b"], axis=1).astype(float)
