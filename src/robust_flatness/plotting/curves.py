"""Curves over epochs: of one variant's history or series, learning-rate drops, small multiples."""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from robust_flatness import tables as results

EPOCH = "normalised_epoch"


def of(frame: pd.DataFrame, variant: str, *columns: str) -> pd.DataFrame:
    """A variant's rows in order of epochs, those with a value in all of `columns`."""
    rows = frame[frame["variant"] == variant].sort_values(EPOCH)
    return rows.dropna(subset=list(columns)) if columns else rows


def draw(axes: Axes, rows: pd.DataFrame, column: str, **look) -> None:
    """One curve over epochs, with a band of one standard deviation over seeds where there are several."""
    if not results.has(rows, column):
        return
    rows = rows.dropna(subset=[column])
    (line,) = axes.plot(rows[EPOCH], rows[column], **look)
    spread = f"{column}_seed_sd"
    if results.has(rows, spread):
        low, high = rows[column] - rows[spread], rows[column] + rows[spread]
        axes.fill_between(rows[EPOCH], low, high, color=line.get_color(), alpha=0.15, linewidth=0)


def test_curve(history: pd.DataFrame, series: pd.DataFrame, variant: str) -> pd.DataFrame:
    """A variant's test RLoss over epochs as `test_rloss`: from its training curves or, where there are
    none, from its snapshots."""
    rows = of(history, variant, "test_rloss")
    if len(rows):
        return rows
    rows = of(series, variant, "test_rloss_pgd")
    return rows.rename(columns=lambda name: name.replace("test_rloss_pgd", "test_rloss"))


def drops(history: pd.DataFrame, variant: str = "at") -> list[float]:
    """Where the learning rate falls, as shares of the training."""
    rows = of(history, variant, "learning_rate")
    falls = np.flatnonzero(np.diff(rows["learning_rate"].to_numpy()) < 0)
    return [float(value) for value in rows[EPOCH].to_numpy()[falls]]


def mark_drops(axes: Axes, where: Iterable[float]) -> None:
    """Thin vertical lines at the learning-rate drops."""
    for share in where:
        axes.axvline(share, color="#a0a0a0", linewidth=0.6, linestyle=":", zorder=0)


def by_hyperparameter(frame: pd.DataFrame, families: Sequence[str]) -> list[tuple[str, str]]:
    """Variants of some families in the order of their hyper-parameter: (slug, its value as text)."""
    slugs = [*dict.fromkeys(frame.loc[frame["family"].isin(families), "variant"])]
    order = [*results.catalogue()]
    named = []
    for slug in slugs:
        match = re.search(r"-(\d+(?:\.\d+)?)$", slug)
        value = match[1] if match else slug.split("-")[0]
        position = order.index(slug) if slug in order else len(order)
        named.append((float(match[1]) if match else float("inf"), position, slug, value))
    return [(slug, value) for _, _, slug, value in sorted(named)]
