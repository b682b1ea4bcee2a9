"""Tests over variants: correlations, differences to the baseline, and the bend of RErr over RLoss."""

import math
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from scipy import stats

from robust_flatness.analysis.claim_tests import base
from robust_flatness.analysis.claim_tests.base import Finding, Linear, Rules, of_estimate
from robust_flatness.analysis.comparison import CONTROL, ON_TEST, candidates
from robust_flatness.analysis.correlation import COEFFICIENTS, correlate, difference
from robust_flatness.analysis.evidence import RLOSS, Evidence, NotMeasuredError, more_robust, require
from robust_flatness.analysis.hinge import LEAST, fitted, kink
from robust_flatness.analysis.resampling import TAILS, Interval, estimate, mean_estimate, percentile_interval
from robust_flatness.config import Real
from robust_flatness.tables import aggregate
from robust_flatness.tables.schema import describe

#: Resamples of a share of many measures: each costs as much as a correlation for every measure.
SHARE_RESAMPLES = 1999
#: Smallest number of measures of which a share is given.
LEAST_MEASURES = 6


class Correlation(base.Selection):
    """Correlation of two measures over variants; with `given` the partial correlation given a third measure,
    or its logarithm. With the sign "none" the claim is that there is none of interest."""

    scale_free: ClassVar[bool] = True

    kind: Literal["correlation"]
    coefficient: base.Coefficient
    measure: str
    against: str
    given: str | None = None
    logarithm: bool = False
    sign: base.Sign

    def title(self, evidence: Evidence) -> str:
        name = f"{self.coefficient.title()}, {describe(self.measure)} with {describe(self.against)}"
        if self.given:
            name = f"partial {name} given {'the logarithm of ' * self.logarithm}{describe(self.given)}"
        return name + self.restriction

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        models = self.chosen(evidence.models)
        require(models, self.measure, self.against, *base.alternatives(self.given))
        if self.logarithm:
            models = models.assign(**{self.given: np.log(models[self.given])})
        columns = self.measure, self.against, self.coefficient, self.given
        return of_estimate(correlate(models, *columns, resamples=rules.resamples))


class PairedCorrelations(base.Test):
    """Base class of differences between two correlations with the measure `against`, over the same variants.
    Subclasses define `columns(evidence)`, the two measures."""

    scale_free: ClassVar[bool] = True

    coefficient: Linear
    against: str

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        columns = *self.columns(evidence), self.against
        require(evidence.models, *columns)
        return of_estimate(difference(evidence.models, *columns, self.coefficient, resamples=rules.resamples))


class Difference(PairedCorrelations):
    """Difference of two measures' correlations with a third, over the same variants."""

    kind: Literal["difference"]
    measure: str
    minus: str
    sign: base.Sign

    def columns(self, evidence: Evidence) -> tuple[str, str]:
        return self.measure, self.minus

    def title(self, evidence: Evidence) -> str:
        name = f"{self.coefficient.title()} with {describe(self.against)}: "
        return f"{name}{describe(self.measure)} minus {describe(self.minus)}"


class Radius(PairedCorrelations):
    """Correlation of a flatness measure at its smallest radius minus that at its largest, over the same
    variants: two-sided, whichever is the larger."""

    sign: ClassVar[base.Sign] = "either"

    kind: Literal["radius"]
    case: Literal["avg", "worst"]

    def _radii(self, evidence: Evidence) -> list[tuple[float, str]]:
        radii = aggregate.all_radii(evidence.models, self.case)
        return [(xi, column) for xi, column in radii.items() if aggregate.has(evidence.models, column)]

    def columns(self, evidence: Evidence) -> tuple[str, str]:
        radii = self._radii(evidence)
        if len(radii) < 2:
            raise NotMeasuredError("measured at fewer than two radii")
        return radii[0][1], radii[-1][1]

    def title(self, evidence: Evidence) -> str:
        radii, which = self._radii(evidence), "smallest radius minus largest"
        if len(radii) > 1:
            which = f"at ξ = {radii[0][0]:g} minus at {radii[-1][0]:g}"
        measure = describe(f"{self.case}_flatness_rloss")
        return f"{self.coefficient.title()} of {measure} with {describe(self.against)}: {which}"


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
        require(evidence.models, self.against)
        models = evidence.models.dropna(subset=self.against)
        if len(models) < rules.minimum["variants"]:
            return base.judged(Finding(n=len(models)), "either", self.least, rules)
        signs = {c.column: c.sign for c in candidates(models) if c.group not in (CONTROL, ON_TEST)}
        if len(signs) < LEAST_MEASURES:
            raise NotMeasuredError(f"{len(signs)} measures, {LEAST_MEASURES} needed")
        target, correlation = models[self.against].to_numpy(float), COEFFICIENTS[self.coefficient]

        def shares(counts: np.ndarray) -> np.ndarray:
            reached = np.zeros(len(counts))
            for column, sign in signs.items():
                values = models[column].to_numpy(float)
                kept = ~np.isnan(values)
                with np.errstate(invalid="ignore"):  # resamples without any variant that has the measure
                    found = correlation(values[kept], target[kept], counts[:, kept])
                reached += sign * found >= self.least
            return reached / len(signs)

        settings = {"interval": percentile_interval, "resamples": SHARE_RESAMPLES}
        found = of_estimate(estimate(shares, models["family"], **settings), f"{len(signs)} measures")
        outcome = base.outcome(found.interval.high < self.below, found.interval.low >= self.below)
        return replace(found, reference=self.below, outcome=outcome)


