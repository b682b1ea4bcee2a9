"""Comparison of many measures as predictors of robust loss, its generalisation gap and robust error."""

import math
from collections.abc import Collection, Sequence
from itertools import product
from typing import NamedTuple

import pandas as pd

from robust_flatness.analysis.correlation import correlate, granulated
from robust_flatness.analysis.evidence import CAPACITY, RLOSS, Evidence
from robust_flatness.analysis.resampling import RESAMPLES, Estimate
from robust_flatness.measures import curvature, flatness, hessian
from robust_flatness.measures.sharpness import block as sharpness
from robust_flatness.tables import aggregate, schema

#: Column that is predicted, in addition to RLoss and RErr (by AutoAttack if it was run).
GAP = "rloss_gap"
#: The control of partial correlations.
GIVEN = "train_rloss_pgd"
#: Controls: capacity and training loss, the baselines that measures of sharpness are compared with.
CONTROLS = (*CAPACITY, GIVEN)
#: Column of the largest Hessian eigenvalue, which is that of the clean loss.
HESSIAN = "hessian_max"
#: Smallest number of variants with a measure for a coefficient to be computed.
LEAST = 4
#: Smallest number of variants for a figure that compares measures.
FEWEST = 6
COEFFICIENTS = ("pearson", "spearman", "kendall", "granulated", "partial")

TALK, SHARPNESS, CONTROL = "the talk's", "sharpness", "control"
#: Sharpness on test examples, where gradients follow the test loss by construction: a group of its own.
ON_TEST = "sharpness on test examples"


class Candidate(NamedTuple):
    """A compared measure: its name and label, its group (`TALK`, `SHARPNESS`, `ON_TEST` or `CONTROL`), its
    loss (`rloss`, `ce` or ""), its column, and -1 if larger values are meant to be more robust, else 1."""

    measure: str
    words: str
    group: str
    loss: str
    column: str
    sign: int


def targets(models: pd.DataFrame) -> list[str]:
    """Return the columns that are predicted."""
    return [RLOSS, GAP, aggregate.robust_error_column(models)]


def candidates(models: pd.DataFrame) -> list[Candidate]:
    """Return the measures of a table at their main radius: the talk's flatness and Hessian, sharpness, users'
    measures and the controls; those of `ON_TEST` last, the losses of a measure together."""
    found: dict[tuple[bool, str], list[Candidate]] = {}
    for column in models.columns:
        quantity = schema.lookup(column)
        if quantity is None or quantity.spread or quantity.radius is not None:
            continue
        metric = quantity.description
        compared = metric.by_loss or metric.compared or column in CONTROLS
        if not compared or not aggregate.has(models, column, rows=LEAST):
            continue
        name, loss, words, group = metric.column, quantity.loss, schema.describe(column), SHARPNESS
        if metric.by_loss:
            words = metric.label.removesuffix(" in {loss}").removesuffix(", {loss}")
        if column in CONTROLS:
            name, group = column, CONTROL
        elif column == HESSIAN:
            loss, group = "ce", TALK
        elif quantity.measure == "flatness":
            group = TALK
            if quantity.split == "train":
                name, words = f"{name}_train", f"{words} on training examples"
        elif quantity.measure == "sharpness" and quantity.split == "test":
            group = ON_TEST
        sign = -1 if metric.direction.startswith("higher") else 1
        measure = found.setdefault((group == ON_TEST, name), [])
        measure.append(Candidate(name, words, group, loss, column, sign))
    return [candidate for key in sorted(found, key=lambda key: key[0]) for candidate in found[key]]


