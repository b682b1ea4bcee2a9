"""An experiment's tables in the form in which claims are judged: averaged over seeds, each model once."""

import math
from collections.abc import Collection
from dataclasses import replace
from functools import cached_property

import numpy as np
import pandas as pd

from robust_flatness.analysis.resampling import TAILS, resampled_counts
from robust_flatness.analysis.rises import SLACK, end_of_first_rate, mean_interval
from robust_flatness.tables import aggregate, frames, schema

#: Column of test RLoss.
RLOSS = "test_rloss_pgd"
#: Number of resamples for the noise of a model's evaluation, shared by all models.
NOISE_RESAMPLES = 1999
#: Measures that, if all are equal, identify variants with the same weights.
CAPACITY = ("weight_norm", "distance_from_init", "spectral_product")


class UndecidedError(Exception):
    """Raised if a test has no statistic on these tables; its message is the finding's note."""


class NotMeasuredError(UndecidedError):
    """Raised if a measure required by a test is missing."""


def require(frame: pd.DataFrame, *columns: str) -> None:
    """Raise `NotMeasuredError` with the columns that have no value."""
    missing = [schema.describe(name) for name in columns if not aggregate.has(frame, name)]
    if missing:
        raise NotMeasuredError("not measured: " + ", ".join(missing))


class Evidence:
    """An experiment's tables as the tests of claims read them.

    `models`, `history` and `series` are averaged over seeds, `seeds` are the tables seed by seed. Models that
    have not learnt are left out (`not_learnt`: variants; `seeds_not_learnt`: seeds of others). Variants with
    the same weights are counted once in `models` (`repeated`: slug -> the slug it equals). `given` are the
    tables with all models; those trained on clean examples alone are in the values of single examples only.
    """

    def __init__(self, tables: frames.Tables, failed: Collection[tuple[str, int]]):
        """Leave the variants and seeds `failed` out of tables."""
        parts = {name: getattr(tables, name) for name in ("models", "history", "series", "examples")}
        parts = {name: frame[~_keys(frame).isin([*failed])] for name, frame in parts.items()}
        self.given, self.seeds = tables, replace(tables, **parts)
        models, same = parts["models"], same_weights(tables.models)
        learnt = {*models["variant"]}
        self.models = aggregate.with_differences(models[~models["variant"].isin(same)])
        self.history = aggregate.over_seeds(parts["history"], ("variant", "epoch"))
        self.series = aggregate.over_seeds(parts["series"], ("variant", "epoch"))
        self.repeated = {slug: same[slug] for slug in same if slug in learnt}
        self.not_learnt = sorted({slug for slug, _ in failed} - learnt)
        self.seeds_not_learnt = sorted(key for key in failed if key[0] in learnt)

    @classmethod
    def of(cls, tables: frames.Tables) -> "Evidence":
        """Return the evidence of the models that have learnt."""
        # pandas reads numbers with empty cells as a column of objects
        settings = tables.models.filter(regex="^setting_")
        numbers = settings.mask(settings == "").infer_objects().select_dtypes("number")
        tables = replace(tables, models=tables.models.assign(**numbers))
        return cls(tables, {*_keys(tables.models[~aggregate.learnt(tables.models)])})

    @cached_property
    def complete(self) -> "Evidence":
        """The evidence including the variants that have not learnt."""
        return Evidence(self.given, self.seeds_not_learnt) if self.not_learnt else self

    @property
    def unlearnt(self) -> list[str]:
        """The variants that have not learnt, with the distances from their initial weights."""
        models = self.complete.models.set_index("variant")
        distances = models.get("distance_from_init", pd.Series(dtype=float))
        share = (100 * distances / distances.get("at", math.nan)).dropna()
        return [
            f"{slug} ({share[slug]:.0f} % of the baseline's distance from init)" if slug in share else slug
            for slug in self.not_learnt
        ]

    def left_out(self, variant: str | None = None) -> list[str]:
        """Return notes that name the models that are left out, of all variants or of one."""
        names = self.unlearnt if variant is None else []
        names += [f"{slug} (seed {seed})" for slug, seed in self.seeds_not_learnt if variant in (None, slug)]
        notes = [f"left out, not having learnt: {', '.join(names)}"] if names else []
        if variant is None and self.repeated:
            means = aggregate.variants_at(self.seeds.models).set_index("variant")[RLOSS]
            pairs = (
                f"{slug} (test RLoss {means[slug]:.2f}) has the weights of {same} ({means[same]:.2f})"
                for slug, same in self.repeated.items()
            )
            notes.append(f"counted once: {', '.join(pairs)}")
        return notes

    def from_first_drop(self, table: str, variant: str, *measures: str) -> pd.DataFrame:
        """Return the rows of a variant in `table` ("history" or "series") that have all `measures`, from the
        last one before the first drop of the learning rate on. Raises `NotMeasuredError` where there is none,
        and `UndecidedError` if the rate does not drop."""
        rows: pd.DataFrame = getattr(self, table)
        rows = rows[rows["variant"] == variant].sort_values("normalised_epoch")
        require(rows, *measures)
        rows = rows.dropna(subset=[*measures])
        before = rows["normalised_epoch"] <= self.first_drop(variant) + SLACK
        return rows.iloc[max(0, int(before.sum()) - 1) :]

    def first_drop(self, variant: str) -> float:
        """Return `end_of_first_rate`. Raises `UndecidedError` if the learning rate does not drop."""
        end = end_of_first_rate(self.history, variant)
        if math.isnan(end):
            require(self.history[self.history["variant"].isin([variant, "at"])], "learning_rate")
            raise UndecidedError(f"the learning rate of {variant} does not drop")
        return end


