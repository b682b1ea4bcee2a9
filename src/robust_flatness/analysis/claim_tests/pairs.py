"""Tests of mean differences over variants: to the baseline, and of early stopping."""

import math
from dataclasses import replace
from typing import Literal

from robust_flatness import tables as results
from robust_flatness.analysis.claim_tests.base import (
    UNTESTABLE,
    Finding,
    Rules,
    Selection,
    Sign,
    Test,
    judged,
    lacking,
    mean_difference,
)
from robust_flatness.analysis.evidence import Evidence, early_stopping_pairs
from robust_flatness.analysis.resampling import NORMAL, Interval


class Baseline(Selection):
    """Mean difference to the baseline, over more robust variants of some families."""

    kind: Literal["baseline"]
    measure: str
    sign: Sign

    def columns(self) -> list[str]:
        return [self.measure]

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        measure = self.measure
        name = f"mean {results.describe(measure)}, minus the baseline's"
        models = evidence.models
        missing = lacking(models, measure, "test_rloss_pgd")
        at = models[models["variant"] == "at"]
        if missing or not results.has(at, measure, "test_rloss_pgd"):
            return Finding(name, note=missing or "the baseline was not measured")
        at = at.iloc[0]
        chosen = self.chosen(models).dropna(subset=[measure, "test_rloss_pgd"])
        chosen = chosen[chosen["test_rloss_pgd"] < at["test_rloss_pgd"]]
        differences = (chosen[measure] - at[measure]).to_numpy(float)
        found = mean_difference(differences, chosen["family"], name, self.sign, rules)
        error = at.get(f"{measure}_se", math.nan)
        if found.outcome == UNTESTABLE or not error > 0:
            unknown = "the baseline's own error is not known, nor in the interval"
            return replace(found, note=found.note or unknown)
        # All differences share one value of the baseline: its measuring error adds to the interval, and
        # a mean within it is no evidence, however many variants there are.
        scale = NORMAL.inv_cdf((1 + rules.level) / 2)
        low, high = (
            found.value + math.copysign(math.hypot(end - found.value, scale * error), end - found.value)
            for end in (found.interval.low, found.interval.high)
        )
        p = max(found.p, 2 * NORMAL.cdf(-abs(found.value) / error))
        widened = replace(found, interval=Interval(low, high), p=float(p))
        return judged(widened, self.sign, rules)


class EarlyStopping(Test):
    """Mean difference early-stopped minus last, over variants that early stopping improves."""

    kind: Literal["early-stopping"]
    measure: str
    sign: Sign

    def columns(self) -> list[str]:
        return [self.measure]

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        measure = self.measure
        name = f"mean {results.describe(measure)}, early-stopped minus last"
        pairs = early_stopping_pairs(evidence.models, evidence.series, measure)
        if pairs.empty:
            return Finding(name, note=f"not measured: {results.describe(measure)}, early-stopped")
        improved = pairs[pairs["best_test_rloss_pgd"] < pairs["test_rloss_pgd"]]
        differences = (improved[f"best_{measure}"] - improved[measure]).to_numpy(float)
        found = mean_difference(differences, improved["family"], name, self.sign, rules)
        by_epoch = "early-stopped: the snapshot of lowest test RLoss" if pairs.attrs["by_epoch"] else ""
        return replace(found, note=found.note or by_epoch)