def passes() -> dict[tuple[str, str], float]:
    """Return the costs of all measures but users', by name and loss: forward and backward passes through the
    network for one example, with the default settings and the paper's attack."""
    implied = {"epsilon": 8 / 255, "step_size": 0.007, "sizes": {"test": 1000, "train": 1000}}
    spec = flatness.FlatnessSettings(**flatness.FlatnessSettings.implied({}, **implied))
    of_sharpness = sharpness.SharpnessSettings(**sharpness.SharpnessSettings.implied({}, **implied))
    once, average, worst = spec.attack.passes, spec.average, spec.worst
    index, attack = curvature.PRODUCT * curvature.VECTORS, of_sharpness.attack.passes
    known = {
        ("avg_flatness", "rloss"): average.samples * spec.attack.steps + once,
        ("avg_flatness", "ce"): average.clean_samples + 1,
        ("worst_flatness", "rloss"): worst.steps * worst.restarts + once,
        ("worst_flatness", "ce"): worst.steps * worst.restarts + 1,
        (HESSIAN, "ce"): hessian.PRODUCTS,
        (curvature.INDEX, "rloss"): index + attack,
        (curvature.INDEX, "ce"): index,
        **{(control, ""): 0 for control in CONTROLS},
        (GIVEN, ""): once,
    }
    for measure, entry in sharpness.entries(of_sharpness).items():
        known |= {(measure, "ce"): entry.passes, (measure, "rloss"): entry.passes + attack * entry.attacks}
    return known


def compare(
    evidence: Evidence, numeric: Collection[str], coefficients: Sequence[str] = COEFFICIENTS,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:  # fmt: skip
    """Compute every measure's coefficients with every target: a row each, with interval, p-value, numbers of
    variants and of families, and the coefficient with variants that have not learnt (`with_not_learnt`).

    Where a large value means more robust (the margin), the coefficient's sign is reversed, so that positive
    always means that the measure ranks models as robustness does. `numeric` are the families in which one
    number is varied (granulated coefficient); the partial coefficient is Spearman's given train RLoss.
    """

    def association(models: pd.DataFrame, column: str, target: str, kind: str, resamples: int) -> Estimate:
        if kind == "granulated":
            return granulated(models, column, target, numeric, resamples)
        kind, given = ("spearman", GIVEN) if kind == "partial" else (kind, None)
        return correlate(models, column, target, kind, given, resamples)

    models, costs, rows = evidence.models, passes(), []
    for candidate, target, kind in product(candidates(models), targets(models), coefficients):
        column, sign, given = candidate.column, candidate.sign, [GIVEN] if kind == "partial" else []
        if column in given or not aggregate.has(models, column, target, *given, rows=LEAST):
            continue
        found = everyone = association(models, column, target, kind, resamples)
        if evidence.not_learnt:
            everyone = association(evidence.complete.models, column, target, kind, resamples=1)
        low, high = sorted(sign * end for end in found.interval)
        numbers = [sign * found.value, low, high, sign * everyone.value]
        cost = costs.get((candidate.measure.removesuffix("_train"), candidate.loss), math.nan)
        rows.append([*candidate[:-1], target, kind, *numbers, cost, found.p, found.n, found.families])
    columns = [*Candidate._fields[:-1], "against", "coefficient", "value", "low", "high", "with_not_learnt"]
    return pd.DataFrame(rows, columns=[*columns, "passes", "p", "n", "families"])


def by_split(compared: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return Spearman's correlations with test RLoss of the measures "on training examples" and "on test
    examples", controls in both. Measures are sorted by the larger absolute value of their losses, in
    decreasing order; `words` name the number of variants of those that `of_most` does not mark."""
    chosen = (compared["against"] == RLOSS) & (compared["coefficient"] == "spearman")
    rows = compared[chosen].dropna(subset="value")
    words, clean = rows["words"].str.replace(" on training examples", ""), rows["loss"] == "ce"
    words = words.where(of_most(rows), words + rows["n"].map(" (n = {:.0f})".format))
    rows = rows.assign(words=words, clean=clean)
    test = rows["column"].str.startswith(("avg_flatness", "worst_flatness")) | (rows["group"] == ON_TEST)
    parts = {"on training examples": rows[~test], "on test examples": rows[test | (rows["group"] == CONTROL)]}
    for name, part in parts.items():
        best = part["value"].abs().groupby(part["words"]).transform("max")
        parts[name] = part.assign(best=-best).sort_values(["best", "words", "clean"], kind="stable")
    return parts


def of_most(rows: pd.DataFrame) -> pd.Series:
    """Return a mask of the rows whose `n` is at least half of the largest."""
    return rows["n"] >= rows["n"].max() / 2
