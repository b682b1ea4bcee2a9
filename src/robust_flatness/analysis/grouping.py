"""Groups of variants by robustness: good, average, poor, and worse than the baseline."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from robust_flatness.tables.aggregate import robust_error_column

GROUPS = ("good", "average", "poor", "worse")
PERCENTILES = (30, 70)


def robustness_groups(rerr: Sequence[float], baseline: float) -> list[str]:
    """The group of each variant from its RErr: of the variants no worse than the baseline `at`, "good" lie up
    to the 30 % percentile, "average" up to the 70 % percentile and "poor" above it; "worse" lie above the
    baseline. A variant without RErr gets an empty group, and so do all without a baseline to compare with."""
    rerr = np.asarray(rerr, float)
    within = rerr[rerr <= baseline]
    if not len(within):
        return [""] * len(rerr)
    good, average = np.percentile(within, PERCENTILES)
    bounds = [(good, "good"), (average, "average"), (baseline, "poor"), (np.inf, "worse")]
    return [next((name for bound, name in bounds if value <= bound), "") for value in rerr]


def with_groups(variants: pd.DataFrame) -> pd.DataFrame:
    """`variants` (a row each) with the column `group`: as printed for the paper's own numbers
    (`robustness_group`, with fixed bounds of 57, 60 and 62.8 %), else by `robustness_groups`."""
    printed = variants.get("robustness_group")
    if printed is not None and (printed.fillna("") != "").any():
        return variants.assign(group=printed.fillna(""))
    rerr = variants.get(robust_error_column(variants), pd.Series(np.nan, index=variants.index))
    baseline = [*rerr[variants["variant"] == "at"], np.nan][0]
    return variants.assign(group=robustness_groups(rerr, baseline))