class Baseline(base.Selection):
    """Mean difference to the baseline, over the variants of some families with lower RErr (AutoAttack's where
    it was run) or RLoss than the baseline; beyond noise, see `more_robust`, if values of examples were kept.

    All differences share one value of the baseline. Its standard error (over its seeds, else over the
    samples of its flatness) widens the interval, with Student's quantile, and bounds the p-value from below.
    """

    kind: Literal["baseline"]
    measure: str
    robust: Literal["rerr", "rloss"]
    sign: base.Sign

    def _robust(self, evidence: Evidence) -> str:
        return RLOSS if self.robust == "rloss" else aggregate.robust_error_column(evidence.models)

    def title(self, evidence: Evidence) -> str:
        name = f"mean {describe(self.measure)} minus the baseline's, of those with lower "
        return name + describe(self._robust(evidence)) + self.restriction

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        measure, models, robust = self.measure, evidence.models, self._robust(evidence)
        require(models, measure, robust)
        baseline = models[models["variant"] == "at"]
        if not aggregate.has(baseline, measure, robust):
            raise NotMeasuredError("the baseline was not measured")
        at = baseline.iloc[0]
        chosen = self.chosen(models).dropna(subset=[measure, robust])
        column = "rloss" if self.robust == "rloss" else robust.removeprefix("test_")
        beyond = more_robust(evidence.seeds.examples, column)
        slugs = chosen["variant"]
        unknown = [slug for slug in slugs if beyond and slug not in beyond and slug != "at"]
        chosen = chosen[slugs.map(beyond).eq(True) if beyond else chosen[robust] < at[robust]]
        counts = chosen["family"].value_counts(sort=False)
        part = ", ".join(f"{name} ({count})" for name, count in counts.items()) or "none"
        differences = (chosen[measure] - at[measure]).to_numpy(float)
        found = of_estimate(mean_estimate(differences, chosen["family"], rules.resamples))
        lower_at_all = "values of single examples were not kept: lower at all" * (not beyond)
        found = found.noted(f"taking part: {part}", base.without_examples(unknown), lower_at_all)
        error, degrees, source = _standard_error(at, measure)
        if not error > 0:
            return found.noted("the baseline's own error is not known, nor in the interval")
        reach = stats.t.ppf(TAILS[1], degrees) * error
        below, above = (math.hypot(end - found.value, reach) for end in found.interval)
        p = max(found.p, 2 * float(stats.t.sf(abs(found.value) / error, degrees)))
        widened = replace(found, interval=Interval(found.value - below, found.value + above), p=p)
        return widened.noted(f"the baseline's error over {source} included")


def _standard_error(at: pd.Series, measure: str) -> tuple[float, float, str]:
    """Return the standard error of the baseline's measure, its degrees of freedom and its source."""
    seeds, spread = at.get("seeds", 1), at.get(f"{measure}_seed_sd", math.nan)
    if seeds > 1 and spread > 0:
        return spread / math.sqrt(seeds), seeds - 1, f"{seeds} seeds"
    error, spread = at.get(f"{measure}_se", math.nan), at.get(f"{measure}_std", math.nan)
    samples = round((spread / error) ** 2) if error > 0 and spread > 0 else 0
    return error, samples - 1 if samples > 1 else math.inf, "samples of its flatness"


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
        names = {"slopes": "slope above over slope below the break", "fit": "residuals of a cubic over those"}
        name = names.get(self.statistic, "break")
        return f"{name} of a hinge of {describe(measure)} over RLoss"

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        measure = aggregate.robust_error_column(evidence.models)
        require(evidence.models, RLOSS, measure)
        models = evidence.models.dropna(subset=[RLOSS, measure])
        different, least = models[RLOSS].nunique(), max(rules.minimum["variants"], LEAST)
        if different < least:
            few = f"{different} variants of different RLoss, {least} needed"
            return Finding(n=len(models), outcome=base.INCONCLUSIVE, note=few)
        hinge = fitted(models, measure, rules.resamples)
        found, (start, end) = hinge[self.statistic], hinge[self.statistic].interval
        low, high = kink(models) - self.within, kink(models) + self.within
        narrow, note = hinge["break"].interval.width <= 2 * self.within, ""
        if self.statistic == "break":
            holds, fails = low <= start and end <= high, narrow or start > high or end < low
            note = f"expected within {low:.2f} and {high:.2f}"
        elif self.statistic == "slopes":
            holds, fails = end < self.below, narrow or start >= self.below
        else:
            holds, fails = found.value > 1, narrow
        outcome = base.outcome(holds, fails)
        too_wide = "the interval of the break is too wide to tell" * (outcome == base.INCONCLUSIVE)
        return replace(of_estimate(found, note, too_wide), outcome=outcome)


Kind = Correlation | Difference | Radius | Share | Baseline | Hinge
