"""Tests over the checkpoints of trainings, and over scaled copies of trained models."""

from typing import Annotated, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from scipy import stats

from robust_flatness.analysis.claim_tests import base
from robust_flatness.analysis.claim_tests.base import Finding, Rules, Sign, of_estimate
from robust_flatness.analysis.correlation import correlate
from robust_flatness.analysis.evidence import Evidence, NotMeasuredError, UndecidedError, early_stopping_pairs
from robust_flatness.analysis.resampling import estimate, mean_estimate
from robust_flatness.analysis.rises import SINCE, Since, mean_interval, of_examples, paired, rise
from robust_flatness.config.values import AS_LIST, Real
from robust_flatness.tables import aggregate
from robust_flatness.tables.schema import describe

#: Alternative measures, of which the first available one is used.
Measures = Annotated[tuple[str, ...], AS_LIST, Field(min_length=1)]
EPOCH = "normalised_epoch"
#: Smallest number of variants in each of two groups that are compared.
LEAST_IN_GROUP = 3
#: Factors of the convolutions of the scaled models.
SCALES = (0.5, 2)


class Trend(base.Test):
    """Rank correlation of a measure with the epoch, or with another measure, over one training from the first
    drop of the learning rate on. The points are not independent: the p-value describes this curve alone."""

    scale_free: ClassVar[bool] = True
    counts: ClassVar = "snapshots"

    kind: Literal["trend"]
    variant: str
    measure: Measures
    against: str = EPOCH
    sign: Sign
    table: Literal["history", "series"] = "history"

    def _measure(self, evidence: Evidence) -> str:
        rows = getattr(evidence, self.table)
        rows = rows[rows["variant"] == self.variant]
        return next((name for name in self.measure if aggregate.has(rows, name)), self.measure[0])

    def title(self, evidence: Evidence) -> str:
        other = "the epoch" if self.against == EPOCH else f"{describe(self.against)} over epochs"
        return f"Spearman, {describe(self._measure(evidence))} of {self.variant} with {other}"

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        measure = self._measure(evidence)
        rows = evidence.from_first_drop(self.table, self.variant, measure, self.against)
        rows = rows.assign(family=range(len(rows)))
        found = correlate(rows, self.against, measure, "spearman", resamples=rules.resamples)
        over = "epochs" if self.table == "history" else "snapshots"
        return Finding(found.value, found.by_variant, over, found.p, found.n)


class EpochsBelow(base.Test):
    """Mean difference of two trainings' measure over their snapshots from the first drop on."""

    counts: ClassVar = "snapshots"

    kind: Literal["epochs-below"]
    variant: str
    baseline: str
    measure: str
    sign: Sign

    def title(self, evidence: Evidence) -> str:
        return f"mean {describe(self.measure)} over epochs, {self.variant} minus {self.baseline}"

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        slugs = (self.variant, self.baseline)
        first, second = (evidence.from_first_drop("series", slug, self.measure) for slug in slugs)
        differences = first[self.measure] - np.interp(first[EPOCH], second[EPOCH], second[self.measure])
        found = mean_estimate(differences.to_numpy(float), range(len(first)), rules.resamples)
        return Finding(found.value, found.interval, "snapshots", found.p, found.n)


class Pair(base.Test):
    """Measure of the first of two variants minus that of the second at their last checkpoints, paired within
    seeds and examples; the interval is over both, or over examples with one seed. Values of single examples
    are needed. The variants may be those of some experiments only: elsewhere the test is not testable."""

    counts: ClassVar = "examples"

    kind: Literal["pair"]
    variants: tuple[str, str]
    measure: str
    sign: Sign

    def title(self, evidence: Evidence) -> str:
        return f"{describe(self.measure)}, {' minus '.join(self.variants)}"

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        rows = of_examples(evidence.seeds.examples, self.measure)
        rows = rows[rows["variant"].isin(self.variants) & (rows["checkpoint"] == "last")]
        changes = paired(rows, "variant", *self.variants).to_numpy(float)
        if not changes.size:
            raise NotMeasuredError(f"not measured: {describe(self.measure)} of {' and '.join(self.variants)}")
        seeds, examples = changes.shape
        interval, p = mean_interval(changes.T if seeds == 1 else changes)
        over = "examples" if seeds == 1 else "seeds and examples"
        found = Finding(float(changes.mean()), interval, over, p, examples)
        return found.noted(f"{seeds} seed{'s' * (seeds > 1)}")


