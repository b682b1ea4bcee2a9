"""The tests that the rules of `config/claims.yaml` are made of."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from robust_flatness import tables as results
from robust_flatness.analysis.correlation import (
    COEFFICIENTS,
    correlate,
    finite,
    weighted_line,
    weighted_ranks,
)
from robust_flatness.analysis.evidence import Evidence, early_stopping_pairs, kink
from robust_flatness.analysis.resampling import (
    NORMAL,
    UNKNOWN,
    Interval,
    bca_interval,
    p_value,
    permutations,
    signs,
    wider,
)

HOLDS, FAILS, UNTESTABLE = "holds", "does not hold", "not testable"


@dataclass(frozen=True)
class Rules:
    """What all tests share: level of intervals, significance, resamples, least numbers."""

    significance: float
    level: float
    resamples: int
    variants: int
    snapshots: int

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


def _judged(finding: Finding, sign: str, rules: Rules) -> Finding:
    """The outcome of a test with a sign: the interval on that side of 0, and p significant."""
    if math.isnan(finding.interval.width) or math.isnan(finding.p):
        return replace(finding, note=finding.note or "no interval: the values do not vary")
    side = finding.interval.low > 0 if sign == "positive" else finding.interval.high < 0
    holds = side and finding.p < rules.significance
    return replace(finding, outcome=HOLDS if holds else FAILS)


def _too_few(n: int, least: int, what: str) -> str:
    return f"{n} {what}, {least} needed" if n < least else ""


def _lacking(frame: pd.DataFrame, *columns: str) -> str:
    missing = [results.describe(name) for name in columns if not results.has(frame, name)]
    return "not measured: " + ", ".join(missing) if missing else ""


def _wider_interval(statistic, n: int, families: Sequence, rules: Rules) -> tuple[Interval, str]:
    variants = bca_interval(statistic, n, **rules.bootstrap)
    grouped = bca_interval(statistic, n, families, **rules.bootstrap)
    chosen = wider(variants, grouped)
    return chosen, "families" if chosen is grouped else "variants"


def _chosen(models: pd.DataFrame, test: Mapping[str, Any]) -> pd.DataFrame:
    if "families" in test:
        models = models[models["family"].isin(test["families"])]
    return models[~models["variant"].isin(test.get("without", ()))]


def _except(test: Mapping[str, Any]) -> str:
    words = f", within {' and '.join(test['families'])}" if "families" in test else ""
    return words + (f", without {', '.join(test['without'])}" if "without" in test else "")


def _correlation(evidence: Evidence, test: Mapping[str, Any], rules: Rules) -> Finding:
    """Correlation of a measure with another over variants."""
    x, y, kind = test["measure"], test["against"], test["coefficient"]
    name = f"{kind.title()}, {results.describe(x)} with {results.describe(y)}{_except(test)}"
    models = _chosen(evidence.models, test)
    lacking = _lacking(evidence.models, x, y)
    if lacking:
        return Finding(name, note=lacking)
    found = correlate(models[x], models[y], models["family"], kind, rules.resamples, rules.level)
    over = "families" if found.interval is found.over_families else "variants"
    finding = Finding(name, found.value, found.interval, over, found.p, found.n)
    few = _too_few(found.n, rules.variants, "variants")
    return replace(finding, note=few) if few else _judged(finding, test["sign"], rules)


def _difference(evidence: Evidence, test: Mapping[str, Any], rules: Rules) -> Finding:
    """Difference of two measures' correlations with a third, over the same variants.

    p-value: with all three standardised (ranks for Spearman's), the difference is the mean of
    z_y (z_x - z_o); were the two measures exchangeable within a variant, each term's sign would be
    random.
    """
    x, other, y, kind = test["measure"], test["minus"], test["against"], test["coefficient"]
    name = f"{kind.title()} with {results.describe(y)}: {results.describe(x)} minus {results.describe(other)}"
    lacking = _lacking(evidence.models, x, other, y)
    if lacking:
        return Finding(name, note=lacking)
    models = evidence.models[finite(*(evidence.models[column] for column in (x, other, y)))]
    values = [models[column].to_numpy(float) for column in (x, other, y)]
    n = len(models)
    few = _too_few(n, rules.variants, "variants")
    if few:
        return Finding(name, n=n, note=few)

    one, two, three = values

    def statistic(counts: np.ndarray) -> np.ndarray:
        return COEFFICIENTS[kind](one, three, counts) - COEFFICIENTS[kind](two, three, counts)

    if kind == "spearman":
        values = [weighted_ranks(value, np.ones((1, n)))[0] for value in values]
    first, second, target = ((value - value.mean()) / (value.std() or math.nan) for value in values)
    terms = target * (first - second) / n
    flips, exact = signs(n, rules.resamples)
    interval, over = _wider_interval(statistic, n, models["family"], rules)
    p = p_value(float(terms.sum()), flips @ terms, exact)
    finding = Finding(name, float(statistic(np.ones((1, n)))[0]), interval, over, p, n)
    return _judged(finding, test["sign"], rules)


def _mean(differences: np.ndarray, families: Sequence | None, name: str, sign: str, rules: Rules) -> Finding:
    """Mean of paired differences over variants or, without families, over snapshots; p-value by
    random signs."""
    n = len(differences)
    what = "variants" if families is not None else "snapshots"
    few = _too_few(n, rules.snapshots if families is None else rules.variants, what)
    if few:
        return Finding(name, n=n, note=few)

    def statistic(counts: np.ndarray) -> np.ndarray:
        return counts @ differences / counts.sum(axis=1)

    if families is None:
        interval, over = bca_interval(statistic, n, **rules.bootstrap), what
    else:
        interval, over = _wider_interval(statistic, n, families, rules)
    flips, exact = signs(n, rules.resamples)
    p = p_value(float(differences.mean()), flips @ differences / n, exact)
    return _judged(Finding(name, float(differences.mean()), interval, over, p, n), sign, rules)


def _baseline(evidence: Evidence, test: Mapping[str, Any], rules: Rules) -> Finding:
    """Mean difference to the baseline, over more robust variants of some families."""
    measure = test["measure"]
    name = f"mean {results.describe(measure)}, minus the baseline's"
    models = evidence.models
    lacking = _lacking(models, measure, "test_rloss_pgd")
    at = models[models["variant"] == "at"]
    if lacking or not results.has(at, measure, "test_rloss_pgd"):
        return Finding(name, note=lacking or "the baseline was not measured")
    at = at.iloc[0]
    chosen = _chosen(models, test).dropna(subset=[measure, "test_rloss_pgd"])
    chosen = chosen[chosen["test_rloss_pgd"] < at["test_rloss_pgd"]]
    differences = (chosen[measure] - at[measure]).to_numpy(float)
    found = _mean(differences, chosen["family"], name, test["sign"], rules)
    error = at.get(f"{measure}_se", math.nan)
    if found.outcome == UNTESTABLE or not error > 0:
        return replace(found, note=found.note or "the baseline's own error is not known, nor in the interval")
    # All differences share one value of the baseline: its measuring error adds to the interval, and
    # a mean within it is no evidence, however many variants there are.
    scale = NORMAL.inv_cdf((1 + rules.level) / 2)
    low, high = (
        found.value + math.copysign(math.hypot(end - found.value, scale * error), end - found.value)
        for end in (found.interval.low, found.interval.high)
    )
    p = max(found.p, 2 * NORMAL.cdf(-abs(found.value) / error))
    widened = replace(found, interval=Interval(low, high), p=float(p))
    return _judged(widened, test["sign"], rules)


def _early_stopping(evidence: Evidence, test: Mapping[str, Any], rules: Rules) -> Finding:
    """Mean difference early-stopped minus last, over variants that early stopping improves."""
    measure = test["measure"]
    name = f"mean {results.describe(measure)}, early-stopped minus last"
    pairs = early_stopping_pairs(evidence.models, evidence.series, measure)
    if pairs.empty:
        return Finding(name, note=f"not measured: {results.describe(measure)}, early-stopped")
    improved = pairs[pairs["best_test_rloss_pgd"] < pairs["test_rloss_pgd"]]
    differences = (improved[f"best_{measure}"] - improved[measure]).to_numpy(float)
    found = _mean(differences, improved["family"], name, test["sign"], rules)
    by_epoch = "early-stopped: the snapshot of lowest test RLoss" if pairs.attrs["by_epoch"] else ""
    return replace(found, note=found.note or by_epoch)


def _over_epochs(x: np.ndarray, y: np.ndarray, name: str, sign: str, rules: Rules, what: str) -> Finding:
    """Rank correlation over the epochs of one training; the interval is over its epochs."""
    few = _too_few(len(x), rules.snapshots, what)
    if few:
        return Finding(name, n=len(x), note=few)
    found = correlate(x, y, range(len(x)), "spearman", rules.resamples, rules.level)
    finding = Finding(name, found.value, found.over_variants, what, found.p, found.n)
    return _judged(finding, sign, rules)


def _trend(evidence: Evidence, test: Mapping[str, Any], rules: Rules) -> Finding:
    """Rank correlation of a training curve with the epoch, from the first drop on."""
    table, measure = test.get("table", "history"), test["measure"]
    what = "epochs" if table == "history" else "snapshots"
    name = f"Spearman, {results.describe(measure)} of {test['variant']} with the epoch"
    rows = evidence.from_first_drop(table, test["variant"], measure)
    lacking = _lacking(rows, measure)
    if lacking:
        return Finding(name, note=lacking)
    return _over_epochs(
        rows["normalised_epoch"].to_numpy(float),
        rows[measure].to_numpy(float),
        name,
        test["sign"],
        rules,
        what,
    )


def _epochs(evidence: Evidence, test: Mapping[str, Any], rules: Rules) -> Finding:
    """Rank correlation of two measures over one training's snapshots, from the first drop on."""
    y = test["against"]
    rows = evidence.from_first_drop("series", test["variant"])
    measured = [name for name in test["measure"] if results.has(rows, name)]
    x = (measured or test["measure"])[0]
    name = f"Spearman, {results.describe(x)} of {test['variant']} with {results.describe(y)} over epochs"
    lacking = _lacking(rows, x, y)
    if lacking:
        return Finding(name, note=lacking)
    rows = rows.dropna(subset=[x, y])
    return _over_epochs(
        rows[x].to_numpy(float), rows[y].to_numpy(float), name, test["sign"], rules, "snapshots"
    )


def _epochs_below(evidence: Evidence, test: Mapping[str, Any], rules: Rules) -> Finding:
    """Mean difference of two trainings' measure over their snapshots from the first drop on."""
    measure, variant, baseline = test["measure"], test["variant"], test["baseline"]
    name = f"mean {results.describe(measure)} over epochs, {variant} minus {baseline}"
    curves = [evidence.from_first_drop("series", slug, measure) for slug in (variant, baseline)]
    if any(_lacking(rows, measure) for rows in curves):
        return Finding(name, note=f"not measured: {results.describe(measure)} over epochs")
    first, second = curves
    reference = np.interp(first["normalised_epoch"], second["normalised_epoch"], second[measure])
    differences = first[measure].to_numpy(float) - reference
    return _mean(differences, None, name, test["sign"], rules)


def _scaling(evidence: Evidence, test: Mapping[str, Any], _: Rules) -> Finding:
    """Ratio of the scaled models' measure to the baseline's; the one farthest from (for `beyond`:
    nearest to) 1 is given, as a factor of 1 or more."""
    measure = test["measure"]
    name = f"{results.describe(measure)} of scaled models over the baseline's, as a factor"
    rows = evidence.derived.set_index("variant")
    slugs = {"at-scaled-0.5": 0.5, "at-scaled-2": 2.0}
    needed = ["at", *slugs]
    if measure not in rows or any(slug not in rows.index for slug in needed):
        return Finding(name, note="scaled models were not measured")
    values = rows.loc[needed, measure].to_numpy(float)
    if not np.all(values > 0):
        return Finding(name, note=f"not measured: {results.describe(measure)} of scaled models")
    ratios = values[1:] / values[0]
    factors = np.maximum(ratios, 1 / ratios)
    if "within" in test:
        value, holds = factors.max(), factors.max() <= test["within"]
    else:
        expected = np.array([1 if scale < 1 else -1 for scale in slugs.values()])
        value = factors.min()
        holds = np.all(np.sign(np.log(ratios)) == expected) and value >= test["beyond"]
    return Finding(name, float(value), n=len(slugs), outcome=HOLDS if holds else FAILS)


def _bend(evidence: Evidence, test: Mapping[str, Any], rules: Rules) -> Finding:
    """Difference of the slopes of RErr over RLoss below and above the kink.

    p-value: the residuals of a single line through all variants are permuted (Freedman and Lane
    1983). The difference of slopes is linear in y and 0 for that line.
    """
    models = evidence.models
    measure = results.robust_error_column(models)
    split = kink(models)
    name = f"slope of {results.describe(measure)} over RLoss, below minus above {split:.2f}"
    lacking = _lacking(models, "test_rloss_pgd", measure)
    if lacking:
        return Finding(name, note=lacking)
    models = models.dropna(subset=["test_rloss_pgd", measure])
    x, y = models["test_rloss_pgd"].to_numpy(float), models[measure].to_numpy(float)
    below = x < split
    n = len(x)
    if min(below.sum(), (~below).sum()) < 3 or n < rules.variants:
        sides = f"{below.sum()} below and {(~below).sum()} above {split:.2f}"
        return Finding(name, n=n, note=f"{sides}; 3 needed on each side, {rules.variants} in all")

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
    interval, over = _wider_interval(statistic, n, models["family"], rules)
    p = p_value(float(weights @ y), residuals[orders] @ weights, exact)
    finding = Finding(name, float(statistic(once)[0]), interval, over, p, n)
    return _judged(finding, test["sign"], rules)


#: The kinds of tests a rule may name.
KINDS: dict[str, Callable[[Evidence, Mapping[str, Any], Rules], Finding]] = {
    "trend": _trend,
    "epochs": _epochs,
    "epochs-below": _epochs_below,
    "early-stopping": _early_stopping,
    "correlation": _correlation,
    "difference": _difference,
    "baseline": _baseline,
    "scaling": _scaling,
    "bend": _bend,
}
