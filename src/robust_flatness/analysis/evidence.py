"""An experiment's tables in the form in which claims are judged: averaged over seeds, each model once."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from robust_flatness.analysis import curves
from robust_flatness.analysis.resampling import LEVEL, resampled_counts
from robust_flatness.analysis.rises import mean_interval
from robust_flatness.tables import aggregate, frames, schema

#: Resamples for the noise of one model's evaluation: 74 models share them.
NOISE_RESAMPLES = 1999
#: Measures that tell whether two variants have the same weights.
CAPACITY = ("weight_norm", "distance_from_init", "spectral_product")


@dataclass(frozen=True)
class Evidence:
    """An experiment's tables as the tests of claims read them.

    `models`, `derived`, `history` and `series` are averaged over seeds. Models that have not learnt are
    left out of them (`not_learnt`: variants; `seeds_not_learnt`: seeds of others), and variants with the
    same weights are counted once in `models` (`repeated`: slug -> the slug it equals). `everyone` is
    `models` with the variants that have not learnt. `seeds` are the tables seed by seed, with values of
    single examples.
    """

    models: pd.DataFrame
    everyone: pd.DataFrame
    derived: pd.DataFrame
    history: pd.DataFrame
    series: pd.DataFrame
    seeds: frames.Tables
    not_learnt: tuple[str, ...] = ()
    seeds_not_learnt: tuple[tuple[str, int], ...] = ()
    repeated: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, tables: frames.Tables) -> "Evidence":
        models = _numeric_settings(tables.models)
        trained = aggregate.learnt(models)
        failed = {*models.loc[~trained, ["variant", "seed"]].itertuples(index=False, name=None)}

        def kept(frame: pd.DataFrame) -> pd.DataFrame:
            if not failed or frame.empty:
                return frame
            keys = pd.MultiIndex.from_frame(frame[["variant", "seed"]])
            return frame[~keys.isin([*failed])]

        same = models.get("same_as", pd.Series("", index=models.index)).astype(object).fillna("")
        same = same.where(same != "", models["variant"].map(same_weights(models)).astype(object).fillna(""))
        everyone = aggregate.with_differences(models[same == ""])
        models = kept(models)
        same = same[models.index]
        seeds = replace(
            tables,
            models=models,
            history=kept(tables.history),
            series=kept(tables.series),
            examples=kept(tables.examples),
        )
        by_epoch = ("variant", "epoch")
        return cls(
            models=aggregate.with_differences(models[same == ""]) if failed else everyone,
            everyone=everyone,
            derived=aggregate.with_scaled(models),
            history=aggregate.over_seeds(seeds.history, by_epoch),
            series=aggregate.over_seeds(seeds.series, by_epoch),
            seeds=seeds,
            not_learnt=tuple(sorted({variant for variant, _ in failed} - {*models["variant"]})),
            seeds_not_learnt=tuple(sorted(key for key in failed if key[0] in {*models["variant"]})),
            repeated=dict(zip(models["variant"][same != ""], same[same != ""], strict=True)),
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
        """See `curves.from_first_drop`, of a variant's history or series averaged over seeds."""
        frame: pd.DataFrame = getattr(self, table)
        end = curves.end_of_first_rate(self.history, variant)
        return curves.from_first_drop(frame[frame["variant"] == variant], end, *measures)


def same_weights(models: pd.DataFrame) -> dict[str, str]:
    """Variants with the weights of an earlier one (the baseline is the first): slug -> the earlier one. A
    short weight averaging, for example, differs from the baseline in the batch norms' statistics alone.

    Weights are equal if norm, distance from the initial weights and spectral product agree within 1e-3.
    """
    if not {*CAPACITY} <= {*models}:
        return {}
    rows = models[(models["checkpoint"] == "last") & (models["derived"] == 0)].dropna(subset=[*CAPACITY])
    first = rows.sort_values("variant", key=lambda slugs: slugs != "at", kind="stable")
    values = first.drop_duplicates("variant").set_index("variant")[[*CAPACITY]]
    same: dict[str, str] = {}
    for number, slug in enumerate(values.index):
        earlier = values.iloc[:number]
        equal = np.isclose(earlier, values.loc[slug], rtol=1e-3, atol=0).all(axis=1)
        if equal.any():
            match = earlier.index[np.argmax(equal)]
            same[slug] = same.get(match, match)
    return same


