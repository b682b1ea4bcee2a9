"""Common parts of the tests of claims: fields, results, and how a result is judged."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import pandas as pd
from pydantic import Field, model_validator

from robust_flatness.analysis.evidence import Evidence
from robust_flatness.analysis.resampling import Estimate
from robust_flatness.config import Count, Positive, Real, Spec
from robust_flatness.tables import aggregate, schema

HOLDS, INCONCLUSIVE, FAILS = "holds", "inconclusive", "does not hold"
UNTESTABLE = "not testable"

#: Number of families below which a BCa bootstrap over families is unreliable.
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
class Finding(Estimate):
    """The result of one test on one experiment. `reference` is the effect that an interval has to exclude for
    the outcome "does not hold"."""

    reference: float = math.nan
    outcome: str = ""
    note: str = ""
    statistic: str = ""

    def noted(self, *notes: str) -> "Finding":
        """Return the finding with further notes, empty ones left out."""
        return replace(self, note="; ".join(note for note in (self.note, *notes) if note))


class NotMeasuredError(Exception):
    """A measure required by a test is missing; the message becomes the note of the finding."""


class Test(Spec):
    """One test of a claim. With `decides: false` it is reported but does not affect the verdict; `talk` is
    the value stated in the talk or paper.

    Subclasses define `title(evidence)`, the name of the statistic, and `result(evidence, rules)`, which
    returns a finding or raises `NotMeasuredError`. One without an outcome is `judged` by `sign`.
    """

    decides: bool = True
    talk: Real | None = None

    #: Unit counted by `Finding.n`. Tests over variants list the excluded ones in a note.
    counts: ClassVar[str] = "variants"
    #: Whether the statistic has the same scale in all experiments.
    scale_free: ClassVar[bool] = False

    def judge(self, evidence: Evidence, rules: Rules, printed: Finding | None = None) -> Finding:
        """Return the finding on one experiment; `printed` is that on the printed numbers."""
        try:
            found = self.result(evidence, rules)
        except NotMeasuredError as missing:
            found = Finding(outcome=UNTESTABLE, note=str(missing))
        if not found.outcome:
            found = judged(found, self.sign, self._reference(evidence, rules, printed), rules, self.counts)
        found = replace(found, statistic=self.title(evidence)).noted(*self._left_out(evidence))
        if self.counts == "variants" and evidence.not_learnt and found.outcome != UNTESTABLE:
            everyone = self.result(replace(evidence, models=evidence.everyone), rules)
            ends = ", ".join(f"{end:.2f}" for end in everyone.interval)
            found = found.noted(f"with these: {everyone.value:.2f} [{ends}]")
        return found

    def _reference(self, evidence: Evidence, rules: Rules, printed: Finding | None) -> float:
        """Return the reference effect: the printed table's statistic if it is comparable and has the sign of
        the claim, else the smallest effect of interest."""
        if self.scale_free:
            value = printed.value if printed else math.nan
            signed = {"positive": value > 0, "negative": value < 0, "either": math.isfinite(value)}
            return abs(value) if signed[self.sign] else rules.effects.correlation
        measures = alternatives(self.measure)
        if "_rerr" in measures[0]:
            return rules.effects.error
        if "_rloss_pgd" in measures[0]:
            return rules.effects.loss
        at = evidence.models[evidence.models["variant"] == "at"]
        known = (abs(float(at[name].iloc[0])) for name in measures if aggregate.has(at, name))
        return rules.effects.share * next(known, math.nan)

    def _left_out(self, evidence: Evidence) -> list[str]:
        """Return notes that name the variants and seeds that this test leaves out."""
        over_variants = self.counts == "variants"
        names = evidence.left_out if over_variants else []
        for slug, seed in evidence.seeds_not_learnt:
            if over_variants or slug == getattr(self, "variant", None):
                names.append(f"{slug} (seed {seed})")
        notes = [f"left out, not having learnt: {', '.join(names)}"] if names else []
        if over_variants and evidence.repeated:
            means = aggregate.variants_at(evidence.seeds.models).set_index("variant")["test_rloss_pgd"]
            pairs = (
                f"{slug} (test RLoss {means[slug]:.2f}) has the weights of {same} ({means[same]:.2f})"
                for slug, same in evidence.repeated.items()
            )
            notes.append(f"counted once: {', '.join(pairs)}")
        return notes


class Selection(Test):
    """A test over the variants of some families, or without some of them."""

    families: tuple[str, ...] | None = Field(None, min_length=1)
    without: tuple[str, ...] = ()
    without_families: tuple[str, ...] = ()

    def chosen(self, models: pd.DataFrame) -> pd.DataFrame:
        left_out = models["family"].isin(self.without_families) | models["variant"].isin(self.without)
        return models[~left_out & models["family"].isin(self.families or models["family"])]

    @property
    def restriction(self) -> str:
        words = f", within {' and '.join(self.families)}" if self.families else ""
        left_out = [*self.without_families, *self.without]
        return words + (f", without {', '.join(left_out)}" if left_out else "")


def alternatives(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names in a field as a tuple; the field may hold None, one name or several."""
    return (given,) if isinstance(given, str) else tuple(given or ())


def exactly_one(first: str, second: str) -> Any:
    """Return a validator that requires exactly one of two fields."""

    def check(test: Test) -> Test:
        if (getattr(test, first) is None) == (getattr(test, second) is None):
            raise ValueError(f"name one of {first} and {second}")
        return test

    return model_validator(mode="after")(check)


def require(frame: pd.DataFrame, *columns: str) -> None:
    """Raise `NotMeasuredError` with the columns that have no value."""
    missing = [schema.describe(name) for name in columns if not aggregate.has(frame, name)]
    if missing:
        raise NotMeasuredError("not measured: " + ", ".join(missing))


def judged(found: Finding, sign: Sign, reference: float, rules: Rules, what: str = "variants") -> Finding:
    """Return the finding with its outcome. The test holds if the interval lies on the side of 0 given by
    `sign` ("either": excludes 0) and p is significant. Otherwise it is inconclusive if the interval reaches
    the reference effect or cannot be computed, and else fails. `what` is the unit of `found.n`, of which a
    smallest number may be needed."""
    least = getattr(rules.minimum, what, 1)
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
    return replace(found, outcome=outcome, reference=reference).noted(note)


def of_estimate(found: Estimate, *notes: str) -> Finding:
    """Return an estimate over variants as a finding, with a note if it has few families."""
    few = ""
    if 0 < found.families < LEAST_FAMILIES:
        few = f"{found.families} {'families' if found.families > 1 else 'family'} only: "
        few += (
            "an interval over them is unreliable"
            if found.families > 2
            else "the interval is over variants alone"
        )
    return Finding(**vars(found)).noted(*notes, few)
