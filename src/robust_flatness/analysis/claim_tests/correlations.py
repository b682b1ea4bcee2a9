"""Tests of correlations over variants."""

import math
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator
from scipy import stats

from robust_flatness.analysis.claim_tests import base
from robust_flatness.analysis.claim_tests.base import Finding, Linear, NotMeasuredError, Rules, noted, require
from robust_flatness.analysis.coefficients import COEFFICIENTS, finite
from robust_flatness.analysis.comparison import CONTROL, candidates
from robust_flatness.analysis.correlation import correlate, partial
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.analysis.resampling import Interval, bootstrap, membership, resampled_counts, sign_flip_p
from robust_flatness.config import Positive, Real
from robust_flatness.tables import aggregate
from robust_flatness.tables.schema import describe

#: Resamples of a share of many measures: each costs as much as a correlation for every measure.
SHARE_RESAMPLES = 1999


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

    @model_validator(mode="after")
    def _one_rule(self) -> "Correlation":
        if (self.sign is None) == (self.within is None):
            raise ValueError("name one of sign and within")
        return self

    def title(self, evidence: Evidence) -> str:
        name = f"{self.coefficient.title()}, {describe(self.measure)} with {describe(self.against)}"
        if self.given:
            name = f"partial {name} given {'the logarithm of ' * self.logarithm}{describe(self.given)}"
        return name + self.restriction

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        models = self.chosen(evidence.models)
        names = [self.measure, self.against, *([self.given] if self.given else [])]
        require(models, *names)
        values, families = [models[name] for name in names], models["family"]
        if self.given:
            values[2] = np.log(values[2]) if self.logarithm else values[2]
            found = partial(*values, families, self.coefficient, **rules.bootstrap)
        else:
            found = correlate(*values, families, self.coefficient, **rules.bootstrap)
        finding = Finding(found.value, found.interval, found.intervals.over, found.p, found.n)
        if self.within is not None:
            finding = base.judged(finding, "either", self.within, rules)
            low, high = finding.interval
            if -self.within < low and high < self.within and found.n >= rules.minimum.variants:
                finding = replace(finding, outcome=base.HOLDS)
            else:
                present = finding.outcome == base.HOLDS
                finding = replace(finding, outcome=base.FAILS if present else base.INCONCLUSIVE)
        return noted(finding, base.few_families(families))


class Difference(base.Test):
    """Difference of two measures' correlations with a third, over the same variants. p-value: with all three
    standardised (ranks for Spearman's), the difference is the mean of z_y (z_x - z_o); were the two measures
    exchangeable within a variant, each term's sign would be random."""

    over_variants: ClassVar[bool] = True
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
        models, names = evidence.models, [self.measure, self.minus, self.against]
        require(models, *names)
        models = models[finite(*(models[name] for name in names))]
        one, two, three = values = [models[name].to_numpy(float) for name in names]
        n, weighted = len(models), COEFFICIENTS[self.coefficient]
        if n < 3:
            return Finding(n=n)

        def statistic(counts: np.ndarray) -> np.ndarray:
            return weighted(one, three, counts) - weighted(two, three, counts)

        if self.coefficient == "spearman":
            values = [stats.rankdata(value) for value in values]
        first, second, target = ((value - value.mean()) / (value.std() or math.nan) for value in values)
        p = sign_flip_p(target * (first - second) / n, rules.resamples)
        intervals = bootstrap(statistic, models["family"], **rules.bootstrap)
        value, note = float(statistic(np.ones((1, n)))[0]), base.few_families(models["family"])
        return Finding(value, intervals.widest, intervals.over, p, n, note=note)


