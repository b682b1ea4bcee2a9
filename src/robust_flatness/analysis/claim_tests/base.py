"""Common parts of the tests of claims: fields, results, and how a result is judged."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import pandas as pd

from robust_flatness.analysis.evidence import Evidence, NotMeasuredError, UndecidedError
from robust_flatness.analysis.resampling import Estimate
from robust_flatness.config import Count, Positive, Real, Spec
from robust_flatness.tables import aggregate, schema

HOLDS, INCONCLUSIVE, FAILS = "holds", "inconclusive", "does not hold"
UNTESTABLE = "not testable"

#: Significance level of all tests.
SIGNIFICANCE = 0.05
#: Number of families below which a BCa bootstrap over families is unreliable.
LEAST_FAMILIES = 6

Sign = Literal["positive", "negative", "either", "none"]
Coefficient = Literal["pearson", "spearman", "kendall"]
Linear = Literal["pearson", "spearman"]


class Rules(Spec):
    """Settings of all tests: resamples, smallest sample sizes, the first of the baseline's seeds that were
    trained after the rules had been fixed, and smallest effects of interest: of coefficients of correlation
    and their differences, errors (points), losses (nats), and other measures (share of the baseline's)."""

    resamples: Count
    minimum: Mapping[Literal["variants", "snapshots", "seeds"], Count]
    fresh_seeds: Count
    effects: Mapping[Literal["correlation", "error", "loss", "share"], Positive]


@dataclass(frozen=True)
class Finding(Estimate):
    """The result of a test on one experiment. An interval that excludes `reference` means "does not hold"."""

    reference: float = math.nan
    outcome: str = ""
    note: str = ""
    statistic: str = ""

    def noted(self, *notes: str) -> "Finding":
        """Return the finding with further notes, empty ones left out."""
        return replace(self, note="; ".join(note for note in (self.note, *notes) if note))


class Test(Spec):
    """One test of a claim. With `decides: false` it is reported but does not affect the verdict; `talk` is
    the value stated in the talk or paper. Subclasses define `title(evidence)`, the name of the statistic, and
    `result(evidence, rules)`, which returns a finding, to be `judged` by `sign` if it has no outcome, or
    raises `UndecidedError`."""

    decides: bool = True
    talk: Real | None = None

    #: Unit counted by `Finding.n`. Tests over variants list the excluded ones in a note.
    counts: ClassVar[str] = "variants"
    #: Whether the statistic has the same scale in all experiments.
    scale_free: ClassVar[bool] = False

    def judge(self, evidence: Evidence, rules: Rules, printed: Finding | None = None) -> Finding:
        """Return the finding on one experiment; `printed` is that on the printed numbers."""
        found, over_variants = self._found(evidence, rules), self.counts == "variants"
        notes = evidence.left_out(None if over_variants else getattr(self, "variant", ""))
        if evidence.not_learnt and (over_variants or found.outcome == UNTESTABLE):
            complete = self._found(evidence.complete, rules)
            if over_variants and UNTESTABLE not in (found.outcome, complete.outcome):
                low, high = complete.interval
                notes.append(f"with these: {complete.value:.2f} [{low:.2f}, {high:.2f}]")
            elif complete.outcome != UNTESTABLE:
                found = Finding(outcome=INCONCLUSIVE, note="no model that was measured has learnt")
        if not found.outcome:
            found = judged(found, self.sign, self._reference(evidence, rules, printed), rules, self.counts)
        return replace(found, statistic=self.title(evidence)).noted(*notes)

    def _found(self, evidence: Evidence, rules: Rules) -> Finding:
        """Return the result, or why there is none."""
        try:
            return self.result(evidence, rules)
        except UndecidedError as reason:
            outcome = UNTESTABLE if isinstance(reason, NotMeasuredError) else INCONCLUSIVE
            return Finding(outcome=outcome, note=str(reason))

    def _reference(self, evidence: Evidence, rules: Rules, printed: Finding | None) -> float:
        """Return the printed statistic if comparable and of the claim's sign, else the smallest effect."""
        if self.scale_free:
            value = printed.value if printed else math.nan
            signed = {"positive": value > 0, "negative": value < 0, "either": math.isfinite(value)}
            return abs(value) if signed.get(self.sign) else rules.effects["correlation"]
        measures = alternatives(self.measure)
        quantity = schema.lookup(measures[0])
        if quantity and quantity.description.kind in rules.effects:
            return rules.effects[quantity.description.kind]
        at = evidence.models[evidence.models["variant"] == "at"]
        known = (abs(float(at[name].iloc[0])) for name in measures if aggregate.has(at, name))
        return rules.effects["share"] * next(known, math.nan)


class Selection(Test):
    """A test over the variants of some families, or without some families and variants."""

    families: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def chosen(self, models: pd.DataFrame) -> pd.DataFrame:
        left_out = models[["family", "variant"]].isin(self.without).any(axis=1)
        return models[~left_out & models["family"].isin(self.families or models["family"])]

    @property
    def restriction(self) -> str:
        words = f", within {' and '.join(self.families)}" if self.families else ""
        return words + (f", without {', '.join(self.without)}" if self.without else "")


def alternatives(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names in a field as a tuple; the field may hold None, one name or several."""
    return (given,) if isinstance(given, str) else tuple(given or ())


def without_examples(slugs: Sequence[str]) -> str:
    """Return a note that names the variants left out since their per-example values were not kept."""
    return f"left out, without values of single examples: {', '.join(slugs)}" if slugs else ""


def outcome(holds: bool, fails: bool) -> str:
    """Return the outcome of a test that holds, fails, or does neither."""
    return HOLDS if holds else FAILS if fails else INCONCLUSIVE


def judged(found: Finding, sign: Sign, reference: float, rules: Rules, what: str = "variants") -> Finding:
    """Return the finding with its outcome. The test holds if the interval lies on the side of 0 given by
    `sign` ("either": excludes 0) and p is significant. Otherwise it is inconclusive if the interval reaches
    the reference effect or cannot be computed, and else fails. With the sign "none" it is the other way
    round: it holds if the interval does not reach the effect. `what` is the unit of `found.n`."""
    low, high = found.interval
    ends = {"positive": (low, high), "negative": (-high, -low)}
    nearest, reach = ends.get(sign, (max(low, -high), max(high, -low)))
    holds, fails, note = nearest > 0 and found.p < SIGNIFICANCE, reach < reference, ""
    if sign == "none":
        holds, fails = fails, holds
    least = rules.minimum.get(what, 1)
    if found.n < least:
        note = f"{found.n} {what.removesuffix('s') if found.n == 1 else what}, {least} needed"
    elif math.isnan(low) or math.isnan(found.p):
        note = "no interval: the values do not vary"
    decided = INCONCLUSIVE if note else outcome(holds, fails)
    return replace(found, outcome=decided, reference=reference).noted(note)


def of_estimate(found: Estimate, *notes: str) -> Finding:
    """Return an estimate over variants as a finding, with a note if it has few families."""
    few = ""
    if 0 < found.families < LEAST_FAMILIES:
        few = f"{found.families} {'families' if found.families > 1 else 'family'} only: "
        over_variants = "the interval is over variants alone"
        few += "an interval over them is unreliable" if found.families > 2 else over_variants
    return Finding(**vars(found)).noted(*notes, few)
