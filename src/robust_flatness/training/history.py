"""The training curves: one row per epoch."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from robust_flatness.files import write_rows

#: Columns; errors in per cent, losses in nats. Evaluations on held-out images are at snapshots only.
HISTORY = (
    *("variant", "seed", "epoch", "epochs", "normalised_epoch", "learning_rate", "train_loss"),
    *("train_rloss", "train_rerr", "test_rloss", "test_rerr", "test_correct_rloss"),
    *("test_incorrect_rloss", "early_stopping_rloss", "early_stopping_rerr"),
)


def write_history(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV in full precision; missing and undefined (NaN) values are empty cells."""
    # NaN differs from itself
    defined = ({name: value for name, value in row.items() if value == value} for row in rows)
    write_rows(path, defined, HISTORY)


def best_epoch(rows: Iterable[Mapping[str, Any]]) -> int:
    """Return the epoch of the first snapshot with the lowest early-stopping RErr."""
    snapshots = [row for row in rows if "early_stopping_rerr" in row]
    return min(snapshots, key=lambda row: (row["early_stopping_rerr"], row["epoch"]))["epoch"]
