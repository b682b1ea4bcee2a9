"""Comparison of many measures as predictors of robust loss, its generalisation gap and robust error."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from robust_flatness.analysis.coefficients import COEFFICIENTS as WEIGHTED
from robust_flatness.analysis.correlation import Correlation, correlate, granulated, partial
from robust_flatness.analysis.resampling import RESAMPLES, Interval, bootstrap
from robust_flatness.measures import curvature, flatness, hessian
from robust_flatness.measures.cost import attack_passes
from robust_flatness.measures.sharpness import block as sharpness
from robust_flatness.tables import aggregate, schema

#: What is predicted; for RErr, AutoAttack's where it was run.
RLOSS, GAP = "test_rloss_pgd", "rloss_gap"
#: The control of partial correlations.
GIVEN = "train_rloss_pgd"
#: Capacity and the loss on training examples, which a measure of sharpness has to beat.
CONTROLS = ("weight_norm", "distance_from_init", "spectral_product", GIVEN)
#: The measure of the clean loss whose name does not say so.
HESSIAN = "hessian_max"
COEFFICIENTS = ("pearson", "spearman", "kendall", "granulated", "partial")

TALK, SHARPNESS, CONTROL = GROUPS = ("the talk's", "sharpness", "control")
#: Sharpness on test examples, where gradients follow the test loss by construction: a group of its own.
ON_TEST = "sharpness on test examples"


@dataclass(frozen=True)
class Candidate:
    """A measure that may predict: its columns by loss (`rloss`, `ce`, or ""). The sign is -1 where a large
    value should be robust."""

    name: str
    words: str
    group: str
    columns: dict[str, str]
    sign: int


def targets(models: pd.DataFrame) -> list[str]:
    """The columns that are predicted."""
    return [RLOSS, GAP, aggregate.robust_error_column(models)]


def candidates(models: pd.DataFrame, on_test: bool = False) -> list[Candidate]:
    """The measures of a table at their main radius: the talk's flatness and Hessian, sharpness on training
    examples, users' measures and the controls. With `on_test` sharpness on test examples alone."""
    found: dict[str, Candidate] = {}
    for column in models.columns:
        quantity = schema.lookup(column)
        if quantity is None or quantity.spread or quantity.early_stopped or quantity.radius is not None:
            continue
        metric, of_test = quantity.description, quantity.measure == "sharpness" and quantity.split == "test"
        if not (metric.by_loss or metric.compared or column in CONTROLS) or of_test != on_test:
            continue
        if not aggregate.has(models, column, rows=4):
            continue
        name, loss, words = metric.column, quantity.loss, schema.describe(column)
        if metric.by_loss:
            words = metric.label.removesuffix(" in {loss}").removesuffix(", {loss}")
        group = ON_TEST if on_test else SHARPNESS
        if column in CONTROLS:
            name, group = column, CONTROL
        elif column == HESSIAN:
            loss, group = "ce", TALK
        elif quantity.measure == "flatness":
            group = TALK
            if quantity.split == "train":
                name, words = f"{name}_train", f"{words} on training examples"
        sign = -1 if metric.direction.startswith("higher") else 1
        found.setdefault(name, Candidate(name, words, group, {}, sign)).columns[loss] = column
    return list(found.values())


def passes(name: str, loss: str) -> float:
    """Cost of a measure: forward and backward passes through the network for one example, with the
    default settings and the paper's attack; NaN for a user's measures."""
    implied = {"epsilon": 8 / 255, "step_size": 0.007, "sizes": {"test": 1000, "train": 1000}}
    spec = flatness.FlatnessSettings(**flatness.FlatnessSettings.implied({}, **implied))
    of_sharpness = sharpness.SharpnessSettings(**sharpness.SharpnessSettings.implied({}, **implied))
    once, average, worst = attack_passes(spec.attack), spec.average, spec.worst
    known = {
        ("avg_flatness", "rloss"): average.samples * spec.attack.steps + once,
        ("avg_flatness", "ce"): average.clean_samples + 1,
        ("worst_flatness", "rloss"): worst.steps * worst.restarts + once,
        ("worst_flatness", "ce"): worst.steps * worst.restarts + 1,
        (HESSIAN, "ce"): hessian.PRODUCTS,
        (curvature.INDEX, "rloss"): curvature.index_passes(curvature.VECTORS) + once,
        (curvature.INDEX, "ce"): curvature.index_passes(curvature.VECTORS),
        **{(control, ""): 0 for control in CONTROLS},
        (GIVEN, ""): once,
    }
    for measure, entry in sharpness.OF_LOSSES.items():
        clean = entry.cost(of_sharpness)
        attacks = attack_passes(of_sharpness.attack) * entry.attacks(of_sharpness)
        known |= {(measure, "ce"): clean, (measure, "rloss"): clean + attacks}
    return known.get((name.removesuffix("_train"), loss), math.nan)


def _association(
    models: pd.DataFrame, column: str, target: str, kind: str, numeric: Collection[str], resamples: int
) -> Correlation:
    """One of `COEFFICIENTS`; the partial one is Spearman's given train RLoss."""
    x, y, families = models[column], models[target], models["family"]
    if kind == "granulated":
        return granulated(x, y, families, numeric, resamples=resamples)
    if kind == "partial":
        return partial(x, y, models[GIVEN], families, "spearman", resamples)
    return correlate(x, y, families, kind, resamples)


