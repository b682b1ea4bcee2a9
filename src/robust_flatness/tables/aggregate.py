"""Averages over seeds, differences within a variant, joins with the printed numbers."""

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from robust_flatness.config.networks import ROBUSTBENCH
from robust_flatness.tables.schema import KEYS, early_stopped, is_measure, lookup, with_spread
from robust_flatness.training.history import HISTORY

#: Groups of variants by robustness, and the percentiles of RErr that separate the first three.
GROUPS = ("good", "average", "poor", "worse")
PERCENTILES = (30, 70)


def over_seeds(frame: pd.DataFrame, by: Iterable[str]) -> pd.DataFrame:
    """Mean of every number over the seeds, per group `by`, in the order of first appearance; words keep their
    first value. `seeds` counts the seeds; with more than one, each measure has `<name>_seed_sd`, the standard
    deviation over seeds (with n - 1), and `<name>_seed_se`, the standard error of the mean."""
    by = list(by)
    columns = frame.columns.difference([*by, "seed"], sort=False)
    numbers = [name for name in columns if pd.api.types.is_numeric_dtype(frame[name])]
    words = [name for name in columns if name not in numbers]
    groups = frame.groupby(by, sort=False, dropna=False)
    parts = [groups[numbers].mean(), groups[words].first()] if words else [groups[numbers].mean()]
    counts = groups.size().rename("seeds")
    if frame["seed"].nunique() > 1:
        measured = [name for name in numbers if _varies(name)]
        parts.append(groups[measured].std().rename(columns=lambda name: with_spread(name, "seed_sd")))
        parts.append(groups[measured].sem().rename(columns=lambda name: with_spread(name, "seed_se")))
    return pd.concat([*parts, counts], axis=1).reset_index()


def _varies(name: str) -> bool:
    """Whether a column is measured anew for every seed, and is no spread itself."""
    quantity = lookup(name)
    if quantity is None:
        return name in HISTORY
    return not quantity.spread and quantity.description.kind != "setting"


def learnt(models: pd.DataFrame) -> pd.Series:
    """Whether the model of each row has learnt, a bool Series; all rows of a variant and seed share it.

    A model has not where its robust training error at the end, with the upper end of its 95 % interval, is
    within 10 points of chance, 100 (1 - 1/K) % with K `classes` (10 where the table does not say), or where
    a measure of it is infinite or no number (`not_finite`). In a table averaged by `variants_at`, a variant
    has learnt if one of its seeds has.
    """
    if "learnt" in models:
        return models["learnt"].astype(bool)
    missing = pd.Series(math.nan, index=models.index)
    classes = models.get("classes", missing).fillna(10)
    upper = models.get("train_rerr_pgd", missing) + 1.96 * models.get("train_rerr_pgd_se", missing).fillna(0)
    guessing = upper >= 100 * (1 - 1 / classes) - 10
    not_finite = models.get("not_finite", pd.Series("", index=models.index)).fillna("") != ""
    failed = (guessing | not_finite) & (models["checkpoint"] == "last")
    return ~failed.groupby([models["variant"], models["seed"]]).transform("any")


def variants_at(models: pd.DataFrame, checkpoint: str = "last", derived: bool = False) -> pd.DataFrame:
    """One row per variant at one checkpoint, averaged over seeds (see `over_seeds`). Derived models (scaled
    copies, networks of others) are left out unless `derived`. Seeds that have not learnt are left out where
    another one of the variant has; the column `learnt` is False where none has."""
    models = models.assign(learnt=learnt(models))
    some = models.groupby("variant")["learnt"].transform("any")
    models = models[models["learnt"] | ~some]
    chosen = models[(models["checkpoint"] == checkpoint) & (derived | (models["derived"] == 0))]
    averaged = over_seeds(chosen.drop(columns="learnt"), KEYS[:1])
    return averaged.assign(learnt=averaged["variant"].isin(models["variant"][models["learnt"]]))


def external(models: pd.DataFrame) -> pd.Series:
    """Whether each row is a network of others, not trained in the experiment: a bool Series."""
    named = models.get("external", pd.Series(0, index=models.index)) == 1
    return named | (models["family"] == ROBUSTBENCH)


def others(models: pd.DataFrame) -> pd.DataFrame:
    """As `with_differences`, the networks of others that no correlation counts."""
    return with_differences(models[external(models) & (models["derived"] == 1)].assign(derived=0))


def scaled(models: pd.DataFrame) -> pd.Series:
    """Whether each row is a model made from one of the experiment's by scaling: a bool Series."""
    return (models["derived"] == 1) & ~external(models)