class Rise(base.Test):
    """Measure at the end of the training minus at an earlier point (see `SINCE`), paired within seeds
    and examples; the interval is over both, or over seeds alone without values of single examples.
    `otherwise` is a weaker rule for tables with too few seeds: a trend over the epochs of one training."""

    counts: ClassVar = "seeds"

    kind: Literal["rise"]
    variant: str
    measure: Measures
    since: Since
    sign: Sign
    otherwise: Trend | None = None

    def _rise(self, evidence: Evidence) -> tuple[str, pd.DataFrame]:
        rises = {name: rise(evidence.seeds, self.variant, name, self.since) for name in self.measure}
        return max(rises.items(), key=lambda item: len(item[1]))

    def title(self, evidence: Evidence) -> str:
        return f"{describe(self._rise(evidence)[0])} of {self.variant}, {SINCE[self.since]}"

    def judge(self, evidence: Evidence, rules: Rules, printed: Finding | None = None) -> Finding:
        seeds, needed = len(self._rise(evidence)[1]), rules.minimum["seeds"]
        if seeds >= needed or self.otherwise is None:
            return super().judge(evidence, rules, printed)
        few = f"seeds with both checkpoints: {seeds}, needed: {needed}"
        weaker = self.otherwise.judge(evidence, rules, printed)
        return weaker.noted(f"{few}; judged by the weaker rule, the trend over epochs")

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        measure, changes = self._rise(evidence)
        seeds, examples = changes.shape
        if seeds == 0:
            if self.since != "early-stopped":
                evidence.first_drop(self.variant)
            raise NotMeasuredError(f"not measured: {describe(measure)} at both points")
        interval, p = mean_interval(changes.to_numpy())
        over = f"seeds and {examples} examples" if examples > 1 else "seeds"
        found = Finding(float(changes.to_numpy().mean()), interval, over, p, seeds)
        fresh = changes[changes.index >= rules.fresh_seeds].to_numpy()
        if not rules.minimum["seeds"] <= len(fresh) < seeds:
            return found
        (low, high), _ = mean_interval(fresh)
        alone = f"{fresh.mean():.2f} [{low:.2f}, {high:.2f}]"
        return found.noted(f"seeds from {rules.fresh_seeds} on alone: {alone}")


class EarlyStopping(base.Test):
    """Mean of early-stopped minus last checkpoint, over variants that early stopping improves (see
    `early_stopping_pairs`); with `control`, less the same mean over those it does not improve, without those
    whose early-stopped checkpoint is the last one: their difference is 0 by construction."""

    kind: Literal["early-stopping"]
    measure: str
    control: bool = False
    sign: Sign

    def title(self, evidence: Evidence) -> str:
        name = f"mean {describe(self.measure)}, early-stopped minus last, of those improved"
        return name + (" minus the others'" if self.control else "")

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        pairs = early_stopping_pairs(evidence, self.measure)
        if pairs.empty:
            raise NotMeasuredError(f"not measured: {describe(self.measure)}, early-stopped")
        compared = pairs["improved"] | ~pairs["same"] if self.control else pairs["improved"]
        kept = pairs[compared]
        changes = (kept[f"best_{self.measure}"] - kept[self.measure]).to_numpy(float)
        if self.control:
            found = difference_of_groups(changes, kept["improved"].to_numpy(), kept["family"], rules)
        else:
            found = of_estimate(mean_estimate(changes, kept["family"], rules.resamples))
        unknown = base.without_examples(pairs.attrs["unknown"])
        lower = "losses of single examples were not kept: improved is any lower RLoss"
        snapshot = "early-stopped is the snapshot of lowest test RLoss"
        notes = lower * (not pairs.attrs["beyond_noise"]), snapshot * pairs.attrs["by_epoch"]
        return found.noted(unknown, *notes)


def difference_of_groups(values: np.ndarray, first: np.ndarray, families: pd.Series, rules: Rules) -> Finding:
    """Return the mean over the variants in `first` minus that over the others; p-value by permuting Welch's
    t, since the difference itself is not exchangeable where groups of unequal size differ in variance."""
    sides = first.astype(float), (~first).astype(float)
    sizes = f"{first.sum()} improved, {(~first).sum()} others"
    if min(first.sum(), (~first).sum()) < LEAST_IN_GROUP:
        few = f"{sizes}, {LEAST_IN_GROUP} needed of each"
        return Finding(n=len(values), outcome=base.INCONCLUSIVE, note=few)

    def statistic(counts: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            one, other = (counts @ (side * values) / (counts @ side) for side in sides)
        return one - other

    permuted = stats.PermutationMethod(n_resamples=rules.resamples, rng=np.random.default_rng(0))
    p = stats.ttest_ind(values[first], values[~first], equal_var=False, method=permuted).pvalue
    return of_estimate(estimate(statistic, families, float(p), resamples=rules.resamples), sizes)


class Scaling(base.Test):
    """Ratio of the scaled models' measure to the baseline's, as a factor of at least 1. If `invariant`, the
    largest is at most `factor`; else the smallest is at least that, and it grows as the weights shrink."""

    counts: ClassVar = "scaled models"

    kind: Literal["scaling"]
    measure: str
    factor: Real = Field(ge=1)
    invariant: bool

    def title(self, evidence: Evidence) -> str:
        return f"{describe(self.measure)} of scaled models over the baseline's, as a factor"

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        models = [f"at-scaled-{scale:g}" for scale in SCALES]
        rows = aggregate.with_scaled(evidence.seeds.models).set_index("variant")
        values = rows.reindex(index=["at", *models], columns=[self.measure]).to_numpy(float).ravel()
        if np.isnan(values).any():
            raise NotMeasuredError(f"not measured: {describe(self.measure)} of scaled models")
        if values.min() <= 0:
            raise UndecidedError("no ratio: not all values are positive")
        ratios = values[1:] / values[0]
        factors = np.maximum(ratios, 1 / ratios)
        if self.invariant:
            value, holds = factors.max(), factors.max() <= self.factor
        else:
            grows = np.all((ratios > 1) == (np.array(SCALES) < 1))
            value, holds = factors.min(), grows and factors.min() >= self.factor
        return Finding(float(value), n=len(SCALES), outcome=base.outcome(holds, not holds))


Kind = Rise | Trend | EpochsBelow | Pair | EarlyStopping | Scaling
