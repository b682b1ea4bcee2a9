"""Comparison of many measures as predictors of robust loss, its generalisation gap and robust error."""

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from robust_flatness.analysis.coefficients import COEFFICIENTS as WEIGHTED
from robust_flatness.analysis.correlation import Correlation, correlate, granulated, partial
from robust_flatness.analysis.resampling import RESAMPLES, Interval, bootstrap
from robust_flatness.measures import flatness, hessian
from robust_flatness.measures.cost import attack_passes
from robust_flatness.measures.sharpness import block as sharpness
from robust_flatness.tables import aggregate, schema

#: What is predicted; for RErr, AutoAttack's where it was run.
RLOSS, GAP = "test_rloss_pgd", "rloss_gap"
#: Capacity and the loss on training examples, which a measure of sharpness has to beat.
CONTROLS = ("weight_norm", "distance_from_init", "spectral_product", "train_rloss_pgd")
#: The control of partial correlations.
GIVEN = "train_rloss_pgd"
#: Measures whose coefficients are reversed, since a large value should be robust.
LARGER_IS_BETTER = ("margin",)
#: The measure of the clean loss whose name does not say so.
HESSIAN = "hessian_max"
COEFFICIENTS = ("pearson", "spearman", "kendall", "granulated", "partial")

GROUPS = ("the talk's", "sharpness", "control")
#: Sharpness on test examples, where gradients follow the test loss by construction: a group of its own.
ON_TEST = "sharpness on test examples"

_COLUMN = re.compile(r"(?!best_|setting_)(?P<split>test_|train_)?(?P<name>\w+)_(?P<loss>rloss|ce)")
_LOSS_IN_WORDS = re.compile(r"( in (RLoss|CE)|, (robust|clean) loss)|" + " on (test|training) examples")


@dataclass(frozen=True)
class Candidate:
    """A measure that may predict: its columns by loss (`rloss`, `ce`, or "")."""

    name: str
    words: str
    group: str
    columns: dict[str, str]
    sign: int = 1


def targets(models: pd.DataFrame) -> list[str]:
    """The columns that are predicted."""
    return [RLOSS, GAP, aggregate.robust_error_column(models)]


def candidates(models: pd.DataFrame, on_test: bool = False) -> list[Candidate]:
    """The measures of a table at their main radius: the talk's flatness and Hessian, sharpness on training
    examples, a user's measures (`<name>_ce`, `<name>_rloss`) and the controls. With `on_test` sharpness on
    test examples alone."""
    found: dict[str, Candidate] = {}
    for column in models.columns:
        match = _COLUMN.fullmatch(column)
        control = column in CONTROLS
        if not (match or control or column == HESSIAN) or not _has_numbers(models, column):
            continue
        split, name, loss = match.groups() if match and not control else (None, column, "")
        if (split == "test_") != on_test or name in ("test", "train"):
            continue
        is_flatness = name in ("avg_flatness", "worst_flatness")
        if column == HESSIAN:
            loss = "ce"
        if split == "train_":
            name += "_train"
        group = ON_TEST if on_test else GROUPS[1]
        if control or is_flatness or column == HESSIAN:
            group = GROUPS[2] if control else GROUPS[0]
        described = schema.describe(column)
        words = name.replace("_", " ") if described == column else _LOSS_IN_WORDS.sub("", described)
        sign = -1 if name.startswith(LARGER_IS_BETTER) else 1
        found.setdefault(name, Candidate(name, words, group, {}, sign)).columns[loss] = column
    return list(found.values())


def _has_numbers(models: pd.DataFrame, column: str) -> bool:
    return pd.api.types.is_numeric_dtype(models[column]) and aggregate.has(models, column, rows=4)


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
        **{(control, ""): 0 for control in CONTROLS},
        (GIVEN, ""): once,
    }
    for measure, entry in sharpness.OF_LOSSES.items():
        known[measure, "ce"] = entry.cost(of_sharpness)
        known[measure, "rloss"] = known[measure, "ce"]
        known[measure, "rloss"] += attack_passes(of_sharpness.attack) * entry.attacks(of_sharpness)
    return known.get((name.removesuffix("_train"), loss), math.nan)


def association(
    models: pd.DataFrame,
    column: str,
    target: str,
    coefficient: str,
    numeric: Collection[str] = (),
    resamples: int = RESAMPLES,
) -> Correlation:
    """One of `COEFFICIENTS` of a measure with a target; the partial one is Spearman's given train
    RLoss."""
    x, y, families = models[column], models[target], models["family"]
    if coefficient == "granulated":
        return granulated(x, y, families, numeric, resamples=resamples)
    if coefficient == "partial":
        return partial(x, y, models[GIVEN], families, "spearman", resamples)
    return correlate(x, y, families, coefficient, resamples)


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

    Where a large value should be robust (the margin), the coefficient's sign is reversed, so that
    positive always means that the measure ranks models as robustness does.

    Parameters
    ----------
    models
        One row per variant, as returned by `aggregate.with_differences`.
    numeric
        Families in which one number is varied, for the granulated coefficient.
    everyone
        The same with the variants that have not learnt, for the column `with_not_learnt`: the coefficient
        over all of them.
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
        found = association(models, column, target, kind, numeric, resamples)
        with_all = found
        if everyone is not None and len(everyone) > len(models):
            with_all = association(everyone, column, target, kind, numeric, resamples=1)
        ends = [candidate.sign * end for end in found.interval]
        rows.append(
            {
                **{"measure": candidate.name, "words": candidate.words, "group": candidate.group},
                **{"loss": loss, "column": column, "against": target, "coefficient": kind},
                **{"value": candidate.sign * found.value, "low": min(ends), "high": max(ends)},
                **{
                    "with_not_learnt": candidate.sign * with_all.value,
                    "passes": passes(candidate.name, loss),
                },
                **{"p": found.p, "n": found.n, "families": found.families},
            }
        )
    columns = ["measure", "words", "group", "loss", "column", "against", "coefficient", "value"]
    return pd.DataFrame(
        rows, columns=[*columns, "low", "high", "with_not_learnt", "passes", "p", "n", "families"]
    )


def ranked(compared: pd.DataFrame, target: str, coefficient: str) -> list[str]:
    """The names of the measures in decreasing order of the coefficient's absolute value; of a measure's two
    losses the larger one counts."""
    rows = compared[(compared["against"] == target) & (compared["coefficient"] == coefficient)]
    values = rows["value"].abs().groupby(rows["measure"]).max().dropna()
    best = values.sort_values(ascending=False, kind="stable")
    return list(best.index)


def of_both_splits(compared: pd.DataFrame, target: str, coefficient: str) -> pd.DataFrame:
    """A measure's coefficient on training examples (`train`) and on test examples (`test`), a row for each
    measure and loss that has both."""
    rows = compared[(compared["against"] == target) & (compared["coefficient"] == coefficient)]
    keys = ["measure", "words", "loss"]
    train = rows[rows["group"] == GROUPS[1]].set_index(keys)["value"].rename("train")
    test = rows[rows["group"] == ON_TEST].set_index(keys)["value"].rename("test")
    return pd.concat([train, test], axis=1, join="inner").dropna().reset_index()


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
        verdict = (
            "more strongly than" if low > 0 else "less strongly than" if high < 0 else "not differently from"
        )
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
