"""Tests over the epochs of one training."""

from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from robust_flatness.analysis.claim_tests.base import (
    Finding,
    Rules,
    Sign,
    Test,
    judged,
    lacking,
    mean_difference,
    too_few,
)
from robust_flatness.analysis.correlation import correlate
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.config import parse_list
from robust_flatness.tables import aggregate, schema


def over_epochs(x: np.ndarray, y: np.ndarray, name: str, sign: Sign, rules: Rules, what: str) -> Finding:
    """Rank correlation over the epochs of one training; the interval is over its epochs."""
    few = too_few(len(x), rules.minimum.snapshots, what)
    if few:
        return Finding(name, n=len(x), note=few)
    found = correlate(x, y, range(len(x)), "spearman", rules.resamples, rules.level)
    finding = Finding(name, found.value, found.over_variants, what, found.p, found.n)
    return judged(finding, sign, rules)


class Trend(Test):
    """Rank correlation of a training curve with the epoch, from the first drop on."""

    kind: Literal["trend"]
    variant: str
    measure: str
    sign: Sign
    table: Literal["history", "series"] = "history"

    def columns(self) -> list[str]:
        return [self.measure]

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        what = "epochs" if self.table == "history" else "snapshots"
        name = f"Spearman, {schema.describe(self.measure)} of {self.variant} with the epoch"
        rows = evidence.from_first_drop(self.table, self.variant, self.measure)
        missing = lacking(rows, self.measure)
        if missing:
            return Finding(name, note=missing)
        epoch, curve = (rows[column].to_numpy(float) for column in ("normalised_epoch", self.measure))
        return over_epochs(epoch, curve, name, self.sign, rules, what)


class Epochs(Test):
    """Rank correlation of two measures over one training's snapshots, from the first drop on; of
    several measures the first one that was measured."""

    kind: Literal["epochs"]
    variant: str
    measure: Annotated[tuple[str, ...], BeforeValidator(parse_list), Field(min_length=1)]
    against: str
    sign: Sign

    def columns(self) -> list[str]:
        return [*self.measure, self.against]

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        y = self.against
        rows = evidence.from_first_drop("series", self.variant)
        measured = [name for name in self.measure if aggregate.has(rows, name)]
        x = (measured or self.measure)[0]
        name = f"Spearman, {schema.describe(x)} of {self.variant} with {schema.describe(y)} over epochs"
        missing = lacking(rows, x, y)
        if missing:
            return Finding(name, note=missing)
        rows = rows.dropna(subset=[x, y])
        first, second = (rows[column].to_numpy(float) for column in (x, y))
        return over_epochs(first, second, name, self.sign, rules, "snapshots")


class EpochsBelow(Test):
    """Mean difference of two trainings' measure over their snapshots from the first drop on."""

    kind: Literal["epochs-below"]
    variant: str
    baseline: str
    measure: str
    sign: Sign

    def columns(self) -> list[str]:
        return [self.measure]

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        measure = self.measure
        name = f"mean {schema.describe(measure)} over epochs, {self.variant} minus {self.baseline}"
        curves = [evidence.from_first_drop("series", slug, measure) for slug in (self.variant, self.baseline)]
        if any(lacking(rows, measure) for rows in curves):
            return Finding(name, note=f"not measured: {schema.describe(measure)} over epochs")
        first, second = curves
        reference = np.interp(first["normalised_epoch"], second["normalised_epoch"], second[measure])
        differences = first[measure].to_numpy(float) - reference
        return mean_difference(differences, None, name, self.sign, rules)
