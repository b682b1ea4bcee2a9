"""Tests of correlations over variants."""

import math
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from robust_flatness.analysis.claim_tests.base import (
    Coefficient,
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
    wider_interval,
)
from robust_flatness.analysis.coefficients import COEFFICIENTS, finite, weighted_ranks
from robust_flatness.analysis.correlation import correlate
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.analysis.resampling import p_value, signs
from robust_flatness.tables import aggregate, schema


class Correlation(Selection):
    """Correlation of a measure with another over variants."""

    kind: Literal["correlation"]
    coefficient: Coefficient
    measure: str
    against: str
    sign: Sign

    def columns(self) -> list[str]:
        return [self.measure, self.against]

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        x, y = self.measure, self.against
        name = f"{self.coefficient.title()}, {schema.describe(x)} with {schema.describe(y)}"
        name += self.restriction
        models = self.chosen(evidence.models)
        missing = lacking(evidence.models, x, y)
        if missing:
            return Finding(name, note=missing)
        found = correlate(
            models[x], models[y], models["family"], self.coefficient, rules.resamples, rules.level
        )
        over = "families" if found.interval is found.over_families else "variants"
        finding = Finding(name, found.value, found.interval, over, found.p, found.n)
        few = too_few(found.n, rules.minimum.variants, "variants")
        if few:
            return noted(finding, few)
        return noted(judged(finding, self.sign, rules), few_families(models["family"]))


def difference_of_correlations(
    models: pd.DataFrame, x: str, other: str, y: str, coefficient: Linear, sign: Sign, name: str, rules: Rules
) -> Finding:
    """Correlation of x with y minus that of `other` with y, over the variants that have all three.

    p-value: with all three standardised (ranks for Spearman's), the difference is the mean of
    z_y (z_x - z_o); were the two measures exchangeable within a variant, each term's sign would be
    random.
    """
    missing = lacking(models, x, other, y)
    if missing:
        return Finding(name, note=missing)
    models = models[finite(*(models[column] for column in (x, other, y)))]
    values = [models[column].to_numpy(float) for column in (x, other, y)]
    n = len(models)
    few = too_few(n, rules.minimum.variants, "variants")
    if few:
        return Finding(name, n=n, note=few)

    one, two, three = values
    weighted = COEFFICIENTS[coefficient]

    def statistic(counts: np.ndarray) -> np.ndarray:
        return weighted(one, three, counts) - weighted(two, three, counts)

    if coefficient == "spearman":
        values = [weighted_ranks(value, np.ones((1, n)))[0] for value in values]
    first, second, target = ((value - value.mean()) / (value.std() or math.nan) for value in values)
    terms = target * (first - second) / n
    flips, exact = signs(n, rules.resamples)
    interval, over = wider_interval(statistic, n, models["family"], rules)
    p = p_value(float(terms.sum()), flips @ terms, exact)
    finding = Finding(name, float(statistic(np.ones((1, n)))[0]), interval, over, p, n)
    return noted(judged(finding, sign, rules), few_families(models["family"]))


class Difference(Test):
    """Difference of two measures' correlations with a third, over the same variants."""

    over_variants: ClassVar[bool] = True

    kind: Literal["difference"]
    coefficient: Linear
    measure: str
    minus: str
    against: str
    sign: Sign

    def columns(self) -> list[str]:
        return [self.measure, self.minus, self.against]

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        x, other, y = self.measure, self.minus, self.against
        name = f"{self.coefficient.title()} with {schema.describe(y)}: "
        name += f"{schema.describe(x)} minus {schema.describe(other)}"
        return difference_of_correlations(
            evidence.models, x, other, y, self.coefficient, self.sign, name, rules
        )


class Radius(Test):
    """Correlation of a flatness measure at its smallest radius minus that at its largest, over the same
    variants: two-sided, whichever is the larger."""

    over_variants: ClassVar[bool] = True

    kind: Literal["radius"]
    coefficient: Linear
    case: Literal["avg", "worst"]
    loss: Literal["rloss", "ce"] = "rloss"
    against: str

    def columns(self) -> list[str]:
        return [self.against]

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        measure = schema.describe(f"{self.case}_flatness_{self.loss}")
        name = f"{self.coefficient.title()} of {measure} with {schema.describe(self.against)}: "
        columns = {
            xi: column
            for xi, column in aggregate.all_radii(evidence.models, self.case, self.loss).items()
            if aggregate.has(evidence.models, column)
        }
        if len(columns) < 2:
            return Finding(f"{name}smallest radius minus largest", note="measured at fewer than two radii")
        small, large = min(columns), max(columns)
        return difference_of_correlations(
            evidence.models,
            columns[small],
            columns[large],
            self.against,
            self.coefficient,
            "either",
            f"{name}at ξ = {small:g} minus at {large:g}",
            rules,
        )