def with_scaled(models: pd.DataFrame) -> pd.DataFrame:
    """As `variants_at` with derived models, over the seeds that these have: a scaled model is set beside
    the very models that it was made from, not beside the baseline's mean over more seeds."""
    made = models[scaled(models)]
    if len(made):
        models = models[models["seed"].isin(made["seed"])]
    return variants_at(models, derived=True)


def with_differences(models: pd.DataFrame) -> pd.DataFrame:
    """One row per variant at its last checkpoint, with `best_<measure>`, the measure at the early-stopped
    checkpoint, and differences within a variant: `rloss_gap` and `rerr_gap`, RLoss and RErr by PGD on test
    minus training examples, and `rloss_overfitting`, test RLoss of the last minus the early-stopped."""
    best = variants_at(models, "best")
    measures = [name for name in best.columns if is_measure(name)]
    best = best[["variant", *measures]].rename(columns={name: early_stopped(name) for name in measures})
    joined = variants_at(models).merge(best, on="variant", how="left")
    missing = pd.Series(math.nan, index=joined.index)
    test = joined.get("test_rloss_pgd", missing)
    rerr_gap = joined.get("test_rerr_pgd", missing) - joined.get("train_rerr_pgd", missing)
    return joined.assign(
        rloss_gap=test - joined.get("train_rloss_pgd", missing), rerr_gap=rerr_gap,
        rloss_overfitting=test - joined.get("best_test_rloss_pgd", missing),
    )  # fmt: skip


def has(frame: pd.DataFrame, *columns: str, rows: int = 1) -> bool:
    """Whether at least `rows` rows of the frame have a value in all of `columns`."""
    return {*columns} <= {*frame} and bool(frame[[*columns]].notna().all(axis=1).sum() >= rows)


def robust_error_column(models: pd.DataFrame, split: str = "test") -> str:
    """RErr by AutoAttack where it was run, else by PGD."""
    autoattack = f"{split}_rerr_aa"
    return autoattack if has(models, autoattack) else f"{split}_rerr_pgd"


def join_published(ours: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Ours and the measures printed (suffix `_published`) side by side, a row per variant of ours."""
    theirs = published.set_index("variant")[[name for name in published.columns if is_measure(name)]]
    return ours.merge(theirs.add_suffix("_published"), left_on="variant", right_index=True, how="left")


def same_data(models: pd.DataFrame, published: pd.DataFrame) -> bool:
    """Whether the models were trained on the paper's dataset, so that absolute values compare."""
    ours = set(models.get("dataset", pd.Series(dtype=object)).dropna())
    return bool(ours) and ours == set(published["dataset"])


def all_radii(models: pd.DataFrame, case: str, loss: str = "rloss") -> dict[float, str]:
    """Columns of `case` ("avg" or "worst") flatness on test examples at all radii: xi -> column."""
    main, xi = f"{case}_flatness_{loss}", models.get(f"{case}_flatness_xi")
    known = {name: lookup(name) for name in models.columns}
    radii = {
        q.radius: name
        for name, q in known.items()
        if q and q.radius and replace(q, radius=None) == lookup(main)
    }
    if main in models and xi is not None and xi.notna().any():
        radii[float(xi.dropna().iloc[0])] = main
    return dict(sorted(radii.items()))


def with_groups(variants: pd.DataFrame) -> pd.DataFrame:
    """Return `variants` (a row each) with the column `group`: as printed for the paper's own numbers
    (`robustness_group`, with fixed bounds of 57, 60 and 62.8 %), else by RErr.

    Of the variants no worse than the baseline `at`, "good" lie up to the 30 % percentile, "average" up to the
    70 % percentile and "poor" above it; "worse" lie above the baseline. A variant without RErr gets an empty
    group, and so do all without a baseline to compare with.
    """
    printed = variants.get("robustness_group")
    if printed is not None and (printed.fillna("") != "").any():
        return variants.assign(group=printed.fillna(""))
    rerr = variants.get(robust_error_column(variants), pd.Series(np.nan, index=variants.index))
    baseline = rerr[variants["variant"] == "at"].max()
    within = rerr[rerr <= baseline]
    if within.empty:
        return variants.assign(group="")
    bounds = [*np.percentile(within, PERCENTILES), baseline]
    groups = pd.Series(GROUPS).take(np.searchsorted(bounds, rerr)).set_axis(rerr.index)
    return variants.assign(group=groups.where(rerr.notna(), ""))
