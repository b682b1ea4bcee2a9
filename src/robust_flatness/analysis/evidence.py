"""What the claims are judged by: an experiment's tables, averaged over seeds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from robust_flatness.analysis.resampling import resampled_counts
from robust_flatness.tables import aggregate, frames, schema
from robust_flatness.tables.aggregate import learnt
from robust_flatness.tables.schema import OF_EXAMPLES

#: Resamples for the noise of one model's evaluation: 74 models share them.
NOISE_RESAMPLES = 1999


@dataclass(frozen=True)
class Evidence:
    """An experiment's tables as the tests read them.

    `models`, `derived`, `history` and `series` are averaged over seeds. Models that have not learnt are
    left out of them (`not_learnt`: variants; `seeds_not_learnt`: seeds of others), and variants that are
    one model are counted once in `models` (`repeated`: slug -> the slug it equals). `seeds` are the
    tables seed by seed, and `examples` holds losses and errors of single examples (empty where they were
    not kept).
    """

    models: pd.DataFrame
    derived: pd.DataFrame
    history: pd.DataFrame
    series: pd.DataFrame
    seeds: frames.Tables
    examples: pd.DataFrame
    not_learnt: tuple[str, ...] = ()
    seeds_not_learnt: tuple[tuple[str, int], ...] = ()
    repeated: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, tables: frames.Tables) -> "Evidence":
        by_epoch = ("variant", "epoch")
        models = _numeric_settings(tables.models)
        trained = learnt(models)
        failed = {*models.loc[~trained, ["variant", "seed"]].itertuples(index=False, name=None)}

        def kept(frame: pd.DataFrame) -> pd.DataFrame:
            if not failed or frame.empty:
                return frame
            keys = pd.MultiIndex.from_frame(frame[["variant", "seed"]])
            return frame[~keys.isin([*failed])]

        models = kept(models)
        same = models.get("same_as", pd.Series("", index=models.index)).fillna("")
        seeds = replace(tables, history=kept(tables.history), series=kept(tables.series))
        return cls(
            models=aggregate.with_differences(models[same == ""]),
            derived=aggregate.with_scaled(models),
            history=aggregate.over_seeds(seeds.history, by_epoch),
            series=aggregate.over_seeds(seeds.series, by_epoch),
            seeds=seeds,
            examples=kept(tables.examples),
            not_learnt=tuple(sorted({variant for variant, _ in failed} - {*models["variant"]})),
            seeds_not_learnt=tuple(sorted(key for key in failed if key[0] in {*models["variant"]})),
            repeated=dict(zip(models["variant"][same != ""], same[same != ""], strict=True)),
        )

    def end_of_first_rate(self, variant: str) -> float:
        """The share of the training at which its first learning rate ends; the baseline's where the
        variant's own is not in the history; NaN where neither drops."""
        for slug in (variant, "at"):
            history = self.history[self.history["variant"] == slug].dropna(subset=["learning_rate"])
            history = history.sort_values("normalised_epoch")
            dropped = history["learning_rate"].to_numpy() < history["learning_rate"].max()
            if dropped.any() and not dropped[0]:
                return float(history["normalised_epoch"].to_numpy()[np.argmax(dropped) - 1])
        return math.nan

    def from_first_drop(self, table: str, variant: str, *measures: str) -> pd.DataFrame:
        """Rows of a variant's history or series that have all `measures`, from the last one at or
        before the end of the first learning rate on. Without any row at all if a measure is no
        column or the rate does not drop."""
        frame: pd.DataFrame = getattr(self, table)
        return self._from_first_drop(frame[frame["variant"] == variant], variant, measures)

    def _from_first_drop(self, rows: pd.DataFrame, variant: str, measures) -> pd.DataFrame:
        end = self.end_of_first_rate(variant)
        if math.isnan(end) or not set(measures) <= set(rows):
            return rows.iloc[:0]
        rows = rows.sort_values("normalised_epoch").dropna(subset=list(measures))
        before = rows["normalised_epoch"] <= end + 1e-6
        return rows.iloc[max(0, int(before.sum()) - 1) :]

    def rise(self, variant: str, measure: str) -> np.ndarray:
        """The measure at the end of the training minus that at the last snapshot before the first
        drop of the rate, for each seed and example: [seeds, examples], or [seeds, 1] where it is known
        of no single example. [0, 1] where it was not measured at both.

        Sources, the first that has at least two seeds: examples, snapshots (`series`), training curves
        (`history`, where a measure has no name of an attack).
        """
        found = self._rise_of_examples(variant, measure)
        for table, name in (("series", measure), ("history", measure.removesuffix("_pgd"))):
            if len(found) < 2:
                found = max(found, self._rise_of_rows(table, variant, name), key=len)
        return found

    def _rise_of_examples(self, variant: str, measure: str) -> np.ndarray:
        """Of the snapshots alone, which one attack has evaluated: `last` and `best` had another one."""
        split, _, column = measure.partition("_")
        column = "rloss" if column == "rloss_pgd" else column
        frame, end = self.examples, self.end_of_first_rate(variant)
        if column not in OF_EXAMPLES or math.isnan(end):
            return np.empty((0, 1))
        chosen = (frame["variant"] == variant) & (frame["split"] == split)
        frame = frame[chosen & frame["checkpoint"].str.startswith("epoch-")].dropna(subset=[column])
        epochs = float(self.history.loc[self.history["variant"] == variant, "epochs"].max())
        snapshots = {
            name: (int(name.removeprefix("epoch-")) + 1) / epochs for name in frame["checkpoint"].unique()
        }
        before = [name for name, share in snapshots.items() if share <= end + 1e-6]
        if not before or len(before) == len(snapshots):
            return np.empty((0, 1))
        first, last = max(before, key=snapshots.get), max(snapshots, key=snapshots.get)
        values = frame.pivot(index=["seed", "example"], columns="checkpoint", values=column)
        rise = (values[last] - values[first]).unstack("seed")
        rise = rise.dropna(axis="columns", how="all").dropna().to_numpy().T
        return rise * (100 if column.startswith("rerr") else 1)

    def _rise_of_rows(self, table: str, variant: str, measure: str) -> np.ndarray:
        frame: pd.DataFrame = getattr(self.seeds, table)
        rises = []
        for _, rows in frame[frame["variant"] == variant].groupby("seed"):
            rows = self._from_first_drop(rows, variant, [measure])
            before = rows["normalised_epoch"] <= self.end_of_first_rate(variant) + 1e-6
            if before.any() and len(rows) > 1:
                rises.append(float(rows[measure].iloc[-1] - rows[measure].iloc[0]))
        return np.array(rises).reshape(-1, 1)


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


