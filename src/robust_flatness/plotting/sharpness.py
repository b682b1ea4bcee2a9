"""Correlations of measures with test RLoss, by the examples that the measures are taken on."""

import pandas as pd

from robust_flatness.analysis.comparison import GROUPS, ON_TEST, RLOSS

TALK, SHARPNESS, CONTROL = GROUPS
SPLITS = ("on training examples", "on test examples")


def by_split(compared: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return Spearman's correlations with test RLoss from `comparison.compare`, for each of `SPLITS`.

    Controls stand in both. Rows are in the order of the absolute correlation, of a measure's better loss.
    """
    rows = compared[(compared["against"] == RLOSS) & (compared["coefficient"] == "spearman")]
    rows = rows.dropna(subset=["value"])
    rows = rows.assign(words=rows["words"].str.replace(" on training examples", ""))
    test = rows["column"].str.startswith(("avg_flatness", "worst_flatness")) | (rows["group"] == ON_TEST)
    parts = (rows[~test], rows[test | (rows["group"] == CONTROL)])
    return {name: _strongest_first(part) for name, part in zip(SPLITS, parts, strict=True)}


def _strongest_first(rows: pd.DataFrame) -> pd.DataFrame:
    best = rows["value"].abs().groupby(rows["words"]).transform("max")
    clean = rows["loss"] == "ce"
    return rows.assign(best=-best, clean=clean).sort_values(["best", "words", "clean"], kind="stable")
