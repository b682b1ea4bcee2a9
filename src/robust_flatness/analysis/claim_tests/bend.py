"""The test of a bend of RErr over RLoss."""

from typing import Literal

import numpy as np

from robust_flatness import tables as results
from robust_flatness.analysis.claim_tests.base import (
    Finding,
    Rules,
    Sign,
    Test,
    judged,
    lacking,
    wider_interval,
)
from robust_flatness.analysis.correlation import weighted_line
from robust_flatness.analysis.evidence import Evidence, kink
from robust_flatness.analysis.resampling import p_value, permutations


class Bend(Test):
    """Difference of the slopes of RErr over RLoss below and above the kink.

    p-value: the residuals of a single line through all variants are permuted (Freedman and Lane
    1983). The difference of slopes is linear in y and 0 for that line.
    """

    kind: Literal["bend"]
    sign: Sign

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        models = evidence.models
        measure = results.robust_error_column(models)
        split = kink(models)
        name = f"slope of {results.describe(measure)} over RLoss, below minus above {split:.2f}"
        missing = lacking(models, "test_rloss_pgd", measure)
        if missing:
            return Finding(name, note=missing)
        models = models.dropna(subset=["test_rloss_pgd", measure])
        x, y = models["test_rloss_pgd"].to_numpy(float), models[measure].to_numpy(float)
        below = x < split
        n, least = len(x), rules.minimum.variants
        if min(below.sum(), (~below).sum()) < 3 or n < least:
            sides = f"{below.sum()} below and {(~below).sum()} above {split:.2f}"
            return Finding(name, n=n, note=f"{sides}; 3 needed on each side, {least} in all")

        def slopes(counts: np.ndarray, target: np.ndarray) -> np.ndarray:
            parts = (weighted_line(x[side], target[side], counts[:, side])[1] for side in (below, ~below))
            low, high = parts
            return low - high

        def statistic(counts: np.ndarray) -> np.ndarray:
            return slopes(counts, y)

        once = np.ones((1, n))
        intercept, slope = weighted_line(x, y, once)
        residuals = y - intercept - slope * x
        weights = np.array([float(slopes(once, unit)[0]) for unit in np.eye(n)])
        orders, exact = permutations(n, rules.resamples)
        interval, over = wider_interval(statistic, n, models["family"], rules)
        p = p_value(float(weights @ y), residuals[orders] @ weights, exact)
        finding = Finding(name, float(statistic(once)[0]), interval, over, p, n)
        return judged(finding, self.sign, rules)
