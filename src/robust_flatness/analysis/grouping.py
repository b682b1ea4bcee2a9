"""Groups of variants by robustness: good, average, poor, and worse than the baseline."""

import numpy as np
import pandas as pd

from robust_flatness.tables.aggregate import robust_error_column

GROUPS = ("good", "average", "poor", "worse")
PERCENTILES = (30, 70)


def with_groups(variants: pd.DataFrame) -> pd.DataFrame:
    """Return `variants` (a row each) with the column `group`: as printed for the paper's own numbers
    (`robustness_group`, with fixed bounds of 57, 60 and 62.8 %), else by RErr.

    Of the variants no worse than the baseline `at`, "good" lie up to the 30 % percentile, "average" up to the
    70 % percentile and "poor" above it; "worse" lie above the baseline. A variant without RErr gets an empty
    group, and so do all without a baseline to compare with.
    """
    printed = variants.get("robustness_group")
    if printed is not None and (printed.fillna("") != "").any():
        return variants.assign(group=printed.fillna(""))
    rerr = variants.get(robust_error_column(variants), pd.Series(np.nan, index=variants.index))
    baseline = rerr[variants["variant"] == "at"].max()
    within = rerr[rerr <= baseline]
    if within.empty:
        return variants.assign(group="")
    bounds = [*np.percentile(within, PERCENTILES), baseline]
    groups = pd.Series(GROUPS).take(np.searchsorted(bounds, rerr)).set_axis(rerr.index)
    return variants.assign(group=groups.where(rerr.notna(), ""))
