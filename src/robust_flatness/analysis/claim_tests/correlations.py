"""Tests of correlations over variants."""

import math
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from robust_flatness.analysis.claim_tests import base
from robust_flatness.analysis.claim_tests.base import Finding, Linear, NotMeasuredError, Rules, of_estimate
from robust_flatness.analysis.comparison import CONTROL, ON_TEST, candidates
from robust_flatness.analysis.correlation import COEFFICIENTS, correlate, difference
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.analysis.resampling import Estimate, draws, percentile_interval
from robust_flatness.config import Positive, Real
from robust_flatness.tables import aggregate
from robust_flatness.tables.schema import describe

#: Resamples of a share of many measures: each costs as much as a correlation for every measure.
SHARE_RESAMPLES = 1999
#: Smallest number of measures of which a share is given.
LEAST_MEASURES = 6


class Correlation(base.Selection):
    """Correlation of two measures over variants; with `given` the partial correlation given a third measure,
    or its logarithm. `sign` asks for a correlation of that sign. `within` claims that there is none: it holds
    if the interval lies within that of 0, and does not hold if the interval is off 0 and significant."""

    scale_free: ClassVar[bool] = True

    kind: Literal["correlation"]
    coefficient: base.Coefficient
    measure: str
    against: str
    given: str | None = None
    logarithm: bool = False
    sign: base.Sign | None = None
    within: Positive | None = None

    _one_rule = base.exactly_one("sign", "within")

    def title(self, evidence: Evidence) -> str:
        name = f"{self.coefficient.title()}, {describe(self.measure)} with {describe(self.against)}"
        if self.given:
            name = f"partial {name} given {'the logarithm of ' * self.logarithm}{describe(self.given)}"
        return name + self.restriction

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        models = self.chosen(evidence.models)
        base.require(models, self.measure, self.against, *base.alternatives(self.given))
        if self.logarithm:
            models = models.assign(**{self.given: np.log(models[self.given])})
        columns = self.measure, self.against, self.coefficient, self.given
        found = of_estimate(correlate(models, *columns, **rules.bootstrap))
        if self.within is None:
            return found
        found = base.judged(found, "either", self.within, rules)
        near = -self.within < found.interval.low and found.interval.high < self.within
        decided = base.HOLDS if near else base.FAILS
        return replace(found, outcome=base.INCONCLUSIVE if found.outcome == base.INCONCLUSIVE else decided)


class Difference(base.Test):
    """Difference of two measures' correlations with a third, over the same variants."""

    scale_free: ClassVar[bool] = True

    kind: Literal["difference"]
    coefficient: Linear
    measure: str
    minus: str
    against: str
    sign: base.Sign

    def title(self, evidence: Evidence) -> str:
        name = f"{self.coefficient.title()} with {describe(self.against)}: "
        return f"{name}{describe(self.measure)} minus {describe(self.minus)}"

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        columns = self.measure, self.minus, self.against
        base.require(evidence.models, *columns)
        return of_estimate(difference(evidence.models, *columns, self.coefficient, **rules.bootstrap))


class Radius(base.Test):
    """Correlation of a flatness measure at its smallest radius minus that at its largest, over the same
    variants: two-sided, whichever is the larger."""

    scale_free: ClassVar[bool] = True
    sign: ClassVar[base.Sign] = "either"

    kind: Literal["radius"]
    coefficient: Linear
    case: Literal["avg", "worst"]
    against: str

    def _radii(self, evidence: Evidence) -> list[tuple[float, str]]:
        radii = aggregate.all_radii(evidence.models, self.case)
        return [(xi, column) for xi, column in radii.items() if aggregate.has(evidence.models, column)]

    def title(self, evidence: Evidence) -> str:
        radii, which = self._radii(evidence), "smallest radius minus largest"
        if len(radii) > 1:
            which = f"at ξ = {radii[0][0]:g} minus at {radii[-1][0]:g}"
        measure = describe(f"{self.case}_flatness_rloss")
        return f"{self.coefficient.title()} of {measure} with {describe(self.against)}: {which}"

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        radii = self._radii(evidence)
        if len(radii) < 2:
            raise NotMeasuredError("measured at fewer than two radii")
        columns = radii[0][1], radii[-1][1], self.against
        base.require(evidence.models, *columns)
        return of_estimate(difference(evidence.models, *columns, self.coefficient, **rules.bootstrap))


class Share(base.Test):
    """Share of the measures of sharpness and margin whose correlation with a target is at least `least`
    (reversed where large is meant to be good), on the clean and on the robust loss, without the controls.

    The interval is of percentiles over resampled variants and families, the wider one. `below` claims
    that the share is smaller: it holds if the interval lies below, and does not hold if it lies above.
    """

    kind: Literal["share"]
    coefficient: Linear
    against: str
    least: Annotated[Real, Field(ge=0, le=1)]
    below: Annotated[Real, Field(gt=0, le=1)]

    def title(self, evidence: Evidence) -> str:
        name = f"share of measures with {self.coefficient.title()} of at least {self.least:g}"
        return f"{name} with {describe(self.against)}"

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        base.require(evidence.models, self.against)
        models = evidence.models.dropna(subset=[self.against])
        signs = {c.column: c.sign for c in candidates(models) if c.group not in (CONTROL, ON_TEST)}
        if len(signs) < LEAST_MEASURES:
            raise NotMeasuredError(f"{len(signs)} measures, {LEAST_MEASURES} needed")
        if len(models) < rules.minimum.variants:
            return base.judged(Finding(n=len(models)), "either", self.least, rules)

        def shares(counts: np.ndarray) -> np.ndarray:
            found = (self._reached(models, column, sign, counts) for column, sign in signs.items())
            return sum(found) / len(signs)

        units = range(len(models)), models["family"]
        intervals = (
            percentile_interval(shares(draws(groups, SHARE_RESAMPLES)), rules.level) for groups in units
        )
        value, sizes = float(shares(np.ones((1, len(models))))[0]), (len(models), models["family"].nunique())
        found = of_estimate(Estimate(value, *intervals, math.nan, *sizes), f"{len(signs)} measures")
        outcome = base.INCONCLUSIVE
        if found.interval.high < self.below:
            outcome = base.HOLDS
        elif found.interval.low >= self.below:
            outcome = base.FAILS
        return replace(found, reference=self.below, outcome=outcome)

    def _reached(self, models: pd.DataFrame, column: str, sign: int, counts: np.ndarray) -> np.ndarray:
        """Return whether a measure's correlation reaches `least`, for each resample: [B] of bool."""
        kept = models[column].notna().to_numpy()
        values, target = (models.loc[kept, name].to_numpy(float) for name in (column, self.against))
        found = sign * COEFFICIENTS[self.coefficient](values, target, counts[:, kept])
        return found >= self.least