def same_weights(models: pd.DataFrame) -> dict[str, str]:
    """Return variants with the weights of an earlier one, the baseline first: slug -> the earlier one. They
    are equal if their files are (`same_as`), or if norm, distance from the initial weights and spectral
    product agree within 1e-3: a short weight averaging may differ in batch norms' statistics alone."""
    marked = models.reindex(columns=["variant", "same_as"]).replace("", None).dropna()
    same = dict(marked.itertuples(index=False))
    rows = models[(models["checkpoint"] == "last") & (models["derived"] == 0)]
    rows = rows.reindex(columns=["variant", *CAPACITY]).dropna().drop_duplicates("variant")
    values = rows.sort_values("variant", key=lambda slugs: slugs != "at", kind="stable").set_index("variant")
    for number, slug in enumerate(values.index):
        equal = np.isclose(values.iloc[:number], values.loc[slug], rtol=1e-3, atol=0).all(axis=1)
        if equal.any() and slug not in same:
            earlier = values.index[np.argmax(equal)]
            same[slug] = same.get(earlier, earlier)
    return same


def _keys(frame: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(frame[["variant", "seed"]])


def early_stopping_pairs(evidence: Evidence, measure: str) -> pd.DataFrame:
    """Return variants with a measure and test RLoss at the last and (`best_...`) early-stopped checkpoint.

    Where no early-stopped checkpoint was measured, the snapshots are used (`attrs["by_epoch"]`): the one of
    lowest test RLoss, and the last. `same` marks variants whose early-stopped checkpoint is the last one,
    `improved` those whose test RLoss is lower: beyond the noise of its evaluation where values of single
    examples were kept (`attrs["beyond_noise"]`); variants without these are left out (`attrs["unknown"]`).
    """
    names = [measure, RLOSS]
    last_and_best = [*names, *(f"best_{name}" for name in names)]
    pairs, beyond = evidence.models, {}
    by_epoch = not aggregate.has(pairs, *last_and_best)
    if by_epoch:
        rows = evidence.series.reindex(columns=["variant", "normalised_epoch", *names]).dropna()
        groups = rows.groupby("variant", sort=False)
        ends = groups["normalised_epoch"].idxmax(), groups[RLOSS].idxmin()
        last, best = (rows.loc[end].set_index("variant")[names] for end in ends)
        families = pairs.set_index("variant")["family"]
        pairs = last.join(best.add_prefix("best_")).reset_index()
        pairs["family"] = pairs["variant"].map(families).fillna(schema.OTHER)
    else:
        beyond = improved_by_early_stopping(evidence.seeds.examples)
    pairs = pairs[["variant", "family", *last_and_best]].dropna()
    known = pairs["variant"].isin(beyond) | (not beyond)
    unknown, pairs = pairs["variant"][~known].tolist(), pairs[known].reset_index(drop=True)
    lower = pairs[f"best_{RLOSS}"] < pairs[RLOSS]
    pairs["same"] = np.all([pairs[name] == pairs[f"best_{name}"] for name in names], axis=0)
    pairs["improved"] = pairs["variant"].map(beyond).astype(bool) if beyond else lower
    pairs.attrs.update(by_epoch=by_epoch, beyond_noise=bool(beyond), unknown=unknown)
    return pairs


def improved_by_early_stopping(examples: pd.DataFrame) -> dict[str, bool]:
    """Return whether early stopping lowers test RLoss beyond the noise of its evaluation, for each variant
    with losses of single test examples at both checkpoints: the bootstrap interval, over examples, of the
    mean early-stopped loss minus the last (averaged over seeds) lies below 0."""
    rows = examples[(examples["split"] == "test") & examples["checkpoint"].isin(["last", "best"])]
    losses = rows.pivot_table(index=["variant", "example"], columns="checkpoint", values="rloss")
    losses = losses.reindex(columns=["last", "best"])
    improved = {}
    for slug, values in (losses["best"] - losses["last"]).dropna().groupby(level="variant", sort=False):
        means = resampled_counts(len(values), NOISE_RESAMPLES) @ values.to_numpy() / len(values)
        improved[slug] = bool(np.quantile(means, TAILS[1]) < 0)
    return improved


def more_robust(examples: pd.DataFrame, column: str) -> dict[str, bool]:
    """Return, for each variant with per-example values, whether its mean of a column over test examples, at
    the last checkpoint, is below the baseline's beyond noise: the interval of the variant's mean over seeds
    minus the baseline, over the baseline's seeds and the examples that both have, lies below 0."""
    rows = examples[(examples["split"] == "test") & (examples["checkpoint"] == "last")]
    values = rows.dropna(subset=column).pivot(index="example", columns=["variant", "seed"], values=column)
    if "at" not in values:
        return {}
    below = {}
    for slug in values.columns.unique("variant").drop("at"):
        differences = (values[slug].mean(axis=1) - values["at"].T).dropna(axis=1).to_numpy()
        # With one seed of the baseline, the interval is over examples alone.
        interval, _ = mean_interval(differences.T if len(differences) == 1 else differences)
        if not math.isnan(interval.high):
            below[slug] = interval.high < 0
    return below
