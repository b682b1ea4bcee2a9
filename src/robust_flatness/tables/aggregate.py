"""Averages over seeds, detection of models that have not learnt, and differences within a variant."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from robust_flatness.config.networks import ROBUSTBENCH
from robust_flatness.tables.schema import KEYS, is_measure, lookup
from robust_flatness.training.history import HISTORY

#: Groups of variants by robustness, and the percentiles of RErr that separate the first three.
GROUPS = ("good", "average", "poor", "worse")
PERCENTILES = (30, 70)


def over_seeds(frame: pd.DataFrame, by: Iterable[str]) -> pd.DataFrame:
    """Return the mean of every number over the seeds, for each group `by` in order of first appearance; text
    columns keep their first value. `seeds` counts the seeds; with more than one, each measure has
    `<name>_seed_sd`, the standard deviation over seeds (with n - 1)."""
    by = list(by)
    groups = frame.groupby(by, sort=False, dropna=False)
    columns = frame.columns.difference([*by, "seed"], sort=False)
    numbers = [name for name in columns if pd.api.types.is_numeric_dtype(frame[name])]
    words = [name for name in columns if name not in numbers]
    parts = [groups[numbers].mean(), *([groups[words].first()] if words else [])]
    if frame["seed"].nunique() > 1:
        parts.append(groups[[*filter(_varies, numbers)]].std().add_suffix("_seed_sd"))
    return pd.concat([*parts, groups.size().rename("seeds")], axis=1).reset_index()


def _varies(name: str) -> bool:
    """Return whether a column holds measured numbers that vary with the seed, and is not itself a spread."""
    q = lookup(name)
    return name in HISTORY if q is None else not q.spread and q.description.kind != "setting"


def learnt(models: pd.DataFrame) -> pd.Series:
    """Return whether the model of each row has learnt; all rows of a variant and seed share the answer.

    A model has not learnt if the upper end of the 95 % interval of its last robust training error is within
    10 points of chance, 100 (1 - 1/K) % with K `classes` (by default 10), or if one of its measures is not
    finite (`not_finite`). In a table averaged by `variants_at`, a variant has learnt if one of its seeds has.
    """
    if "learnt" in models:
        return models["learnt"].astype(bool)
    of = models.reindex(columns=["classes", "train_rerr_pgd", "train_rerr_pgd_se", "not_finite"])
    upper = of["train_rerr_pgd"] + 1.96 * of["train_rerr_pgd_se"].fillna(0)
    guessing = upper >= 100 * (1 - 1 / of["classes"].fillna(10)) - 10
    not_finite = of["not_finite"].astype(object).fillna("") != ""
    failed = (guessing | not_finite) & (models["checkpoint"] == "last")
    return ~failed.groupby([models["variant"], models["seed"]]).transform("any")


def variants_at(models: pd.DataFrame, checkpoint: str = "last", derived: bool = False) -> pd.DataFrame:
    """Return one row per variant at one checkpoint, averaged over seeds (see `over_seeds`). Derived models
    (scaled copies, external networks) are left out unless `derived`. Seeds that have not learnt are left out
    where another one of the variant has; the column `learnt` is False where none has."""
    models = models.assign(learnt=learnt(models))
    some = models.groupby("variant")["learnt"].transform("any")
    models = models[models["learnt"] | ~some]
    chosen = models[(models["checkpoint"] == checkpoint) & (derived | (models["derived"] == 0))]
    averaged = over_seeds(chosen.drop(columns="learnt"), KEYS[:1])
    return averaged.assign(learnt=averaged["variant"].isin(models["variant"][models["learnt"]]))


def external(models: pd.DataFrame) -> pd.Series:
    """Return whether each row is an external network, not trained in the experiment."""
    return (models.reindex(columns=["external"])["external"] == 1) | (models["family"] == ROBUSTBENCH)


def scaled(models: pd.DataFrame) -> pd.Series:
    """Return whether each row is a scaled copy of one of the experiment's models."""
    return (models["derived"] == 1) & ~external(models)


def with_scaled(models: pd.DataFrame) -> pd.DataFrame:
    """Return `variants_at` with derived models, over the seeds of the scaled copies, so that each is compared
    with the model it was made from, not with the baseline's mean over more seeds."""
    seeds = models["seed"][scaled(models)]
    return variants_at(models[models["seed"].isin(seeds)] if len(seeds) else models, derived=True)


def with_differences(models: pd.DataFrame) -> pd.DataFrame:
    """Return one row per variant at its last checkpoint, with `best_<measure>`, the measure at the
    early-stopped checkpoint, and differences: `rloss_gap` and `rerr_gap`, RLoss and RErr by PGD on test minus
    training examples, and `rloss_overfitting`, test RLoss at the last minus the early-stopped checkpoint."""
    best = variants_at(models, "best").set_index("variant")
    best = best[[*filter(is_measure, best)]].add_prefix("best_")
    joined = variants_at(models).merge(best, on="variant", how="left")
    rloss, rerr = (joined.get(f"test_{name}_pgd", np.nan) for name in ("rloss", "rerr"))
    return joined.assign(
        rloss_gap=rloss - joined.get("train_rloss_pgd", np.nan),
        rerr_gap=rerr - joined.get("train_rerr_pgd", np.nan),
        rloss_overfitting=rloss - joined.get("best_test_rloss_pgd", np.nan),
    )


def has(frame: pd.DataFrame, *columns: str, rows: int = 1) -> bool:
    """Return whether at least `rows` rows of the frame have a value in all of `columns`."""
    return {*columns} <= {*frame} and bool(frame[[*columns]].notna().all(axis=1).sum() >= rows)


def robust_error_column(models: pd.DataFrame, split: str = "test") -> str:
    """Return the column of RErr by AutoAttack where it was run, else by PGD."""
    autoattack = f"{split}_rerr_aa"
    return autoattack if has(models, autoattack) else f"{split}_rerr_pgd"


def all_radii(models: pd.DataFrame, case: str) -> dict[float, str]:
    """Return the columns of `case` ("avg" or "worst") flatness on test examples by radius xi, sorted."""
    main, xi = f"{case}_flatness_rloss", models.get(f"{case}_flatness_xi")
    quantities = {name: lookup(name) for name in models if name.startswith(f"{main}_")}
    radii = {q.radius: name for name, q in quantities.items() if q and q.radius and not q.spread}
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
