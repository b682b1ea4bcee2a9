"""The training curves: one row per epoch."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from robust_flatness.files import write_text

#: Columns of history.csv; errors in per cent, losses in nats, the last ones at snapshots only.
COLUMNS = (
    "variant",
    "seed",
    "epoch",
    "epochs",
    "normalised_epoch",
    "learning_rate",
    "train_loss",
    "train_rloss",
    "train_rerr",
    "test_rloss",
    "test_rerr",
    "test_correct_rloss",
    "test_incorrect_rloss",
    "early_stopping_rloss",
    "early_stopping_rerr",
)


def write_history(path: Path, rows: Iterable[Mapping[str, float | int | str]]) -> None:
    """Write rows as CSV, in full precision; missing and undefined (NaN) values are empty."""
    lines = [",".join(COLUMNS)]
    for row in rows:
        values = (row.get(column, "") for column in COLUMNS)
        lines.append(",".join("" if isinstance(v, float) and math.isnan(v) else str(v) for v in values))
    write_text(path, "\n".join(lines) + "\n")


def best_epoch(rows: Iterable[Mapping[str, float | int | str]]) -> int:
    """Epoch of the first snapshot with the lowest early-stopping RErr."""
    snapshots = [row for row in rows if "early_stopping_rerr" in row]
    return min(snapshots, key=lambda row: (row["early_stopping_rerr"], row["epoch"]))["epoch"]
