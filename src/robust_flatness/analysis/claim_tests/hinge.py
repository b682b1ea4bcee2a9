"""Test of a bend of RErr over RLoss (see `analysis.hinge`)."""

from typing import ClassVar, Literal

from pydantic import Field

from robust_flatness.analysis.claim_tests.base import (
    FAILS,
    HOLDS,
    INCONCLUSIVE,
    Finding,
    Rules,
    Test,
    few_families,
    noted,
    require,
)
from robust_flatness.analysis.evidence import Evidence, kink
from robust_flatness.analysis.hinge import LEAST, RLOSS, fitted
from robust_flatness.config import Real
from robust_flatness.tables import aggregate, schema

TITLES = {
    "break": "break",
    "slopes": "slope above over slope below the break",
    "fit": "residuals of a cubic over those",
}


class Hinge(Test):
    """One of three properties of a hinge of RErr over RLoss.

    `break`: its interval lies within `within` of ln K; it fails if it lies wholly outside or is narrow.
    `slopes`: slope above the break over the slope below it; the upper end of its interval lies below `below`.
    `fit`: residual sum of squares of a cubic, which has as many parameters, over the hinge's: above 1. The
    last two cannot fail where the interval of the break is wider than `within` on either side and, for the
    slopes, the interval holds `below`.
    """

    over_variants: ClassVar[bool] = True

    kind: Literal["hinge"]
    statistic: Literal["break", "slopes", "fit"]
    within: Real = Field(gt=0)
    below: Real = Field(0.5, gt=0)

    def title(self, evidence: Evidence) -> str:
        measure = aggregate.robust_error_column(evidence.models)
        return f"{TITLES[self.statistic]} of a hinge of {schema.describe(measure)} over RLoss"

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        models = evidence.models
        measure = aggregate.robust_error_column(models)
        require(models, RLOSS, measure)
        models = models.dropna(subset=[RLOSS, measure])
        n, different = len(models), models[RLOSS].nunique()
        least = max(rules.minimum.variants, LEAST)
        if different < least:
            few = f"{different} variants of different RLoss, {least} needed"
            return Finding(n=n, outcome=INCONCLUSIVE, note=few)
        hinge = fitted(models, measure, **rules.bootstrap)
        if hinge is None:
            return Finding(n=n, outcome=INCONCLUSIVE, note="no hinge can be fitted")
        low, high = kink(models) - self.within, kink(models) + self.within
        at, wide = hinge.at_interval, hinge.at_interval.width > 2 * self.within
        note = "the interval of the break is too wide to tell"
        if self.statistic == "break":
            holds, fails = low <= at.low and at.high <= high, at.low > high or at.high < low or not wide
            numbers = hinge.at, at, hinge.at_over
            note = f"expected within {low:.2f} and {high:.2f}" + f"; {note}" * (not holds and not fails)
        elif self.statistic == "slopes":
            ratio = hinge.ratio_interval
            holds, fails = ratio.high < self.below, ratio.low >= self.below or not wide
            numbers = hinge.ratio, ratio, hinge.ratio_over
        else:
            holds, fails = hinge.smooth > 1, not wide
            numbers = (hinge.smooth,)
        outcome = HOLDS if holds else FAILS if fails else INCONCLUSIVE
        found = Finding(*numbers, n=n, outcome=outcome)
        note = note if self.statistic == "break" or outcome == INCONCLUSIVE else ""
        return noted(found, note, few_families(models["family"]))
