"""Place of a network among others: ranks and percentiles in a table of models, as text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from robust_flatness.measures.base import Metric
from robust_flatness.measures.registry import MEASURES
from robust_flatness.tables import aggregate, frames, importing, printed, schema

#: Columns by which networks are ranked, lowest first.
RANKED = ("test_rloss_pgd", "test_rerr_pgd", "avg_flatness_rloss", "worst_flatness_rloss")
#: Radius of the printed models' attack.
PRINTED_EPSILON = 8 / 255


@dataclass(frozen=True)
class ModelGroup:
    """Models that a network is compared with: the printed ones, or those of an experiment.

    `epsilon` is the radius of their attack, None where it is unknown; `folder` holds an experiment's tables.
    """

    name: str
    tables: frames.Tables
    epsilon: float | None
    folder: Path | None = None

    @classmethod
    def printed(cls) -> "ModelGroup":
        """Return the 74 models of the paper."""
        name = "the 74 printed in the paper (CIFAR-10)"
        return cls(name, printed.read_published(), PRINTED_EPSILON)

    @classmethod
    def read(cls, path: Path) -> "ModelGroup":
        """Return the models of an experiment, from the folder with its records.csv or from its models.csv."""
        if path.is_dir():
            tables = frames.read_tables(path)
        else:
            tables = frames.Tables(importing.read_results_table(path), *[pd.DataFrame()] * 3)
        columns = (tables.models.get(f"setting_{name}epsilon") for name in ("evaluation_", ""))
        radii = [float(c.dropna().mode().iloc[0]) for c in columns if c is not None and c.notna().any()]
        folder = path if path.is_dir() else path.parent
        return cls("/".join(path.parts[-2:]), tables, radii[0] if radii else None, folder)

    @cached_property
    def models(self) -> pd.DataFrame:
        """A row per variant at its last checkpoint."""
        return aggregate.variants_at(self.tables.models)

    def differences(self, result: Mapping[str, Any]) -> str:
        """Return in which radii these were measured otherwise than `result`; "" if none is known."""
        epsilon, found = epsilon_of(result), []
        if (
            self.epsilon is not None
            and epsilon is not None
            and not math.isclose(self.epsilon, epsilon, rel_tol=1e-6)
        ):
            found.append(f"ε = {fraction(self.epsilon)} there, {fraction(epsilon)} here")
        for case, words in (("avg", "average-case"), ("worst", "worst-case")):
            column = f"{case}_flatness_xi"
            xi, others = (
                result["values"].get(column),
                self.models.get(column, pd.Series(dtype=float)).dropna(),
            )
            if xi is not None and len(others) and not math.isclose(xi, others.mode().iloc[0], rel_tol=1e-6):
                found.append(f"ξ of {words} flatness {others.mode().iloc[0]:g} there, {xi:g} here")
        return "; ".join(found)


def epsilon_of(result: Mapping[str, Any]) -> float | None:
    """Return the radius of the attack; None if nothing was attacked."""
    settings = result["settings"].values()
    return next((given["attack"]["epsilon"] for given in settings if "attack" in given), None)


def fraction(epsilon: float) -> str:
    """Return a radius as multiple of 1/255 if it is one.

    >>> fraction(8 / 255), fraction(0.1)
    ('8/255', '0.1')
    """
    whole = round(255 * epsilon)
    return f"{whole}/255" if whole and math.isclose(255 * epsilon, whole, rel_tol=1e-6) else f"{epsilon:.4g}"


def described(result: Mapping[str, Any], groups: Sequence[ModelGroup]) -> str:
    """Return the values of a network as a table with standard errors, and its places in `groups`."""
    values, rows = result["values"], []
    for name, value in values.items():
        if schema.is_measure(name) and not schema.lookup(name).spread:
            rows.append(
                [schema.describe(name), *_number(value, values.get(f"{name}_se")), schema.direction(name)]
            )
    lines = (
        [*table(["", "value", "+-", ""], rows), *_layers(result["records"])]
        if rows
        else _layers(result["records"])
    )
    for group in groups:
        lines += ["", f"Among {group.name}:"]
        lines += places(values, group.models) or ["  nothing that was measured here"]
        differences = group.differences(result)
        lines += [f"  (measured otherwise: {differences})"] if differences else []
    return "\n".join([*lines, "", "Ranks are meaningful among models of the same data, at the same radii."])


def places(values: Mapping[str, float], models: pd.DataFrame) -> list[str]:
    """Return rank and percentile among `models`, one row each, for every column of `RANKED` that both have."""
    lines = []
    for column in RANKED:
        others = models[column].dropna() if column in models else ()
        if column in values and len(others):
            value, below = values[column], int((others < values[column]).sum())
            lines.append(
                f"  {schema.describe(column)}: {value:.3g}, rank {below + 1} of {len(others) + 1} (the others "
                f"{others.min():.3g} to {others.max():.3g}; {100 * below / len(others):.0f} % lie below)"
            )
    return lines


def _layers(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of the measure `layers`: a row for each layer, its size and its flatness."""
    layers: dict[str, dict[str, Mapping[str, Any]]] = {}
    for record in records:
        if record["measure"] == "layers":
            layers.setdefault(record["coordinate"], {})[record["metric"]] = record
    metrics: dict[str, Metric] = MEASURES["layers"].metrics
    cases = [name for name in metrics if name != "numbers" and any(name in row for row in layers.values())]
    head = ["RLoss, one layer perturbed", "numbers"]
    for name in cases:
        head += [metrics[name].label.partition(" ")[0], "+-"]
    rows = [
        [layer, f"{row['numbers']['value']}"]
        + [cell for name in cases for cell in _number(row[name]["value"], row[name]["se"])]
        for layer, row in layers.items()
    ]
    return ["", *table(head, rows)] if rows else []


def _number(value: float, error: float | None) -> tuple[str, str]:
    return f"{value:.4g}", "" if error is None else f"{error:.2g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of aligned columns, words at the left and numbers at the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, *rows):
        first, *cells = (
            cell.ljust(width) if index == 0 or (index == len(row) - 1 and not head[-1]) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *cells]).rstrip())
    return lines
