"""An experiment's tables in the form in which claims are judged: averaged over seeds, each model once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from robust_flatness.analysis.resampling import LEVEL, resampled_counts
from robust_flatness.analysis.rises import SLACK, end_of_first_rate, mean_interval
from robust_flatness.tables import aggregate, frames, schema

#: Number of resamples for the noise of a model's evaluation, shared by all models.
NOISE_RESAMPLES = 1999
#: Measures that, if all are equal, identify variants with the same weights.
CAPACITY = ("weight_norm", "distance_from_init", "spectral_product")


@dataclass(frozen=True)
class Evidence:
    """An experiment's tables as the tests of claims read them.

    `models`, `history` and `series` are averaged over seeds, `seeds` are the tables seed by seed. Models
    trained on clean examples alone are in the values of single examples only (`seeds.examples`). Models that
    have not learnt are left out (`not_learnt`: variants; `seeds_not_learnt`: seeds of others), but for
    `everyone`, the `models` with these variants. Variants with the same weights are counted once in `models`
    and `everyone` (`repeated`: slug -> the slug it equals).
    """

    models: pd.DataFrame
    everyone: pd.DataFrame
    history: pd.DataFrame
    series: pd.DataFrame
    seeds: frames.Tables
    not_learnt: Sequence[str]
    seeds_not_learnt: Sequence[tuple[str, int]]
    repeated: Mapping[str, str]

    @classmethod
    def of(cls, tables: frames.Tables) -> "Evidence":
        everyone = _numeric_settings(aggregate.adversarially_trained(tables.models))
        failed = pd.MultiIndex.from_frame(everyone.loc[~aggregate.learnt(everyone), ["variant", "seed"]])

        def learnt(frame: pd.DataFrame) -> pd.DataFrame:
            return frame[~pd.MultiIndex.from_frame(frame[["variant", "seed"]]).isin(failed)]

        def once(frame: pd.DataFrame) -> pd.DataFrame:
            return aggregate.with_differences(frame[~frame["variant"].isin(same)])

        models, same = learnt(everyone), same_weights(everyone)
        variants = {*models["variant"]}
        seeds = {name: learnt(getattr(tables, name)) for name in ("history", "series", "examples")}
        return cls(
            models=once(models),
            everyone=once(everyone),
            history=aggregate.over_seeds(seeds["history"], ("variant", "epoch")),
            series=aggregate.over_seeds(seeds["series"], ("variant", "epoch")),
            seeds=replace(tables, models=models, **seeds),
            not_learnt=sorted({variant for variant, _ in failed} - variants),
            seeds_not_learnt=sorted(key for key in {*failed} if key[0] in variants),
            repeated={slug: earlier for slug, earlier in same.items() if slug in variants},
        )

    @property
    def left_out(self) -> list[str]:
        """The variants that have not learnt, with the distances from their initial weights."""
        distances = self.everyone.set_index("variant").get("distance_from_init", pd.Series(dtype=float))
        share = (100 * distances / distances.get("at", math.nan)).dropna()
        return [
            f"{slug} ({share[slug]:.0f} % of the baseline's distance from init)" if slug in share else slug
            for slug in self.not_learnt
        ]

    def from_first_drop(self, table: str, variant: str, *measures: str) -> pd.DataFrame:
        """Return the rows of a variant in `table` ("history" or "series") that have all `measures`, from the
        last one before the first drop of the learning rate on; none where a measure is no column or the rate
        is constant."""
        rows: pd.DataFrame = getattr(self, table)
        end = end_of_first_rate(self.history, variant)
        if math.isnan(end) or not {*measures} <= {*rows}:
            return rows.iloc[:0]
        rows = rows[rows["variant"] == variant].sort_values("normalised_epoch").dropna(subset=[*measures])
        before = rows["normalised_epoch"] <= end + SLACK
        return rows.iloc[max(0, int(before.sum()) - 1) :]


def same_weights(models: pd.DataFrame) -> dict[str, str]:
    """Return variants with the weights of an earlier one, the baseline first: slug -> the earlier one.

    Weights are equal if their files are (`same_as`), or if norm, distance from the initial weights and
    spectral product agree within 1e-3: a short weight averaging, for example, differs from the baseline in
    the batch norms' statistics alone.
    """
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


def _numeric_settings(models: pd.DataFrame) -> pd.DataFrame:
    """Convert columns of settings that hold numbers alone, but for empty cells, from objects to numbers."""
    settings = models.filter(regex="^setting_")
    return models.assign(**settings.mask(settings == "").infer_objects().select_dtypes("number"))


def early_stopping_pairs(evidence: Evidence, measure: str, level: float = LEVEL) -> pd.DataFrame:
    """Return variants with a measure and test RLoss at the last and (`best_...`) early-stopped checkpoint.

    Where no early-stopped checkpoint was measured, the snapshots are used: the one of lowest test RLoss, and
    the last. `same` marks variants whose early-stopped checkpoint is the last one, `improved` those whose
    test RLoss is lower, beyond the noise of its evaluation where values of single examples were kept; `attrs`
    ("by_epoch", "beyond_noise") say which applies.
    """
    models, names = evidence.models, [measure, "test_rloss_pgd"]
    early_stopped, beyond = [f"best_{name}" for name in names], {}
    by_epoch = not aggregate.has(models, *names, *early_stopped)
    if not by_epoch:
        pairs = models.dropna(subset=[*names, *early_stopped])[["variant", "family", *names, *early_stopped]]
        beyond = improved_by_early_stopping(evidence.seeds.examples, level)
    else:
        rows = evidence.series.reindex(columns=["variant", "normalised_epoch", *names]).dropna()
        groups = rows.groupby("variant", sort=False)
        ends = groups["normalised_epoch"].idxmax(), groups["test_rloss_pgd"].idxmin()
        last, best = (rows.loc[end].set_index("variant")[names] for end in ends)
        pairs = last.join(best.add_prefix("best_")).reset_index()
        families = models.set_index("variant")["family"]
        pairs["family"] = pairs["variant"].map(families).fillna(schema.OTHER)
    improved = pairs["best_test_rloss_pgd"] < pairs["test_rloss_pgd"]
    pairs = pairs.reset_index(drop=True).assign(
        same=np.all([pairs[name] == pairs[f"best_{name}"] for name in names], axis=0),
        improved=pairs["variant"].map(beyond).eq(True) if beyond else improved,
    )
    pairs.attrs.update(by_epoch=by_epoch, beyond_noise=bool(beyond))
    return pairs


def improved_by_early_stopping(examples: pd.DataFrame, level: float = LEVEL) -> dict[str, bool]:
    """Return whether early stopping lowers test RLoss beyond the noise of its evaluation, for each variant
    with losses of single test examples at both checkpoints: the bootstrap interval, over examples, of the
    mean early-stopped loss minus the last (averaged over seeds) lies below 0."""
    rows = examples[(examples["split"] == "test") & examples["checkpoint"].isin(["last", "best"])]
    losses = rows.pivot_table(index=["variant", "example"], columns="checkpoint", values="rloss")
    if not {"last", "best"} <= {*losses}:
        return {}
    differences = (losses["best"] - losses["last"]).dropna()
    improved = {}
    for slug, values in differences.groupby(level="variant", sort=False):
        means = resampled_counts(len(values), NOISE_RESAMPLES) @ values.to_numpy() / len(values)
        improved[slug] = bool(np.quantile(means, (1 + level) / 2) < 0)
    return improved


def more_robust(examples: pd.DataFrame, column: str, level: float = LEVEL) -> dict[str, bool]:
    """Return, for each variant with per-example values, whether its mean of a column over test examples, at
    the last checkpoint, is below the baseline's beyond noise: the interval of the variant's mean over seeds
    minus the baseline, over the baseline's seeds and the examples that both have, lies below 0."""
    rows = examples[(examples["split"] == "test") & (examples["checkpoint"] == "last")]
    values = rows.dropna(subset=[column]).pivot(index="example", columns=["variant", "seed"], values=column)
    if "at" not in values:
        return {}
    baseline = values["at"].T
    below = {}
    for slug in values.columns.unique("variant").drop("at"):
        differences = (values[slug].mean(axis=1) - baseline).dropna(axis=1).to_numpy()
        # One seed of the baseline leaves the examples alone.
        interval, _ = mean_interval(differences.T if len(differences) == 1 else differences, level)
        below[slug] = interval.high < 0
    return below