def early_stopping_pairs(models: pd.DataFrame, series: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Variants with a measure and test RLoss at the last and (`best_...`) early-stopped checkpoint.

    `models` are those of `aggregate.with_differences`. Where no early-stopped checkpoint was measured,
    the snapshots of `series` are used: the one of lowest test RLoss, and the last;
    `attrs["by_epoch"]` says so. `same` marks variants whose early-stopped checkpoint is the last one.
    """
    names = [measure, "test_rloss_pgd", f"best_{measure}", "best_test_rloss_pgd"]
    if aggregate.has(models, *names):
        pairs = models.dropna(subset=names)[["variant", "family", *names]].reset_index(drop=True)
        by_epoch = False
    else:
        families = dict(zip(models["variant"], models["family"], strict=True))
        rows = []
        if measure in series:
            measured = series.dropna(subset=[measure, "test_rloss_pgd"])
            for slug, group in measured.groupby("variant", sort=False):
                group = group.sort_values("normalised_epoch")
                last, best = group.iloc[-1], group.loc[group["test_rloss_pgd"].idxmin()]
                values = [row[name] for row in (last, best) for name in (measure, "test_rloss_pgd")]
                rows.append((slug, families.get(slug, schema.OTHER), *values))
        pairs = pd.DataFrame(rows, columns=["variant", "family", *names])
        by_epoch = True
    pairs["same"] = np.all([pairs[name] == pairs[f"best_{name}"] for name in names[:2]], axis=0)
    pairs.attrs["by_epoch"] = by_epoch
    return pairs


def improved_by_early_stopping(examples: pd.DataFrame, level: float) -> dict[str, bool]:
    """Whether early stopping lowers test RLoss beyond the noise of its evaluation, for each variant
    with losses of single test examples at both checkpoints.

    The mean over examples of the early-stopped loss minus the last (averaged over seeds) is
    resampled over examples; the upper end of its interval lies below 0.
    """
    test = examples[(examples["split"] == "test") & examples["checkpoint"].isin(["last", "best"])]
    losses = test.pivot_table(index=["variant", "example"], columns="checkpoint", values="rloss")
    if not {"last", "best"} <= set(losses):
        return {}
    differences = (losses["best"] - losses["last"]).dropna()
    verdicts = {}
    for slug, values in differences.groupby(level="variant", sort=False):
        counts = resampled_counts(len(values), NOISE_RESAMPLES)
        means = counts @ values.to_numpy() / len(values)
        verdicts[slug] = bool(np.quantile(means, (1 + level) / 2) < 0)
    return verdicts


def kink(models: pd.DataFrame) -> float:
    """Where RErr over RLoss bends: -ln(1/K), the loss of a uniform guess among K classes (10
    where the table does not say)."""
    classes = models.get("classes", pd.Series(dtype=float)).dropna()
    return math.log(float(classes.iloc[0]) if len(classes) else 10)
