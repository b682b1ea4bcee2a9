"""What the tests of claims share: their common fields, the result, and how a result is judged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from robust_flatness.analysis.resampling import UNKNOWN, Interval, bca_interval, p_value, signs, wider
from robust_flatness.config import Count, Real, Spec
from robust_flatness.tables import aggregate, schema

if TYPE_CHECKING:
    from robust_flatness.analysis.evidence import Evidence

HOLDS, FAILS, UNTESTABLE = "holds", "does not hold", "not testable"

#: With fewer families a bootstrap over them (BCa) is unreliable.
LEAST_FAMILIES = 6

Sign = Literal["positive", "negative", "either"]
Coefficient = Literal["pearson", "spearman", "kendall"]
Linear = Literal["pearson", "spearman"]


class Minimum(Spec):
    """The least numbers that a test needs."""

    variants: Count
    snapshots: Count
    seeds: Count


class Rules(Spec):
    """What all tests share: significance, level of intervals, resamples, least numbers."""

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

    statistic: str
    value: float = math.nan
    interval: Interval = UNKNOWN
    over: str = ""
    p: float = math.nan
    n: int = 0
    outcome: str = UNTESTABLE
    note: str = ""


class Test(Spec):
    """One test of a claim.

    `decides: false` shows it beside the claim, without a say in the verdict; `talk` is the value that
    the talk or paper prints.
    """

    decides: bool = True
    talk: Real | None = None

    #: Whether the test is over variants, so that those left out are to be named.
    over_variants: ClassVar[bool] = False

    def judge(self, evidence: "Evidence", rules: Rules) -> Finding:
        """The test on one experiment."""
        raise NotImplementedError

    def columns(self) -> list[str]:
        """The columns that the test reads."""
        return []

    def left_out(self, evidence: "Evidence") -> str:
        """A note that names the variants that this test does without."""
        variant = getattr(self, "variant", None)
        names = [*evidence.not_learnt] if self.over_variants else []
        names += [
            f"{slug} (seed {seed})"
            for slug, seed in evidence.seeds_not_learnt
            if self.over_variants or slug == variant
        ]
        notes = [f"left out, not having learnt: {', '.join(names)}"] if names else []
        if not self.over_variants:
            return "; ".join(notes)
        if evidence.repeated:
            pairs = ", ".join(
                f"{slug} (the same model as {same})" for slug, same in evidence.repeated.items()
            )
            notes.append(f"counted once: {pairs}")
        return "; ".join(notes)


class Selection(Test):
    """A test over variants: of some families only, without some of them."""

    over_variants: ClassVar[bool] = True

    families: tuple[str, ...] | None = Field(None, min_length=1)
    without: tuple[str, ...] = ()
    without_families: tuple[str, ...] = ()

    def chosen(self, models: pd.DataFrame) -> pd.DataFrame:
        """The variants that the test is over."""
        models = models[~models["family"].isin(self.without_families)]
        if self.families is not None:
            models = models[models["family"].isin(self.families)]
        return models[~models["variant"].isin(self.without)]

    @property
    def restriction(self) -> str:
        words = f", within {' and '.join(self.families)}" if self.families is not None else ""
        left_out = [*self.without_families, *self.without]
        return words + (f", without {', '.join(left_out)}" if left_out else "")


def judged(finding: Finding, sign: Sign, rules: Rules) -> Finding:
    """The outcome of a test with a sign: the interval on that side of 0 ("either": off 0), and p
    significant."""
    if math.isnan(finding.interval.width) or math.isnan(finding.p):
        return noted(finding, "" if finding.note else "no interval: the values do not vary")
    sides = {"positive": finding.interval.low > 0, "negative": finding.interval.high < 0}
    holds = sides.get(sign, any(sides.values())) and finding.p < rules.significance
    return replace(finding, outcome=HOLDS if holds else FAILS)


def noted(finding: Finding, *notes: str) -> Finding:
    """The finding with more notes, empty ones left out."""
    return replace(finding, note="; ".join(note for note in (finding.note, *notes) if note))


def few_families(families: Sequence) -> str:
    """A note where an interval over families rests on few of them."""
    count = len(set(families))
    return (
        f"{count} families only: an interval over them is unreliable" if 3 <= count < LEAST_FAMILIES else ""
    )


def too_few(n: int, least: int, what: str) -> str:
    """A note where `n` is less than `least`, else ""; `what` is a plural."""
    return f"{n} {what.removesuffix('s') if n == 1 else what}, {least} needed" if n < least else ""


def lacking(frame: pd.DataFrame, *columns: str) -> str:
    """A note on the columns without any value, else ""."""
    missing = [schema.describe(name) for name in columns if not aggregate.has(frame, name)]
    return "not measured: " + ", ".join(missing) if missing else ""


def wider_interval(statistic, n: int, families: Sequence, rules: Rules) -> tuple[Interval, str]:
    """The wider of the intervals over variants and over families, and which one it is."""
    variants = bca_interval(statistic, n, **rules.bootstrap)
    grouped = bca_interval(statistic, n, families, **rules.bootstrap)
    chosen = wider(variants, grouped)
    return chosen, "families" if chosen is grouped else "variants"


def mean_difference(
    differences: np.ndarray, families: Sequence | None, name: str, sign: Sign, rules: Rules
) -> Finding:
    """Mean of paired differences over variants or, without families, over snapshots; p-value by
    random signs."""
    n = len(differences)
    what = "variants" if families is not None else "snapshots"
    few = too_few(n, rules.minimum.snapshots if families is None else rules.minimum.variants, what)
    if few:
        return Finding(name, n=n, note=few)

    def statistic(counts: np.ndarray) -> np.ndarray:
        return counts @ differences / counts.sum(axis=1)

    if families is None:
        interval, over = bca_interval(statistic, n, **rules.bootstrap), what
    else:
        interval, over = wider_interval(statistic, n, families, rules)
    flips, exact = signs(n, rules.resamples)
    p = p_value(float(differences.mean()), flips @ differences / n, exact)
    found = judged(Finding(name, float(differences.mean()), interval, over, p, n), sign, rules)
    return noted(found, few_families(families) if families is not None else "")