class Radius(base.Test):
    """Correlation of a flatness measure at its smallest radius minus that at its largest, over the same
    variants: two-sided, whichever is the larger."""

    over_variants: ClassVar[bool] = True
    scale_free: ClassVar[bool] = True

    kind: Literal["radius"]
    coefficient: Linear
    case: Literal["avg", "worst"]
    loss: Literal["rloss", "ce"] = "rloss"
    against: str
    sign: base.Sign = "either"

    def _columns(self, evidence: Evidence) -> dict[float, str]:
        radii = aggregate.all_radii(evidence.models, self.case, self.loss)
        return {xi: column for xi, column in radii.items() if aggregate.has(evidence.models, column)}

    def title(self, evidence: Evidence) -> str:
        radii = self._columns(evidence)
        which = "smallest radius minus largest"
        if len(radii) > 1:
            which = f"at ξ = {min(radii):g} minus at {max(radii):g}"
        measure = describe(f"{self.case}_flatness_{self.loss}")
        return f"{self.coefficient.title()} of {measure} with {describe(self.against)}: {which}"

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        columns = self._columns(evidence)
        if len(columns) < 2:
            raise NotMeasuredError("measured at fewer than two radii")
        ends = {"measure": columns[min(columns)], "minus": columns[max(columns)]}
        shared = {"coefficient": self.coefficient, "against": self.against, "sign": self.sign}
        return Difference(kind="difference", **ends, **shared).result(evidence, rules)


class Share(base.Test):
    """Share of the measures of sharpness and margin whose correlation with a target is at least `least`
    (reversed where large is meant to be good), on the clean and on the robust loss, without the controls.

    The interval is of percentiles over resampled variants and families, the wider one. `below` claims
    that the share is smaller: it holds if the interval lies below, and does not hold if it lies above.
    `minimum` is the least number of measures.
    """

    over_variants: ClassVar[bool] = True

    kind: Literal["share"]
    coefficient: Linear
    against: str
    least: Annotated[Real, Field(ge=0, le=1)]
    below: Annotated[Real, Field(gt=0, le=1)]
    minimum: int = Field(6, ge=1)

    def title(self, evidence: Evidence) -> str:
        name = f"share of measures with {self.coefficient.title()} of at least {self.least:g}"
        return f"{name} with {describe(self.against)}"

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        require(evidence.models, self.against)
        models = evidence.models.dropna(subset=[self.against])
        measures = [candidate for candidate in candidates(models) if candidate.group != CONTROL]
        signs = {column: entry.sign for entry in measures for column in entry.columns.values()}
        if len(signs) < self.minimum:
            raise NotMeasuredError(f"{len(signs)} measures, {self.minimum} needed")
        n = len(models)
        if n < rules.minimum.variants:
            return base.judged(Finding(n=n), "either", self.least, rules)
        units = membership(models["family"])
        draws = {"variants": resampled_counts(n, SHARE_RESAMPLES)}
        draws["families"] = resampled_counts(len(units), SHARE_RESAMPLES) @ units
        ends = [(1 - rules.level) / 2, (1 + rules.level) / 2]
        intervals = {
            over: Interval(*np.quantile(self._shares(models, signs, counts), ends).tolist())
            for over, counts in draws.items()
        }
        over = max(intervals, key=lambda over: intervals[over].width)
        value, interval = float(self._shares(models, signs, np.ones((1, n)))[0]), intervals[over]
        outcome = base.INCONCLUSIVE
        if interval.high < self.below:
            outcome = base.HOLDS
        elif interval.low >= self.below:
            outcome = base.FAILS
        found = Finding(value, interval, over, n=n, reference=self.below, outcome=outcome)
        return noted(found, f"{len(signs)} measures", base.few_families(models["family"]))

    def _shares(self, models: pd.DataFrame, signs: dict[str, int], counts: np.ndarray) -> np.ndarray:
        """Share of the measures that reach `least`, for each resample: [B]."""
        reached = np.zeros(len(counts))
        for column, sign in signs.items():
            kept = models[column].notna().to_numpy()
            values, target = (models.loc[kept, name].to_numpy(float) for name in (column, self.against))
            found = sign * COEFFICIENTS[self.coefficient](values, target, counts[:, kept])
            reached += np.nan_to_num(found, nan=-1) >= self.least
        return reached / len(signs)