def compare(
    models: pd.DataFrame,
    numeric: Collection[str],
    coefficients: Sequence[str] = COEFFICIENTS,
    against: Iterable[str] | None = None,
    resamples: int = RESAMPLES,
    on_test: bool = False,
    everyone: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Every measure's coefficients with every target: a row each, with interval, p-value, numbers of
    variants and of families. With `on_test` also those of sharpness on test examples, after the others.

    Where a large value should be robust (the margin), the coefficient's sign is reversed, so that positive
    always means that the measure ranks models as robustness does. `models` has a row per variant, as returned
    by `aggregate.with_differences`; `numeric` are the families in which one number is varied (granulated
    coefficient); `everyone` is `models` with the variants that have not learnt, for `with_not_learnt`.
    """
    measures = [*candidates(models), *(candidates(models, on_test=True) if on_test else [])]
    cases = [
        (candidate, loss, column, target, kind)
        for candidate in measures
        for loss, column in candidate.columns.items()
        for target in (targets(models) if against is None else against)
        for kind in coefficients
        if (column, kind) != (GIVEN, "partial")
    ]
    rows = []
    for candidate, loss, column, target, kind in cases:
        if not aggregate.has(models, column, target, *([GIVEN] if kind == "partial" else []), rows=4):
            continue
        found = with_all = _association(models, column, target, kind, numeric, resamples)
        if everyone is not None and len(everyone) > len(models):
            with_all = _association(everyone, column, target, kind, numeric, resamples=1)
        low, high = sorted(candidate.sign * end for end in found.interval)
        row = {"measure": candidate.name, "words": candidate.words, "group": candidate.group, "loss": loss}
        row |= {"column": column, "against": target, "coefficient": kind}
        row |= {"value": candidate.sign * found.value, "low": low, "high": high}
        row |= {"with_not_learnt": candidate.sign * with_all.value, "passes": passes(candidate.name, loss)}
        rows.append(row | {"p": found.p, "n": found.n, "families": found.families})
    columns = ["measure", "words", "group", "loss", "column", "against", "coefficient", "value"]
    columns += ["low", "high", "with_not_learnt", "passes", "p", "n", "families"]
    return pd.DataFrame(rows, columns=columns)


def of_both_splits(compared: pd.DataFrame, target: str, coefficient: str) -> pd.DataFrame:
    """A measure's coefficient on training examples (`train`) and on test examples (`test`), a row for each
    measure and loss that has both."""
    rows = compared[(compared["against"] == target) & (compared["coefficient"] == coefficient)]
    parts = {"train": rows[rows["group"] == SHARPNESS], "test": rows[rows["group"] == ON_TEST]}
    keys = ["measure", "words", "loss"]
    values = [part.set_index(keys)["value"].rename(split) for split, part in parts.items()]
    return pd.concat(values, axis=1, join="inner").dropna().reset_index()


def by_split(compared: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Spearman's correlations with test RLoss of measures "on training examples" and "on test examples", in
    decreasing order of the absolute value of a measure's better loss. Controls stand in both."""
    rows = compared[(compared["against"] == RLOSS) & (compared["coefficient"] == "spearman")]
    rows = rows.dropna(subset=["value"])
    rows = rows.assign(
        words=rows["words"].str.replace(" on training examples", ""), clean=rows["loss"] == "ce"
    )
    test = rows["column"].str.startswith(("avg_flatness", "worst_flatness")) | (rows["group"] == ON_TEST)
    parts = {"on training examples": rows[~test], "on test examples": rows[test | (rows["group"] == CONTROL)]}
    for name, part in parts.items():
        best = part["value"].abs().groupby(part["words"]).transform("max")
        parts[name] = part.assign(best=-best).sort_values(["best", "words", "clean"], kind="stable")
    return parts


@dataclass(frozen=True)
class Advantage:
    """|r| of a measure minus |r| of a control, with the same target and over the same variants."""

    control: str
    value: float
    interval: Interval

    @property
    def words(self) -> str:
        """For example "more strongly than norm of the weights (difference 0.20 [0.05, 0.35])"."""
        low, high = self.interval
        verdict = "not differently from"
        if low > 0 or high < 0:
            verdict = f"{'more' if low > 0 else 'less'} strongly than"
        return (
            f"{verdict} {schema.describe(self.control)} (difference {self.value:.2f} [{low:.2f}, {high:.2f}])"
        )


def advantages(
    models: pd.DataFrame, column: str, target: str, coefficient: str = "spearman", resamples: int = RESAMPLES
) -> list[Advantage]:
    """Compare a measure with every control that was measured. No sign is expected of a control, so the
    coefficients are compared in absolute value."""
    found = []
    weighted = WEIGHTED[coefficient]
    for control in CONTROLS:
        if not aggregate.has(models, column, control, target, rows=4):
            continue
        rows = models.dropna(subset=[column, control, target])
        x, other, y = (rows[name].to_numpy(float) for name in (column, control, target))

        def statistic(counts, x=x, other=other, y=y):
            return np.abs(weighted(x, y, counts)) - np.abs(weighted(other, y, counts))

        value = float(statistic(np.ones((1, len(rows))))[0])
        interval = bootstrap(statistic, rows["family"], resamples=resamples).widest
        found.append(Advantage(control, value, interval))
    return found
