"""What the tests of claims share: their common fields, the result, and how a result is judged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from robust_flatness import tables as results
from robust_flatness.analysis.resampling import UNKNOWN, Interval, bca_interval, p_value, signs, wider
from robust_flatness.config import Count, Real, Spec

if TYPE_CHECKING:
    from robust_flatness.analysis.evidence import Evidence

HOLDS, FAILS, UNTESTABLE = "holds", "does not hold", "not testable"

Sign = Literal["positive", "negative"]
Kind = Literal["pearson", "spearman"]


class Minimum(Spec):
    """The least numbers that a test needs."""

    variants: Count
    snapshots: Count


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

    def judge(self, evidence: "Evidence", rules: Rules) -> Finding:
        """The test on one experiment."""
        raise NotImplementedError

    def columns(self) -> list[str]:
        """The columns that the test reads."""
        return []


class Selection(Test):
    """A test over variants: of some families only, without some of them."""

    families: tuple[str, ...] | None = Field(None, min_length=1)
    without: tuple[str, ...] = ()

    def chosen(self, models: pd.DataFrame) -> pd.DataFrame:
        if self.families is not None:
            models = models[models["family"].isin(self.families)]
        return models[~models["variant"].isin(self.without)]

    @property
    def restriction(self) -> str:
        words = f", within {' and '.join(self.families)}" if self.families is not None else ""
        return words + (f", without {', '.join(self.without)}" if self.without else "")


def judged(finding: Finding, sign: Sign, rules: Rules) -> Finding:
    """The outcome of a test with a sign: the interval on that side of 0, and p significant."""
    if math.isnan(finding.interval.width) or math.isnan(finding.p):
        return replace(finding, note=finding.note or "no interval: the values do not vary")
    side = finding.interval.low > 0 if sign == "positive" else finding.interval.high < 0
    holds = side and finding.p < rules.significance
    return replace(finding, outcome=HOLDS if holds else FAILS)


def too_few(n: int, least: int, what: str) -> str:
    """A note where `n` is less than `least`, else ""."""
    return f"{n} {what}, {least} needed" if n < least else ""


def lacking(frame: pd.DataFrame, *columns: str) -> str:
    """A note on the columns without any value, else ""."""
    missing = [results.describe(name) for name in columns if not results.has(frame, name)]
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
    return judged(Finding(name, float(differences.mean()), interval, over, p, n), sign, rules)
