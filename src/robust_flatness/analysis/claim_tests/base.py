"""Common parts of the tests of claims: fields, results, and how a result is judged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from robust_flatness.analysis.evidence import Evidence
from robust_flatness.analysis.resampling import UNKNOWN, Interval, bootstrap, sign_flip_p
from robust_flatness.config import Count, Positive, Real, Spec
from robust_flatness.tables import aggregate, schema

HOLDS, INCONCLUSIVE, FAILS = "holds", "inconclusive", "does not hold"
UNTESTABLE = "not testable"

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


class Effects(Spec):
    """Smallest effects of interest: of coefficients of correlation and their differences, of errors (points),
    of losses (nats), and of all other measures (share of the baseline's value)."""

    correlation: Positive
    error: Positive
    loss: Positive
    share: Positive


class Rules(Spec):
    """Settings of all tests: significance, level of intervals, resamples, smallest samples and effects, and
    the first of the baseline's seeds that were trained after the rules had been fixed."""

    significance: Annotated[Real, Field(gt=0, lt=1)]
    level: Annotated[Real, Field(gt=0, lt=1)]
    resamples: Count
    minimum: Minimum
    fresh_seeds: Count
    effects: Effects

    @property
    def bootstrap(self) -> dict[str, Any]:
        return {"resamples": self.resamples, "level": self.level}


@dataclass(frozen=True)
class Finding:
    """The result of one test on one experiment. `reference` is the effect that an interval has to exclude for
    the outcome "does not hold"."""

    value: float = math.nan
    interval: Interval = UNKNOWN
    over: str = ""
    p: float = math.nan
    n: int = 0
    reference: float = math.nan
    outcome: str = ""
    note: str = ""
    statistic: str = ""


class NotMeasuredError(Exception):
    """What a test lacks; becomes the note of a finding that is not testable."""


class Test(Spec):
    """One test of a claim. `decides: false` shows it beside the claim without a say in the verdict; `talk` is
    the value that the talk or paper prints.

    Subclasses have `title(evidence)`, the statistic in words, and `result(evidence, rules)`, the finding,
    without an outcome where that follows from `sign`; it raises `NotMeasuredError`.
    """

    decides: bool = True
    talk: Real | None = None

    #: Whether the test is over variants, so that those left out are named.
    over_variants: ClassVar[bool] = False
    #: Whether the statistic has the same scale in all experiments.
    scale_free: ClassVar[bool] = False
    #: What `Finding.n` counts.
    counts: ClassVar[Literal["variants", "snapshots", "seeds"]] = "variants"

    def judge(self, evidence: Evidence, rules: Rules, printed: Finding | None = None) -> Finding:
        """The test on one experiment; `printed` is its finding on the printed numbers."""
        try:
            found = self.result(evidence, rules)
        except NotMeasuredError as missing:
            found = Finding(outcome=UNTESTABLE, note=str(missing))
        if not found.outcome:
            found = judged(found, self.sign, self._reference(evidence, rules, printed), rules, self.counts)
        found = replace(found, statistic=found.statistic or self.title(evidence))
        found = noted(found, *self._left_out(evidence))
        if self.over_variants and evidence.not_learnt and found.outcome != UNTESTABLE:
            everyone = self.result(replace(evidence, models=evidence.everyone, not_learnt=()), rules)
            ends = ", ".join(f"{end:.2f}" for end in everyone.interval)
            found = noted(found, f"with these: {everyone.value:.2f} [{ends}]")
        return found

    def _reference(self, evidence: Evidence, rules: Rules, printed: Finding | None) -> float:
        """The printed table's statistic where scales agree and it has the sign of the claim, else the
        smallest effect of interest."""
        if self.scale_free:
            value = printed.value if printed else math.nan
            signed = {"positive": value > 0, "negative": value < 0, "either": math.isfinite(value)}
            return abs(value) if signed[self.sign] else rules.effects.correlation
        measures = self.measure if isinstance(self.measure, tuple) else (self.measure,)
        if "_rerr" in measures[0]:
            return rules.effects.error
        if measures[0] in ("test_rloss_pgd", "train_rloss_pgd"):
            return rules.effects.loss
        at = evidence.models[evidence.models["variant"] == "at"]
        known = (abs(float(at[name].iloc[0])) for name in measures if aggregate.has(at, name))
        return rules.effects.share * next(known, math.nan)

    def _left_out(self, evidence: Evidence) -> list[str]:
        """Notes that name the variants that this test leaves out."""
        names = evidence.left_out if self.over_variants else []
        for slug, seed in evidence.seeds_not_learnt:
            if self.over_variants or slug == getattr(self, "variant", None):
                names.append(f"{slug} (seed {seed})")
        notes = [f"left out, not having learnt: {', '.join(names)}"] if names else []
        if self.over_variants and evidence.repeated:
            means = aggregate.variants_at(evidence.seeds.models).set_index("variant")["test_rloss_pgd"]
            pairs = (
                f"{slug} (test RLoss {means[slug]:.2f}) has the weights of {same} ({means[same]:.2f})"
                for slug, same in evidence.repeated.items()
            )
            notes.append(f"counted once: {', '.join(pairs)}")
        return notes


class Selection(Test):
    """A test over the variants of some families, or without some of them."""

    over_variants: ClassVar[bool] = True

    families: tuple[str, ...] | None = Field(None, min_length=1)
    without: tuple[str, ...] = ()
    without_families: tuple[str, ...] = ()

    def chosen(self, models: pd.DataFrame) -> pd.DataFrame:
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


def judged(found: Finding, sign: Sign, reference: float, rules: Rules, what: str = "variants") -> Finding:
    """The finding with the outcome of a test with a sign. It holds if the interval lies on that side of 0
    ("either": off 0) and p is significant. Else it is inconclusive if the interval reaches the reference
    effect, or cannot be computed. `what` is counted by `found.n`."""
    least = getattr(rules.minimum, what)
    low, high = found.interval
    outcome, note = FAILS, ""
    if found.n < least:
        outcome = INCONCLUSIVE
        note = f"{found.n} {what.removesuffix('s') if found.n == 1 else what}, {least} needed"
    elif math.isnan(low) or math.isnan(found.p):
        outcome, note = INCONCLUSIVE, "no interval: the values do not vary"
    else:
        side = {"positive": low > 0, "negative": high < 0, "either": low > 0 or high < 0}[sign]
        reach = {"positive": high, "negative": -low, "either": max(high, -low)}[sign]
        if side and found.p < rules.significance:
            outcome = HOLDS
        elif not reach < reference:
            outcome = INCONCLUSIVE
    return noted(replace(found, outcome=outcome, reference=reference), note)


def noted(finding: Finding, *notes: str) -> Finding:
    """The finding with further notes, empty ones left out."""
    return replace(finding, note="; ".join(note for note in (finding.note, *notes) if note))


def few_families(families: Sequence) -> str:
    """A note where an interval over families rests on few of them."""
    count = len(set(families))
    if not 0 < count < LEAST_FAMILIES:
        return ""
    why = "an interval over them is unreliable" if count > 2 else "the interval is over variants alone"
    return f"{count} {'families' if count > 1 else 'family'} only: {why}"


def mean_difference(differences: np.ndarray, families: Sequence, rules: Rules) -> Finding:
    """Mean of paired differences over variants; p-value by random signs."""
    n = len(differences)
    if n == 0:
        return Finding()

    def mean(counts: np.ndarray) -> np.ndarray:
        return counts @ differences / counts.sum(axis=1)

    intervals = bootstrap(mean, families, **rules.bootstrap)
    value, p = float(differences.mean()), sign_flip_p(differences / n, rules.resamples)
    return Finding(value, intervals.widest, intervals.over, p, n, note=few_families(families))
