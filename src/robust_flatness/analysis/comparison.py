"""Which measure goes with robust generalisation: many measures against robust loss, its gap and robust
error, by the same coefficients and intervals."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from robust_flatness.analysis.coefficients import COEFFICIENTS as COEFFICIENTS_OF
from robust_flatness.analysis.correlation import Correlation, correlate, granulated, partial
from robust_flatness.analysis.resampling import RESAMPLES, Interval, bca_interval, wider
from robust_flatness.measures import flatness, hessian
from robust_flatness.measures.sharpness import block as sharpness
from robust_flatness.measures.cost import attack_passes
from robust_flatness.tables import aggregate, schema

#: What is predicted; for RErr, AutoAttack's where it was run.
RLOSS, GAP = "test_rloss_pgd", "rloss_gap"
#: Capacity and the loss on training examples, which a measure of sharpness has to beat.
CONTROLS = ("weight_norm", "distance_from_init", "spectral_product", "train_rloss_pgd")
#: What a partial correlation is given.
GIVEN = "train_rloss_pgd"
#: Of these a large value is meant to be good, so that rankings reverse the sign.
LARGER_IS_BETTER = ("margin",)
#: What is no measure of sharpness by itself.
LEFT_OUT = ("hessian_min", "convexity")
#: Measures of the clean loss whose names do not say so.
CLEAN = ("hessian_max",)
COEFFICIENTS = ("pearson", "spearman", "kendall", "granulated", "partial")

LOSSES = ("rloss", "ce")
GROUPS = ("the talk's", "sharpness", "control")
#: Sharpness on test examples, where it may follow the test loss by construction: shown beside the others.
ON_TEST = "sharpness on test examples"


@dataclass(frozen=True)
class Candidate:
    """A measure that may predict: its columns on the robust and on the clean loss, where it has them."""

    name: str
    words: str
    group: str
    columns: dict[str, str]
    sign: int = 1


def targets(models: pd.DataFrame) -> list[str]:
    """The columns that are predicted."""
    return [RLOSS, GAP, aggregate.robust_error_column(models)]


def candidates(models: pd.DataFrame, on_test: bool = False) -> list[Candidate]:
    """The measures of a table at their main radius: flatness as in the talk, sharpness as it was measured on
    training examples, one's own (`<name>_ce`, `<name>_rloss`) too, and the controls. With `on_test`
    sharpness alone, as it was measured on test examples."""
    found: dict[str, Candidate] = {}
    of_sharpness = ON_TEST if on_test else GROUPS[1]
    for column in models.columns:
        known = schema.parse_name(column)
        if (known.column.stem if known else column).startswith(sharpness.ON_TEST) != on_test:
            continue
        if known is None:
            name, _, loss = column.removeprefix(sharpness.ON_TEST).rpartition("_")
            if loss in LOSSES and not name.startswith("setting_") and has_numbers(models, column):
                own = Candidate(name, name.replace("_", " "), of_sharpness, {})
                found.setdefault(name, own).columns[loss] = column
            continue
        if known.xi is not None or known.spread or known.best or known.seeds:
            continue
        stem, kind = known.column.stem, known.column.kind
        if column not in CONTROLS and (kind not in ("flatness", "number") or stem in LEFT_OUT):
            continue
        if known.split == "test" and known.column.splits == "both":
            continue
        if not has_numbers(models, column):
            continue
        loss = "ce" if stem in CLEAN else next((name for name in LOSSES if stem.endswith(f"_{name}")), "")
        name = stem.removesuffix(f"_{loss}") if kind == "flatness" or loss else stem
        name = column if column in CONTROLS else name.removeprefix(sharpness.ON_TEST)
        talks = kind == "flatness" or stem in CLEAN
        group = GROUPS[2] if column in CONTROLS else GROUPS[0] if talks else of_sharpness
        words = known.words
        for ending in (" in RLoss", " in CE", ", robust loss", ", clean loss", sharpness.WORDS_ON_TEST):
            words = words.replace(ending, "")
        if kind == "flatness" and known.split == "train":
            name += "_train"
        sign = -1 if name.startswith(LARGER_IS_BETTER) else 1
        found.setdefault(name, Candidate(name, words, group, {}, sign)).columns[loss] = column
    return list(found.values())


def has_numbers(models: pd.DataFrame, column: str) -> bool:
    """Whether enough variants have a number there."""
    return pd.api.types.is_numeric_dtype(models[column]) and aggregate.has(models, column, rows=4)


def passes(name: str, loss: str) -> float:
    """What a measure costs: passes, forward and backward, through the network for one example, with the
    defaults of the specs and the paper's attack. NaN for measures that are not the kit's own."""
    implied = {"epsilon": 8 / 255, "step_size": 0.007, "sizes": {"test": 1000, "train": 1000}}
    spec = flatness.FlatnessSpec(**flatness.FlatnessSpec.implied({}, **implied))
    of_sharpness = sharpness.SharpnessSpec(**sharpness.SharpnessSpec.implied({}, **implied))
    once, average, worst = attack_passes(spec.attack), spec.average, spec.worst
    known = {
        ("avg_flatness", "rloss"): average.samples * spec.attack.steps + once,
        ("avg_flatness", "ce"): average.clean_samples + 1,
        ("worst_flatness", "rloss"): worst.steps * worst.restarts + once,
        ("worst_flatness", "ce"): worst.steps * worst.restarts + 1,
        ("hessian_max", "ce"): hessian.PRODUCTS,
        (GIVEN, ""): once,
        **{(control, ""): 0 for control in CONTROLS if control != GIVEN},
    }
    for measure, entry in sharpness.OF_LOSSES.items():
        known[measure, "ce"] = entry.cost(of_sharpness)
        known[measure, "rloss"] = known[measure, "ce"]
        known[measure, "rloss"] += attack_passes(of_sharpness.attack) * entry.attacks(of_sharpness)
    return known.get((name.removesuffix("_train") if "flatness" in name else name, loss), math.nan)


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
) -> pd.DataFrame:
    """Every measure's coefficients with every target: a row each, with interval, p-value, numbers of
    variants and of families. With `on_test` also those of sharpness on test examples, after the others.

    Where a large value is meant to be good (the margin), the coefficient's sign is reversed, so that
    positive always means that the measure ranks models as robustness does.

    Parameters
    ----------
    models
        One row per variant, as `tables.with_differences` has them.
    numeric
        Families in which one number is varied, for the granulated coefficient.
    """
    rows = []
    apart = candidates(models, on_test=True) if on_test else []
    for candidate in [*candidates(models), *apart]:
        for loss, column in candidate.columns.items():
            for target in targets(models) if against is None else against:
                for kind in coefficients:
                    if column == GIVEN and kind == "partial":
                        continue
                    if not aggregate.has(
                        models, column, target, *([GIVEN] if kind == "partial" else ()), rows=4
                    ):
                        continue
                    found = association(models, column, target, kind, numeric, resamples)
                    ends = [candidate.sign * end for end in found.interval]
                    rows.append(
                        {
                            **{"measure": candidate.name, "words": candidate.words, "group": candidate.group},
                            **{"loss": loss, "column": column, "against": target, "coefficient": kind},
                            "value": candidate.sign * found.value,
                            **{"low": min(ends), "high": max(ends)},
                            "passes": passes(candidate.name, loss),
                            **{"p": found.p, "n": found.n, "families": found.families},
                        }
                    )
    columns = ["measure", "words", "group", "loss", "column", "against", "coefficient", "value"]
    return pd.DataFrame(rows, columns=[*columns, "low", "high", "passes", "p", "n", "families"])


def ranked(compared: pd.DataFrame, target: str, coefficient: str) -> list[str]:
    """The names of the measures, the one with the highest coefficient first; of a measure's two losses the
    better one counts."""
    rows = compared[(compared["against"] == target) & (compared["coefficient"] == coefficient)]
    best = rows.groupby("measure")["value"].max().dropna().sort_values(ascending=False, kind="stable")
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
    """By how much one measure's coefficient exceeds that of a control, both without their signs."""

    control: str
    value: float
    interval: Interval

    @property
    def words(self) -> str:
        """The comparison in a sentence's end: "stronger by 0.20 [0.05, 0.35] than ...", or that it is not
        told."""
        low, high = self.interval
        told = f"{abs(self.value):.2f} [{min(abs(low), abs(high)):.2f}, {max(abs(low), abs(high)):.2f}]"
        name = schema.describe(self.control)
        if low > 0:
            return f"more strongly than {name}, by {told}"
        if high < 0:
            return f"less strongly than {name}, by {told}"
        return f"not told apart from {name} (difference {self.value:.2f} [{low:.2f}, {high:.2f}])"


def advantages(
    models: pd.DataFrame, column: str, target: str, coefficient: str = "spearman", resamples: int = RESAMPLES
) -> list[Advantage]:
    """A measure against every control that was measured, over the same variants: |r| of the measure minus
    |r| of the control, the interval the wider one of bootstraps over variants and families. A control has
    no sign that is expected of it, so the signs are left out."""
    found = []
    weighted = COEFFICIENTS_OF[coefficient]
    for control in CONTROLS:
        if not aggregate.has(models, column, control, target, rows=4):
            continue
        rows = models.dropna(subset=[column, control, target])
        x, other, y = (rows[name].to_numpy(float) for name in (column, control, target))

        def statistic(counts, x=x, other=other, y=y):
            return np.abs(weighted(x, y, counts)) - np.abs(weighted(other, y, counts))

        once, count = np.ones((1, len(rows))), len(rows)
        interval = wider(
            bca_interval(statistic, count, resamples=resamples),
            bca_interval(statistic, count, rows["family"], resamples=resamples),
        )
        found.append(Advantage(control, float(statistic(once)[0]), interval))
    return found
