"""The test of what scaling a network's convolutions changes."""

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from robust_flatness.analysis.claim_tests.base import FAILS, HOLDS, Finding, Rules, Test
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.config import Real
from robust_flatness.tables import schema

#: The derived models and the factor of their convolutions.
SCALED = {"at-scaled-0.5": 0.5, "at-scaled-2": 2.0}


class Scaling(Test):
    """Ratio of the scaled models' measure to the baseline's; the one farthest from (for `beyond`:
    nearest to) 1 is given, as a factor of 1 or more."""

    kind: Literal["scaling"]
    measure: str
    within: Real | None = Field(None, ge=1)
    beyond: Real | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_bound(self) -> "Scaling":
        if (self.within is None) == (self.beyond is None):
            raise ValueError("name one of within and beyond")
        return self

    def columns(self) -> list[str]:
        return [self.measure]

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        measure = self.measure
        name = f"{schema.describe(measure)} of scaled models over the baseline's, as a factor"
        rows = evidence.derived.set_index("variant")
        needed = ["at", *SCALED]
        if measure not in rows or any(slug not in rows.index for slug in needed):
            return Finding(name, note="scaled models were not measured")
        values = rows.loc[needed, measure].to_numpy(float)
        if not np.all(values > 0):
            return Finding(name, note=f"not measured: {schema.describe(measure)} of scaled models")
        ratios = values[1:] / values[0]
        factors = np.maximum(ratios, 1 / ratios)
        if self.within is not None:
            value, holds = factors.max(), factors.max() <= self.within
        else:
            expected = np.array([1 if scale < 1 else -1 for scale in SCALED.values()])
            value = factors.min()
            holds = np.all(np.sign(np.log(ratios)) == expected) and value >= self.beyond
        return Finding(name, float(value), n=len(SCALED), outcome=HOLDS if holds else FAILS)
