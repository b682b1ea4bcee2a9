"""Tests of a bend of RErr over RLoss (see `analysis.hinge`)."""

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from robust_flatness.analysis.claim_tests.base import (
    FAILS,
    HOLDS,
    Finding,
    Rules,
    Test,
    few_families,
    lacking,
    noted,
)
from robust_flatness.analysis.evidence import Evidence, kink
from robust_flatness.analysis.hinge import LEAST, RLOSS, Fitted, fitted
from robust_flatness.config import Real
from robust_flatness.tables import aggregate, schema


class _OfHinge(Test):
    """What the tests of the hinge share."""

    over_variants: ClassVar[bool] = True
    title: ClassVar[str]

    def found(self, finding: Finding, fitted: Fitted, expected: float) -> Finding:
        """The finding with value, interval and outcome; `expected` is -ln(1/K)."""
        raise NotImplementedError

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        models = evidence.models
        measure = aggregate.robust_error_column(models)
        name = f"{self.title} of a hinge of {schema.describe(measure)} over RLoss"
        missing = lacking(models, RLOSS, measure)
        if missing:
            return Finding(name, note=missing)
        models = models.dropna(subset=[RLOSS, measure])
        different, least = models[RLOSS].nunique(), max(rules.minimum.variants, LEAST)
        if different < least:
            note = f"{different} variants of different RLoss, {least} needed"
            return Finding(name, n=len(models), note=note)
        hinge = fitted(models, measure, **rules.bootstrap)
        if hinge is None:
            return Finding(name, n=len(models), note="no hinge can be fitted")
        found = self.found(Finding(name, n=len(models)), hinge, kink(models))
        return noted(found, few_families(models["family"]))


class HingeBreak(_OfHinge):
    """Where the hinge breaks: its interval lies within `within` of -ln(1/K). One wider than that is not
    testable, unless it lies wholly outside."""

    kind: Literal["hinge-break"]
    within: Real = Field(gt=0)

    title: ClassVar[str] = "break"

    def found(self, finding: Finding, fitted: Fitted, expected: float) -> Finding:
        interval = fitted.at_interval
        low, high = expected - self.within, expected + self.within
        found = replace(finding, value=fitted.at, interval=interval, over=fitted.at_over)
        expectation = f"expected within {low:.2f} and {high:.2f}"
        if interval.low >= low and interval.high <= high:
            return noted(replace(found, outcome=HOLDS), expectation)
        if interval.low > high or interval.high < low or interval.width <= high - low:
            return noted(replace(found, outcome=FAILS), expectation)
        return noted(found, f"{expectation}; the interval is too wide to tell")


class HingeSlopes(_OfHinge):
    """Slope above the break over the slope below it: the upper end of its interval lies below `below`. Not
    testable where the break is not determined to `within` either side and the interval holds `below`."""

    kind: Literal["hinge-slopes"]
    below: Real = Field(gt=0)
    within: Real = Field(gt=0)

    title: ClassVar[str] = "slope above over slope below the break"

    def found(self, finding: Finding, fitted: Fitted, expected: float) -> Finding:
        interval = fitted.ratio_interval
        found = replace(finding, value=fitted.ratio, interval=interval, over=fitted.ratio_over)
        if interval.high < self.below:
            return replace(found, outcome=HOLDS)
        if interval.low >= self.below or fitted.at_interval.width <= 2 * self.within:
            return replace(found, outcome=FAILS)
        return noted(found, "the break is not determined")


class HingeFit(_OfHinge):
    """Residual sum of squares of a cubic, which has as many parameters, over the hinge's: above 1. Not
    testable where the break is not determined to `within` either side."""

    kind: Literal["hinge-fit"]
    within: Real = Field(gt=0)

    title: ClassVar[str] = "residuals of a cubic over those"

    def found(self, finding: Finding, fitted: Fitted, expected: float) -> Finding:
        found = replace(finding, value=fitted.smooth)
        if fitted.smooth > 1:
            return replace(found, outcome=HOLDS)
        if fitted.at_interval.width <= 2 * self.within:
            return replace(found, outcome=FAILS)
        return noted(found, "the break is not determined")
