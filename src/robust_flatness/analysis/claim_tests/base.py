"""Common parts of the tests of claims: fields, results, and how a result is judged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from robust_flatness.analysis.evidence import Evidence
from robust_flatness.analysis.resampling import UNKNOWN, Interval, bca_interval, bootstrap, sign_flip_p
from robust_flatness.config import Count, Real, Spec
from robust_flatness.tables import aggregate, schema

HOLDS, FAILS, UNTESTABLE = "holds", "does not hold", "not testable"

#: With fewer families a bootstrap over them (BCa) is unreliable.
LEAST_FAMILIES = 6

Sign = Literal["positive", "negative", "either"]
Coefficient = Literal["pearson", "spearman", "kendall"]
Linear = Literal["pearson", "spearman"]


class Minimum(Spec):
    """Smallest sample sizes of the tests."""

    variants: Count
    snapshots: Count
    seeds: Count


class Rules(Spec):
    """Settings of all tests: significance, level of intervals, resamples, smallest samples."""

    significance: Annotated[Real, Field(gt=0, lt=1)]
    level: Annotated[Real, Field(gt=0, lt=1)]
    resamples: Count
    minimum: Minimum

    @property
    def bootstrap(self) -> dict[str, Any]:
        return {"resamples": self.resamples, "level": self.level}


@dataclass(frozen=True)
class Finding:
    """The result of one test on one experiment."""

    statistic: str = ""
    value: float = math.nan
    interval: Interval = UNKNOWN
    over: str = ""
    p: float = math.nan
    n: int = 0
    outcome: str = UNTESTABLE
    note: str = ""


class NotMeasuredError(Exception):
    """What a test lacks; becomes the note of a finding that is not testable."""


class Test(Spec):
    """One test of a claim.

    `decides: false` shows it beside the claim without a say in the verdict; `talk` is the value that
    the talk or paper prints.
    """

    decides: bool = True
    talk: Real | None = None

    #: Whether the test is over variants, so that those left out are named.
    over_variants: ClassVar[bool] = False

    def title(self, evidence: Evidence) -> str:
        """The statistic in words."""
        raise NotImplementedError

    def result(self, evidence: Evidence, rules: Rules) -> Finding:
        """The finding, without statistic and general notes. Raises `NotMeasuredError`."""
        raise NotImplementedError

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        """The test on one experiment."""
        try:
            found = self.result(evidence, rules)
        except NotMeasuredError as missing:
            found = Finding(note=str(missing))
        found = replace(found, statistic=found.statistic or self.title(evidence))
        return noted(found, *self._left_out(evidence))

    def _left_out(self, evidence: Evidence) -> list[str]:
        """Notes that name the variants that this test leaves out."""
        variant = getattr(self, "variant", None)
        names = [*evidence.not_learnt] if self.over_variants else []
        names += [
            f"{slug} (seed {seed})"
            for slug, seed in evidence.seeds_not_learnt
            if self.over_variants or slug == variant
        ]
        notes = [f"left out, not having learnt: {', '.join(names)}"] if names else []
        if self.over_variants and evidence.repeated:
            pairs = (f"{slug} (the same model as {same})" for slug, same in evidence.repeated.items())
            notes.append(f"counted once: {', '.join(pairs)}")
        return notes


class Selection(Test):
    """A test over variants: of some families only, without some of them."""

    over_variants: ClassVar[bool] = True

    families: tuple[str, ...] | None = Field(None, min_length=1)
    without: tuple[str, ...] = ()
    without_families: tuple[str, ...] = ()

    def chosen(self, models: pd.DataFrame) -> pd.DataFrame:
        """The variants of the test."""
        models = models[~models["family"].isin(self.without_families)]
        if self.families is not None:
            models = models[models["family"].isin(self.families)]
        return models[~models["variant"].isin(self.without)]

    @property
    def restriction(self) -> str:
        words = f", within {' and '.join(self.families)}" if self.families is not None else ""
        left_out = [*self.without_families, *self.without]
        return words + (f", without {', '.join(left_out)}" if left_out else "")


def require(frame: pd.DataFrame, *columns: str) -> None:
    """Raise `NotMeasuredError` with the columns that have no value."""
    missing = [schema.describe(name) for name in columns if not aggregate.has(frame, name)]
    if missing:
        raise NotMeasuredError("not measured: " + ", ".join(missing))


def judged(finding: Finding, sign: Sign, rules: Rules, what: str = "variants") -> Finding:
    """The outcome of a test with a sign: the interval on that side of 0 ("either": off 0), and p
    significant. `what` is counted by `finding.n`."""
    least = getattr(rules.minimum, what)
    if finding.n < least:
        few = f"{finding.n} {what.removesuffix('s') if finding.n == 1 else what}, {least} needed"
        return noted(finding, few)
    if math.isnan(finding.interval.width) or math.isnan(finding.p):
        return noted(finding, "" if finding.note else "no interval: the values do not vary")
    sides = {"positive": finding.interval.low > 0, "negative": finding.interval.high < 0}
    holds = sides.get(sign, any(sides.values())) and finding.p < rules.significance
    return replace(finding, outcome=HOLDS if holds else FAILS)


def noted(finding: Finding, *notes: str) -> Finding:
    """The finding with further notes, empty ones left out."""
    return replace(finding, note="; ".join(note for note in (finding.note, *notes) if note))


def few_families(families: Sequence) -> str:
    """A note where an interval over families rests on few of them."""
    count = len(set(families))
    return (
        f"{count} families only: an interval over them is unreliable" if 3 <= count < LEAST_FAMILIES else ""
    )


def mean_difference(differences: np.ndarray, families: Sequence | None, sign: Sign, rules: Rules) -> Finding:
    """Mean of paired differences over variants or, without families, over snapshots; p-value by
    random signs."""
    n = len(differences)
    if n == 0:
        return judged(Finding(), sign, rules, "variants" if families is not None else "snapshots")

    def statistic(counts: np.ndarray) -> np.ndarray:
        return counts @ differences / counts.sum(axis=1)

    mean, p = float(differences.mean()), sign_flip_p(differences / n, rules.resamples)
    if families is None:
        interval = bca_interval(statistic, n, **rules.bootstrap)
        return judged(Finding("", mean, interval, "snapshots", p, n), sign, rules, "snapshots")
    intervals = bootstrap(statistic, families, **rules.bootstrap)
    found = judged(Finding("", mean, intervals.widest, intervals.over, p, n), sign, rules)
    return noted(found, few_families(families))
