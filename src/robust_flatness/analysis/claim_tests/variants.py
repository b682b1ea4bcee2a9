"""Tests of mean differences over variants, to the baseline and of early stopping, and of the bend of RErr."""

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field
from scipy import stats

from robust_flatness.analysis.claim_tests import base
from robust_flatness.analysis.claim_tests.base import Finding, NotMeasuredError, Rules, Sign, of_estimate
from robust_flatness.analysis.evidence import Evidence, early_stopping_pairs, more_robust
from robust_flatness.analysis.hinge import LEAST, RLOSS, fitted, kink
from robust_flatness.analysis.resampling import UNKNOWN, Interval, estimate
from robust_flatness.config import Real
from robust_flatness.tables import aggregate
from robust_flatness.tables.schema import describe

#: Smallest number of variants in each of two groups that are compared.
LEAST_IN_GROUP = 3
#: Titles of the properties of a hinge.
TITLES = {
    "break": "break",
    "slopes": "slope above over slope below the break",
    "fit": "residuals of a cubic over those",
}


class Baseline(base.Selection):
    """Mean difference to the baseline, over the variants of some families with lower RErr (AutoAttack's where
    it was run) or RLoss than the baseline; beyond noise, see `more_robust`, if values of examples were kept.

    All differences share one value of the baseline. Its standard error (over its seeds, else over the
    samples of its flatness) widens the interval, with Student's quantile, and bounds the p-value from below.
    """

    kind: Literal["baseline"]
    measure: str
    robust: Literal["rerr", "rloss"]
    sign: Sign

    def _robust(self, evidence: Evidence) -> str:
        return RLOSS if self.robust == "rloss" else aggregate.robust_error_column(evidence.models)

    def title(self, evidence: Evidence) -> str:
        name = f"mean {describe(self.measure)} minus the baseline's, of those with lower "
        return name + describe(self._robust(evidence)) + self.restriction

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        measure, models, robust = self.measure, evidence.models, self._robust(evidence)
        base.require(models, measure, robust)
        baseline = models[models["variant"] == "at"]
        if not aggregate.has(baseline, measure, robust):
            raise NotMeasuredError("the baseline was not measured")
        at = baseline.iloc[0]
        chosen = self.chosen(models).dropna(subset=[measure, robust])
        column = "rloss" if self.robust == "rloss" else robust.removeprefix("test_")
        beyond = more_robust(evidence.seeds.examples, column, rules.level)
        lower = chosen["variant"].map(beyond).eq(True) if beyond else chosen[robust] < at[robust]
        chosen = chosen[lower]
        counts = chosen["family"].value_counts(sort=False)
        part = ", ".join(f"{name} ({count})" for name, count in counts.items()) or "none"
        differences = (chosen[measure] - at[measure]).to_numpy(float)
        found = of_estimate(base.mean_difference(differences, chosen["family"], rules))
        lower_at_all = "values of single examples were not kept: lower at all" * (not beyond)
        found = found.noted(f"taking part: {part}", lower_at_all)
        error, degrees, source = _standard_error(at, measure)
        if not error > 0:
            return found.noted("the baseline's own error is not known, nor in the interval")
        reach = stats.t.ppf((1 + rules.level) / 2, degrees) * error
        below, above = (math.hypot(end - found.value, reach) for end in found.interval)
        p = max(found.p, 2 * float(stats.t.sf(abs(found.value) / error, degrees)))
        widened = replace(found, interval=Interval(found.value - below, found.value + above), p=p)
        return widened.noted(f"the baseline's error over {source} included")


def _standard_error(at: pd.Series, measure: str) -> tuple[float, float, str]:
    """Return the standard error of the baseline's measure, its degrees of freedom, and its units."""
    seeds, spread = at.get("seeds", 1), at.get(f"{measure}_seed_sd", math.nan)
    if seeds > 1 and spread > 0:
        return spread / math.sqrt(seeds), seeds - 1, f"{seeds} seeds"
    error, spread = at.get(f"{measure}_se", math.nan), at.get(f"{measure}_std", math.nan)
    samples = round((spread / error) ** 2) if error > 0 and spread > 0 else 0
    return error, samples - 1 if samples > 1 else math.inf, "samples of its flatness"


