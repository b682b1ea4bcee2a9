"""Where a network lies among others: its ranks and percentiles in a table of models, in words."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from robust_flatness.measures.base import LOSSES
from robust_flatness.measures.registry import MEASURES
from robust_flatness.tables import aggregate, frames, printed, schema
from robust_flatness.tables.columns import Column, Name

#: What networks are ranked by, lowest first.
COLUMNS = ("test_rloss_pgd", "test_rerr_pgd", "avg_flatness_rloss", "worst_flatness_rloss")
#: Of the printed models.
PRINTED_EPSILON = 8 / 255


@dataclass(frozen=True)
class Place:
    """`rank` of `count` + 1 networks, this one included, counted from the lowest value; `percentile` of the
    others that lie below it."""

    column: str
    value: float
    rank: int
    count: int
    percentile: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return (
            f"{schema.describe(self.column)}: {self.value:.3g}, rank {self.rank} of {self.count + 1} "
            f"(the others {self.lowest:.3g} to {self.highest:.3g}; {self.percentile:.0f} % lie below)"
        )


@dataclass(frozen=True)
class Others:
    """Models that a network is set among: the printed ones, or an experiment's."""

    name: str
    tables: frames.Tables
    epsilon: float | None
    """Radius of the attack that they were measured with; None where the table does not say."""
    folder: Path | None = None
    """Where the table lies."""

    @classmethod
    def printed(cls) -> "Others":
        """The 74 of the paper."""
        name = "the 74 printed in the paper (CIFAR-10)"
        return cls(name, printed.read_published(), PRINTED_EPSILON)

    @classmethod
    def of(cls, path: Path) -> "Others":
        """An experiment's, from its `models.csv`; its other tables are not read."""
        models = frames.read_models(path)
        rest = map(frames.empty, (schema.HISTORY, schema.SERIES, schema.LANDSCAPE))
        columns = (f"setting_{name}epsilon" for name in ("evaluation_", ""))
        known = [models[name].dropna() for name in columns if name in models]
        epsilons = [float(values.mode().iloc[0]) for values in known if len(values)]
        name = "/".join(path.parts[-2:])
        return cls(name, frames.Tables(models, *rest), epsilons[0] if epsilons else None, path.parent)

    @cached_property
    def models(self) -> pd.DataFrame:
        """A row per variant at its last checkpoint."""
        return aggregate.variants_at(self.tables.models)

    def unlike(self, result: Mapping[str, Any]) -> str:
        """How these were measured otherwise than `result`, in words; "" where nothing is known to differ."""
        found = []
        epsilon = epsilon_of(result)
        if self.epsilon is not None and epsilon is not None and not _equal(self.epsilon, epsilon):
            found.append(f"ε = {shown(self.epsilon)} there, {shown(epsilon)} here")
        for case, words in (("avg", "average-case"), ("worst", "worst-case")):
            column = f"{case}_flatness_xi"
            mine, theirs = (
                result["values"].get(column),
                self.models.get(column, pd.Series(dtype=float)).dropna(),
            )
            if mine is not None and len(theirs) and not _equal(mine, theirs.mode().iloc[0]):
                found.append(f"ξ of {words} flatness {theirs.mode().iloc[0]:g} there, {mine:g} here")
        return "; ".join(found)


def epsilon_of(result: Mapping[str, Any]) -> float | None:
    """The radius of the attack; None where nothing was attacked."""
    specs = (part["spec"] for part in result["measures"].values())
    return next((spec["attack"]["epsilon"] for spec in specs if "attack" in spec), None)


def shown(epsilon: float) -> str:
    """A radius as people write it.

    >>> shown(8 / 255), shown(0.1)
    ('8/255', '0.1')
    """
    whole = round(255 * epsilon)
    return f"{whole}/255" if whole and _equal(255 * epsilon, whole) else f"{epsilon:.4g}"


def _equal(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-6 * abs(b)


def places(values: Mapping[str, Any], models: pd.DataFrame) -> list[Place]:
    """The places of a network with these `values` among `models` (a row each), column by column; without
    those that either lacks."""
    found = []
    for column in COLUMNS:
        others = models[column].dropna() if column in models else pd.Series(dtype=float)
        value = values.get(column)
        if value is None or others.empty:
            continue
        below = int((others < value).sum())
        found.append(
            Place(
                column=column,
                value=value,
                rank=below + 1,
                count=len(others),
                percentile=100 * below / len(others),
                lowest=float(others.min()),
                highest=float(others.max()),
            )
        )
    return found


def shown_values(values: Mapping[str, Any], order: Sequence[Column]) -> list[tuple[str, Name]]:
    """The measures among `values`, without their spreads, in the order of the columns given."""
    named = [(name, schema.parse_name(name)) for name, value in values.items() if value is not None]
    named = [(name, known) for name, known in named if known and known.column.is_measure and not known.spread]
    return sorted(named, key=lambda pair: (order.index(pair[1].column), pair[1].split, pair[1].xi or 0))


def described(result: Mapping[str, Any], others: Sequence[Others]) -> str:
    """The values of a network as a table with standard errors, and its places among `others`."""
    values, rows = result["values"], []
    order = [column for measure in MEASURES.values() for column in measure.columns]
    for name, known in shown_values(values, order):
        error = values.get(f"{name}_se")
        words = re.sub(r"^(test|train) (.+)$", r"\2, \1", known.words)
        rows.append([words, f"{values[name]:.4g}", "" if error is None else f"{error:.2g}", known.direction])
    own = result["measures"].get("sharpness", {}).get("spec", {}).get("own", ())
    for name in (f"{split}{measure}_{loss}" for measure in own for split in ("", "test_") for loss in LOSSES):
        if name in values:
            error = values.get(f"{name}_se")
            rows.append([name, f"{values[name]:.4g}", "" if error is None else f"{error:.2g}", ""])
    lines = table(["", "value", "+-", ""], rows) if rows else []
    layers = result["measures"].get("layers", {"details": {"layers": ()}})["details"]["layers"]
    if layers:
        columns = [
            name for name in layers[0] if name not in ("layer", "numbers") and not name.endswith("_se")
        ]
        head = ["flatness in RLoss, one layer perturbed", "numbers"]
        head += [
            part
            for name in columns
            for part in (name.split("_")[0].replace("avg", "average") + " case", "+-")
        ]
        rows = [
            [row["layer"], str(row["numbers"])]
            + [
                "" if number is None else f"{number:.{digits}g}"
                for name in columns
                for number, digits in ((row[name], 4), (row.get(f"{name}_se"), 2))
            ]
            for row in layers
        ]
        lines += ["", *table(head, rows)]
        details = result["measures"]["layers"]["details"]
        bias = details["reference_single"] - details["reference"]
        lines += (
            [f"{bias:.3g} is no change: PGD starts once at perturbed weights, more often at w"]
            if bias
            else []
        )
    for group in others:
        lines += ["", f"Among {group.name}:"]
        lines += [f"  {place}" for place in places(values, group.models)] or ["  none of what was measured"]
        unlike = group.unlike(result)
        lines += [f"  (measured otherwise: {unlike})"] if unlike else []
    if others:
        lines += ["", "Ranks compare like with like only: models of the same data, at the same radii."]
    return "\n".join(lines).lstrip("\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns: words at the left, numbers at the right; the last one may be empty."""
    cells = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 or (index == len(row) - 1 and not head[-1]) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
