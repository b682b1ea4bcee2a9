"""Tests for the claims made since the talk: partial correlations, and a share of many measures."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from robust_flatness.analysis.claim_tests.base import (
    FAILS,
    HOLDS,
    UNTESTABLE,
    Finding,
    Linear,
    Rules,
    Selection,
    Sign,
    Test,
    few_families,
    judged,
    lacking,
    noted,
    too_few,
)
from robust_flatness.analysis.coefficients import COEFFICIENTS
from robust_flatness.analysis.comparison import candidates
from robust_flatness.analysis.correlation import partial
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.analysis.resampling import Interval, membership, resampled_counts
from robust_flatness.config import Positive, Real
from robust_flatness.tables import schema


class Partial(Selection):
    """Partial correlation of two measures given a third one, or its logarithm.

    With a `sign` it is judged as other correlations. `within` claims that there is none: it holds if the
    interval lies within that of 0, does not hold if the interval lies on one side of 0 and is
    significant, and is not testable if the interval is too wide to tell.
    """

    kind: Literal["partial"]
    coefficient: Linear
    measure: str
    against: str
    given: str
    logarithm: bool = False
    sign: Sign | None = None
    within: Positive | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> "Partial":
        if (self.sign is None) == (self.within is None):
            raise ValueError("name one of sign and within")
        return self

    def columns(self) -> list[str]:
        return [self.measure, self.against, self.given]

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        given = f"{'the logarithm of ' if self.logarithm else ''}{schema.describe(self.given)}"
        name = f"partial {self.coefficient.title()}, {schema.describe(self.measure)} with "
        name += f"{schema.describe(self.against)} given {given}{self.restriction}"
        models = self.chosen(evidence.models)
        if self.given in models:
            models = models.assign(**{self.given: pd.to_numeric(models[self.given], errors="coerce")})
        missing = lacking(models, self.measure, self.against, self.given)
        if missing:
            return Finding(name, note=missing)
        third = np.log(models[self.given]) if self.logarithm else models[self.given]
        found = partial(
            *(models[self.measure], models[self.against], third, models["family"]),
            kind=self.coefficient,
            resamples=rules.resamples,
            level=rules.level,
        )
        over = "families" if found.interval is found.over_families else "variants"
        finding = Finding(name, found.value, found.interval, over, found.p, found.n)
        few = too_few(found.n, rules.minimum.variants, "variants")
        if few:
            return noted(finding, few)
        if self.sign is not None:
            finding = judged(finding, self.sign, rules)
        else:
            finding = _absent(finding, self.within, rules)
        return noted(finding, few_families(models["family"]))


def _absent(finding: Finding, within: float, rules: Rules) -> Finding:
    """The outcome of a test that claims an absence."""
    present = judged(finding, "either", rules)
    if present.outcome == UNTESTABLE:
        return present
    if -within < finding.interval.low and finding.interval.high < within:
        return replace(finding, outcome=HOLDS)
    if present.outcome == HOLDS:
        return replace(finding, outcome=FAILS)
    return noted(finding, f"the interval is not within {within:g} of 0, nor off 0: too wide to tell")


#: Resamples of a share of many measures: each costs as much as a correlation for every measure.
SHARE_RESAMPLES = 1999


class Share(Test):
    """Share of the measures of sharpness and margin whose correlation with a target is at least `least`
    (reversed where large is meant to be good), on the clean and on the robust loss, without the controls.

    The interval is of percentiles over resampled variants and families, the wider one. `below` claims
    that the share is smaller: it holds if the interval lies below, does not hold if it lies above, and
    is not testable if it holds that number.
    """

    over_variants: ClassVar[bool] = True

    kind: Literal["share"]
    coefficient: Linear
    against: str
    least: Annotated[Real, Field(ge=0, le=1)]
    below: Annotated[Real, Field(gt=0, le=1)]
    minimum: int = Field(6, ge=1)
    """The least number of measures."""

    def columns(self) -> list[str]:
        return [self.against]

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        name = f"share of measures with {self.coefficient.title()} of at least {self.least:g} with "
        name += schema.describe(self.against)
        missing = lacking(evidence.models, self.against)
        if missing:
            return Finding(name, note=missing)
        models = evidence.models.dropna(subset=[self.against])
        signs = {
            column: candidate.sign
            for candidate in candidates(models)
            if candidate.group != "control"
            for column in candidate.columns.values()
        }
        if len(signs) < self.minimum:
            return Finding(name, note=f"{len(signs)} measures, {self.minimum} needed")
        few = too_few(len(models), rules.minimum.variants, "variants")
        if few:
            return Finding(name, n=len(models), note=few)
        units = membership(models["family"])
        draws = {
            "variants": resampled_counts(len(models), SHARE_RESAMPLES),
            "families": resampled_counts(len(units), SHARE_RESAMPLES) @ units,
        }
        ends = [(1 - rules.level) / 2, (1 + rules.level) / 2]
        intervals = {
            over: Interval(*np.quantile(self._shares(models, signs, counts), ends).tolist())
            for over, counts in draws.items()
        }
        over = max(intervals, key=lambda over: intervals[over].width)
        interval = intervals[over]
        value = float(self._shares(models, signs, np.ones((1, len(models))))[0])
        outcome = UNTESTABLE
        if interval.high < self.below:
            outcome = HOLDS
        elif interval.low >= self.below:
            outcome = FAILS
        found = Finding(name, value, interval, over, n=len(models), outcome=outcome)
        unclear = f"the interval holds {self.below:g}" if outcome == UNTESTABLE else ""
        return noted(found, f"{len(signs)} measures", unclear, few_families(models["family"]))

    def _shares(self, models: pd.DataFrame, signs: dict[str, int], counts: np.ndarray) -> np.ndarray:
        """Share of the measures that reach `least`, for each resample: [B]."""
        reached = np.zeros(len(counts))
        target = models[self.against].to_numpy(float)
        for column, sign in signs.items():
            kept = models[column].notna().to_numpy()
            values = models.loc[kept, column].to_numpy(float)
            found = sign * COEFFICIENTS[self.coefficient](values, target[kept], counts[:, kept])
            reached += np.nan_to_num(found, nan=-1) >= self.least
        return reached / len(signs)
