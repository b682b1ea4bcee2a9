"""Training curves of one variant around the first drop of its learning rate."""

import math

import numpy as np
import pandas as pd

from robust_flatness.tables import frames
from robust_flatness.tables.schema import OF_EXAMPLES

#: Tolerance in comparisons of shares of the training.
SLACK = 1e-6


def end_of_first_rate(history: pd.DataFrame, variant: str) -> float:
    """The share of the training at which the first learning rate ends; the baseline's where the
    variant has no history of its own; NaN where neither drops."""
    for slug in (variant, "at"):
        rows = history[history["variant"] == slug].dropna(subset=["learning_rate"])
        rows = rows.sort_values("normalised_epoch")
        dropped = rows["learning_rate"].to_numpy() < rows["learning_rate"].max()
        if dropped.any() and not dropped[0]:
            return float(rows["normalised_epoch"].to_numpy()[np.argmax(dropped) - 1])
    return math.nan


def from_first_drop(rows: pd.DataFrame, end: float, *measures: str) -> pd.DataFrame:
    """The rows of one training that have all `measures`, starting at the last one at or before `end`, the end
    of the first learning rate. Empty where a measure is no column or the rate does not drop."""
    if math.isnan(end) or not set(measures) <= set(rows):
        return rows.iloc[:0]
    rows = rows.sort_values("normalised_epoch").dropna(subset=list(measures))
    before = rows["normalised_epoch"] <= end + SLACK
    return rows.iloc[max(0, int(before.sum()) - 1) :]


def rise(tables: frames.Tables, variant: str, measure: str) -> np.ndarray:
    """The measure at the end of the training minus that at the last snapshot before the first drop, for
    each seed and example: [seeds, examples], or [seeds, 1] where values of single examples were not kept,
    and [0, 1] where it was not measured at both.

    Sources, the first that has at least two seeds: examples, snapshots (`series`), training curves
    (`history`, whose measures do not name the attack).
    """
    end = end_of_first_rate(tables.history, variant)
    found = _rise_of_examples(tables, variant, measure, end)
    for table, name in ((tables.series, measure), (tables.history, measure.removesuffix("_pgd"))):
        if len(found) < 2:
            found = max(found, _rise_of_rows(table, variant, name, end), key=len)
    return found


def _rise_of_examples(tables: frames.Tables, variant: str, measure: str, end: float) -> np.ndarray:
    """From the snapshots alone, since `last` and `best` were evaluated by a stronger attack."""
    split, _, column = measure.partition("_")
    column = "rloss" if column == "rloss_pgd" else column
    if column not in OF_EXAMPLES or math.isnan(end):
        return np.empty((0, 1))
    frame = tables.examples
    chosen = (frame["variant"] == variant) & (frame["split"] == split)
    frame = frame[chosen & frame["checkpoint"].str.startswith("epoch-")].dropna(subset=[column])
    epochs = float(tables.history.loc[tables.history["variant"] == variant, "epochs"].max())
    snapshots = {
        name: (int(name.removeprefix("epoch-")) + 1) / epochs for name in frame["checkpoint"].unique()
    }
    before = [name for name, share in snapshots.items() if share <= end + SLACK]
    if not before or len(before) == len(snapshots):
        return np.empty((0, 1))
    first, last = max(before, key=snapshots.get), max(snapshots, key=snapshots.get)
    values = frame.pivot(index=["seed", "example"], columns="checkpoint", values=column)
    difference = (values[last] - values[first]).unstack("seed")
    difference = difference.dropna(axis="columns", how="all").dropna().to_numpy().T
    return difference * (100 if column.startswith("rerr") else 1)


def _rise_of_rows(table: pd.DataFrame, variant: str, measure: str, end: float) -> np.ndarray:
    rises = []
    for _, rows in table[table["variant"] == variant].groupby("seed"):
        rows = from_first_drop(rows, end, measure)
        if len(rows) > 1 and rows["normalised_epoch"].iloc[0] <= end + SLACK:
            rises.append(float(rows[measure].iloc[-1] - rows[measure].iloc[0]))
    return np.array(rises).reshape(-1, 1)