class EarlyStopping(base.Test):
    """Mean difference early-stopped minus last, over variants that early stopping improves (see
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
        pairs = early_stopping_pairs(evidence, self.measure, rules.level)
        if pairs.empty:
            raise NotMeasuredError(f"not measured: {describe(self.measure)}, early-stopped")
        kept = pairs[pairs["improved"] | ~pairs["same"] if self.control else pairs["improved"]]
        changes = (kept[f"best_{self.measure}"] - kept[self.measure]).to_numpy(float)
        if self.control:
            found = difference_of_groups(changes, kept["improved"].to_numpy(bool), kept["family"], rules)
        else:
            found = of_estimate(base.mean_difference(changes, kept["family"], rules))
        lower = "losses of single examples were not kept: improved is any lower RLoss"
        snapshot = "early-stopped is the snapshot of lowest test RLoss"
        return found.noted(lower * (not pairs.attrs["beyond_noise"]), snapshot * pairs.attrs["by_epoch"])


def difference_of_groups(values: np.ndarray, first: np.ndarray, families: pd.Series, rules: Rules) -> Finding:
    """Mean of the variants in `first` minus that of the others; p-value by permuting Welch's t, since the
    difference itself is not exchangeable where groups of unequal size differ in variance."""
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
    return of_estimate(estimate(statistic, families, float(p), **rules.bootstrap), sizes)


class Hinge(base.Test):
    """One of three properties of a hinge of RErr over RLoss: the interval of its `break` lies within `within`
    of ln K; that of the ratio of its `slopes`, above over below, ends below `below`; its `fit` is better than
    a cubic's. Where the interval of the break is too wide, only one that lies wholly elsewhere fails."""

    kind: Literal["hinge"]
    statistic: Literal["break", "slopes", "fit"]
    within: Real = Field(gt=0)
    below: Real = Field(0.5, gt=0)

    def title(self, evidence: Evidence) -> str:
        measure = aggregate.robust_error_column(evidence.models)
        return f"{TITLES[self.statistic]} of a hinge of {describe(measure)} over RLoss"

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        measure = aggregate.robust_error_column(evidence.models)
        base.require(evidence.models, RLOSS, measure)
        models = evidence.models.dropna(subset=[RLOSS, measure])
        hinge = fitted(models, measure, **rules.bootstrap)
        if hinge is None:
            few = f"{models[RLOSS].nunique()} variants of different RLoss, {LEAST} needed"
            return Finding(n=len(models), outcome=base.INCONCLUSIVE, note=few)
        low, high = kink(models) - self.within, kink(models) + self.within
        at, note = hinge.at.interval, ""
        value, interval, over = hinge.at.value, at, hinge.at.over
        wide = at.width > 2 * self.within
        if self.statistic == "break":
            holds, fails = low <= at.low and at.high <= high, at.low > high or at.high < low or not wide
            note = f"expected within {low:.2f} and {high:.2f}"
        elif self.statistic == "slopes":
            ratios = {"variants": hinge.ratio.by_variant, "families": hinge.ratio.by_family}
            over = max(ratios, key=lambda over: ratios[over].high)
            value, interval = hinge.ratio.value, ratios[over]
            holds, fails = interval.high < self.below, interval.low >= self.below or not wide
        else:
            value, interval, over = hinge.smooth, UNKNOWN, ""
            holds, fails = hinge.smooth > 1, not wide
        outcome = base.HOLDS if holds else base.FAILS if fails else base.INCONCLUSIVE
        too_wide = "the interval of the break is too wide to tell" * (outcome == base.INCONCLUSIVE)
        found = of_estimate(hinge.at, note, too_wide)
        return replace(found, value=value, interval=interval, over=over, outcome=outcome)
