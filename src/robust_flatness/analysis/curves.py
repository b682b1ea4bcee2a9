"""Training curves of one variant around the first drop of its learning rate."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from robust_flatness.tables import frames
from robust_flatness.tables.schema import OF_EXAMPLES

Since = Literal["early-stopped", "before-drop", "after-drop"]
#: The earlier point of a rise, in words.
SINCE: dict[Since, str] = {
    "early-stopped": "last minus early-stopped checkpoint",
    "before-drop": "end minus last snapshot before the first drop of the learning rate",
    "after-drop": "end minus first snapshot after the first drop of the learning rate",
}
#: Tolerance in comparisons of shares of the training.
SLACK = 1e-6


def end_of_first_rate(history: pd.DataFrame, variant: str) -> float:
    """Return the share of the training at which the first learning rate ends; the baseline's where the
    variant has no history of its own; NaN where neither drops."""
    for slug in (variant, "at"):
        rows = history[history["variant"] == slug].dropna(subset=["learning_rate"])
        rows = rows.sort_values("normalised_epoch")
        dropped = rows["learning_rate"].to_numpy() < rows["learning_rate"].max()
        if dropped.any() and not dropped[0]:
            return float(rows["normalised_epoch"].to_numpy()[np.argmax(dropped) - 1])
    return math.nan


def rise(tables: frames.Tables, variant: str, measure: str, since: Since) -> pd.DataFrame:
    """Return a measure at the end of the training minus at an earlier point (a key of `SINCE`): a row for
    each seed, a column for each example. There is one column where values of single examples were not kept,
    and no row where it was not measured at both points. The first of `_sources` with two seeds counts."""
    found = pd.DataFrame()
    for rows in _sources(tables, measure, since):
        rows = rows[rows["variant"] == variant].dropna(subset="value")
        points = _points(tables.history, variant, [*rows["checkpoint"].unique()], since)
        if points is not None and len(found) < 2:
            values = rows.pivot(index=["seed", "example"], columns="checkpoint", values="value")
            changes = (values[points[1]] - values[points[0]]).unstack("example")
            found = max(found, changes.dropna(how="all").dropna(axis="columns"), key=len)
    return found


def _sources(tables: frames.Tables, measure: str, since: Since) -> Iterator[pd.DataFrame]:
    """Yield frames with the columns variant, seed, checkpoint, example and value: values of single examples;
    then the checkpoints in `models`, or the snapshots (`series`) and the training curves (`history`, whose
    measures do not name the attack)."""
    split, _, column = measure.partition("_")
    column = "rloss" if column == "rloss_pgd" else column
    if column in OF_EXAMPLES:
        rows = tables.examples[tables.examples["split"] == split]
        yield rows.assign(value=rows[column] * (100 if column.startswith("rerr") else 1))
    if since == "early-stopped":
        yield tables.models.assign(example=0, value=tables.models.get(measure, math.nan))
        return
    for table, name in ((tables.series, measure), (tables.history, measure.removesuffix("_pgd"))):
        checkpoints = [f"epoch-{epoch:03.0f}" for epoch in table["epoch"]]
        yield table.assign(example=0, checkpoint=checkpoints, value=table.get(name, math.nan))


def _points(
    history: pd.DataFrame, variant: str, checkpoints: Sequence[str], since: Since
) -> tuple[str, str] | None:
    """Return the earlier and the last one of the checkpoints; None where one is missing. Snapshots are
    compared with snapshots, since `last` and `best` were evaluated by a stronger attack."""
    if since == "early-stopped":
        return ("best", "last") if {"best", "last"} <= {*checkpoints} else None
    end = end_of_first_rate(history, variant)
    epochs = history.loc[history["variant"] == variant, "epochs"].max()
    snapshots = {int(name[6:]): name for name in checkpoints if name.startswith("epoch-")}
    before = sorted(epoch for epoch in snapshots if (epoch + 1) / epochs <= end + SLACK)
    after = sorted({*snapshots} - {*before})
    if not before or not after or (since == "after-drop" and len(after) == 1):
        return None
    return snapshots[before[-1] if since == "before-drop" else after[0]], snapshots[after[-1]]
