"""Where a network lies among others: its rank and percentile in a table of models."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from robust_flatness.tables import schema

#: What networks are ranked by, lowest first.
COLUMNS = ("test_rloss_pgd", "test_rerr_pgd", "avg_flatness_rloss", "worst_flatness_rloss")


@dataclass(frozen=True)
class Place:
    """`rank` of `count` + 1 networks, this one included, counted from the lowest value; `percentile` of the
    others that lie below it."""

    column: str
    value: float
    rank: int
    count: int
    percentile: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return (
            f"{schema.describe(self.column)}: {self.value:.3g}, rank {self.rank} of {self.count + 1} "
            f"(the others {self.lowest:.3g} to {self.highest:.3g}; {self.percentile:.0f} % lie below)"
        )


def places(values: dict[str, Any], models: pd.DataFrame) -> list[Place]:
    """The places of a network with these `values` among `models` (a row each), column by column; without
    those that either lacks."""
    found = []
    for column in COLUMNS:
        others = models[column].dropna() if column in models else pd.Series(dtype=float)
        value = values.get(column)
        if value is None or others.empty:
            continue
        below = int((others < value).sum())
        found.append(
            Place(
                column=column,
                value=value,
                rank=below + 1,
                count=len(others),
                percentile=100 * below / len(others),
                lowest=float(others.min()),
                highest=float(others.max()),
            )
        )
    return found
