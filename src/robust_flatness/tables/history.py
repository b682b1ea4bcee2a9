"""The training curves: one row per epoch."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from robust_flatness.tables.rows import write_rows
from robust_flatness.tables.schema import HISTORY

#: An epoch's entries by column.
Row = dict[str, float | int | str]


def write_history(path: Path, rows: Iterable[Mapping[str, float | int | str]]) -> None:
    """Write rows as CSV, in full precision; missing and undefined (NaN) values are empty.

    Errors are in per cent, losses in nats; those of early stopping are there at snapshots only.
    """
    defined = (
        {name: row[name] for name in HISTORY if name in row and not _is_nan(row[name])} for row in rows
    )
    write_rows(path, defined, HISTORY)


def _is_nan(value: float | int | str) -> bool:
    return isinstance(value, float) and math.isnan(value)


def best_epoch(rows: Iterable[Mapping[str, float | int | str]]) -> int:
    """Epoch of the first snapshot with the lowest early-stopping RErr."""
    snapshots = [row for row in rows if "early_stopping_rerr" in row]
    return min(snapshots, key=lambda row: (row["early_stopping_rerr"], row["epoch"]))["epoch"]
