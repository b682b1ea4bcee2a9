"""What the claims are judged by: an experiment's tables, averaged over seeds."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from robust_flatness import tables as results


@dataclass(frozen=True)
class Evidence:
    """An experiment's tables as the tests read them, averaged over seeds."""

    models: pd.DataFrame
    derived: pd.DataFrame
    history: pd.DataFrame
    series: pd.DataFrame

    @classmethod
    def of(cls, tables: results.Tables) -> "Evidence":
        by_epoch = ("variant", "epoch")
        return cls(
            models=results.with_differences(tables.models),
            derived=results.variants_at(tables.models, derived=True),
            history=results.over_seeds(tables.history, by_epoch),
            series=results.over_seeds(tables.series, by_epoch),
        )

    def from_first_drop(self, table: str, variant: str, *measures: str) -> pd.DataFrame:
        """Rows of a variant's history or series that have all `measures`, from the last one at or
        before the end of the first learning rate on. The drop is the baseline's where the variant's
        own is not in the history. Without any row at all if a measure is no column."""
        frame: pd.DataFrame = getattr(self, table)
        rows = frame[frame["variant"] == variant].sort_values("normalised_epoch")
        rows = rows.dropna(subset=list(measures)) if set(measures) <= set(rows) else rows.iloc[:0]
        for slug in (variant, "at"):
            history = self.history[self.history["variant"] == slug].dropna(subset=["learning_rate"])
            history = history.sort_values("normalised_epoch")
            dropped = history["learning_rate"].to_numpy() < history["learning_rate"].max()
            if dropped.any() and not dropped[0]:
                start = history["normalised_epoch"].to_numpy()[np.argmax(dropped) - 1]
                before = rows["normalised_epoch"] <= start + 1e-6
                return rows.iloc[max(0, int(before.sum()) - 1) :]
        return rows.iloc[:0]


def early_stopping_pairs(models: pd.DataFrame, series: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Variants with a measure and test RLoss at the last and (`best_...`) early-stopped checkpoint.

    `models` are those of `results.with_differences`. Where no early-stopped checkpoint was measured,
    the snapshots of `series` are used: the one of lowest test RLoss, and the last;
    `attrs["by_epoch"]` says so.
    """
    names = [measure, "test_rloss_pgd", f"best_{measure}", "best_test_rloss_pgd"]
    if results.has(models, *names):
        pairs = models.dropna(subset=names)[["variant", "family", *names]].reset_index(drop=True)
        pairs.attrs["by_epoch"] = False
        return pairs
    families = dict(zip(models["variant"], models["family"], strict=True))
    rows = []
    if measure in series:
        for slug, group in series.dropna(subset=[measure, "test_rloss_pgd"]).groupby("variant", sort=False):
            group = group.sort_values("normalised_epoch")
            last, best = group.iloc[-1], group.loc[group["test_rloss_pgd"].idxmin()]
            values = [row[name] for row in (last, best) for name in (measure, "test_rloss_pgd")]
            rows.append((slug, families.get(slug, results.OTHER), *values))
    pairs = pd.DataFrame(rows, columns=["variant", "family", *names])
    pairs.attrs["by_epoch"] = True
    return pairs


def kink(models: pd.DataFrame) -> float:
    """Where RErr over RLoss bends: -ln(1/K), the loss of a uniform guess among K classes (10
    where the table does not say)."""
    classes = models.get("classes", pd.Series(dtype=float)).dropna()
    return math.log(float(classes.iloc[0]) if len(classes) else 10)
