"""Tests of correlations over variants."""

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from robust_flatness import tables as results
from robust_flatness.analysis.claim_tests.base import (
    Finding,
    Kind,
    Rules,
    Selection,
    Sign,
    Test,
    judged,
    lacking,
    too_few,
    wider_interval,
)
from robust_flatness.analysis.correlation import COEFFICIENTS, correlate, finite, weighted_ranks
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.analysis.resampling import p_value, signs


class Correlation(Selection):
    """Correlation of a measure with another over variants."""

    kind: Literal["correlation"]
    coefficient: Kind
    measure: str
    against: str
    sign: Sign

    def columns(self) -> list[str]:
        return [self.measure, self.against]

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        x, y = self.measure, self.against
        name = f"{self.coefficient.title()}, {results.describe(x)} with {results.describe(y)}"
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
        return replace(finding, note=few) if few else judged(finding, self.sign, rules)


class Difference(Test):
    """Difference of two measures' correlations with a third, over the same variants.

    p-value: with all three standardised (ranks for Spearman's), the difference is the mean of
    z_y (z_x - z_o); were the two measures exchangeable within a variant, each term's sign would be
    random.
    """

    kind: Literal["difference"]
    coefficient: Kind
    measure: str
    minus: str
    against: str
    sign: Sign

    def columns(self) -> list[str]:
        return [self.measure, self.minus, self.against]

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        x, other, y = self.measure, self.minus, self.against
        name = f"{self.coefficient.title()} with {results.describe(y)}: "
        name += f"{results.describe(x)} minus {results.describe(other)}"
        missing = lacking(evidence.models, x, other, y)
        if missing:
            return Finding(name, note=missing)
        models = evidence.models[finite(*(evidence.models[column] for column in (x, other, y)))]
        values = [models[column].to_numpy(float) for column in (x, other, y)]
        n = len(models)
        few = too_few(n, rules.minimum.variants, "variants")
        if few:
            return Finding(name, n=n, note=few)

        one, two, three = values
        weighted = COEFFICIENTS[self.coefficient]

        def statistic(counts: np.ndarray) -> np.ndarray:
            return weighted(one, three, counts) - weighted(two, three, counts)

        if self.coefficient == "spearman":
            values = [weighted_ranks(value, np.ones((1, n)))[0] for value in values]
        first, second, target = ((value - value.mean()) / (value.std() or math.nan) for value in values)
        terms = target * (first - second) / n
        flips, exact = signs(n, rules.resamples)
        interval, over = wider_interval(statistic, n, models["family"], rules)
        p = p_value(float(terms.sum()), flips @ terms, exact)
        finding = Finding(name, float(statistic(np.ones((1, n)))[0]), interval, over, p, n)
        return judged(finding, self.sign, rules)