def _numeric_settings(models: pd.DataFrame) -> pd.DataFrame:
    """Settings of trainings, which may be words, as numbers where all that are given are."""
    numbers = {}
    for name in models.columns:
        if name.startswith("setting_") and models[name].dtype == object:
            given = models[name].replace("", math.nan)
            number = pd.to_numeric(given, errors="coerce")
            if number.notna().any() and (number.notna() == given.notna()).all():
                numbers[name] = number
    return models.assign(**numbers)


def early_stopping_pairs(
    models: pd.DataFrame,
    series: pd.DataFrame,
    measure: str,
    examples: pd.DataFrame | None = None,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Variants with a measure and test RLoss at the last and (`best_...`) early-stopped checkpoint.

    `models` are those of `aggregate.with_differences`. Where no early-stopped checkpoint was measured,
    the snapshots of `series` are used: the one of lowest test RLoss, and the last. `same` marks variants
    whose early-stopped checkpoint is the last one, `improved` those whose test RLoss is lower, given
    `examples` beyond the noise of its evaluation; `attrs` ("by_epoch", "beyond_noise") say which applies.
    """
    names = [measure, "test_rloss_pgd", f"best_{measure}", "best_test_rloss_pgd"]
    by_epoch = not aggregate.has(models, *names)
    if not by_epoch:
        pairs = models.dropna(subset=names)[["variant", "family", *names]].reset_index(drop=True)
    else:
        families = dict(zip(models["variant"], models["family"], strict=True))
        rows = []
        measured = series.dropna(subset=[measure, "test_rloss_pgd"]) if measure in series else series[:0]
        for slug, group in measured.groupby("variant", sort=False):
            group = group.sort_values("normalised_epoch")
            last, best = group.iloc[-1], group.loc[group["test_rloss_pgd"].idxmin()]
            values = [row[name] for row in (last, best) for name in (measure, "test_rloss_pgd")]
            rows.append((slug, families.get(slug, schema.OTHER), *values))
        pairs = pd.DataFrame(rows, columns=["variant", "family", *names])
    beyond = {} if by_epoch or examples is None else improved_by_early_stopping(examples, level)
    pairs["same"] = np.all([pairs[name] == pairs[f"best_{name}"] for name in names[:2]], axis=0)
    pairs["improved"] = pairs["best_test_rloss_pgd"] < pairs["test_rloss_pgd"]
    if beyond:
        pairs["improved"] = [beyond.get(slug, False) for slug in pairs["variant"]]
    pairs.attrs.update(by_epoch=by_epoch, beyond_noise=bool(beyond))
    return pairs


def improved_by_early_stopping(examples: pd.DataFrame, level: float = LEVEL) -> dict[str, bool]:
    """Whether early stopping lowers test RLoss beyond the noise of its evaluation, for each variant with
    losses of single test examples at both checkpoints: the bootstrap interval, over examples, of the
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
    """Whether a variant's mean of a column of single test examples, at the last checkpoint, is below the
    baseline's beyond noise, for each variant with such values.

    The variant's mean over seeds minus each seed of the baseline is taken on the examples that both have; the
    interval of the mean over the baseline's seeds and the examples lies below 0.
    """
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


def kink(models: pd.DataFrame) -> float:
    """The loss ln K of a uniform guess among K classes (10 where the table does not say), at which RErr over
    RLoss bends according to the paper."""
    classes = models.get("classes", pd.Series(dtype=float)).dropna()
    return math.log(float(classes.iloc[0]) if len(classes) else 10)
