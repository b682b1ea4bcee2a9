"""Values of a network as text, and its rank among other models."""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from robust_flatness.tables import aggregate, frames, printed, schema
from robust_flatness.tables.importing import import_table

#: Columns by which networks are ranked, lowest first.
RANKED = ("test_rloss_pgd", "test_rerr_pgd", "avg_flatness_rloss", "worst_flatness_rloss")
#: Radius of the attack on the models printed in the paper.
PRINTED_EPSILON = 8 / 255


@dataclass(frozen=True)
class ModelGroup:
    """Models that a network is compared with. `radius` is the radius of their attack as text, empty if
    unknown; `folder` holds an experiment's tables."""

    name: str
    tables: frames.Tables
    radius: str
    folder: Path | None = None

    @classmethod
    def printed(cls) -> "ModelGroup":
        """Return the 74 models of the paper."""
        radius = radius_words(PRINTED_EPSILON)
        return cls("the 74 printed in the paper (CIFAR-10)", printed.read_published(), radius)

    @classmethod
    def read(cls, path: Path) -> "ModelGroup":
        """Return the models of an experiment, from the folder with its records.csv or from its models.csv."""
        folder = path if path.is_dir() else path.parent
        with tempfile.TemporaryDirectory() as temporary:
            if path != folder:
                import_table(path, Path(temporary))
            tables = frames.read_tables(path if path == folder else Path(temporary))
        radii = [_usual(tables.models, f"setting_{name}epsilon") for name in ("evaluation_", "")]
        norm = "l2" if (tables.models.get("setting_norm", pd.Series()) == "l2").any() else "linf"
        epsilon = radii[0] or radii[1]
        radius = radius_words(epsilon, norm) if epsilon else ""
        return cls("/".join(path.parts[-2:]), tables, radius, folder)

    @cached_property
    def models(self) -> pd.DataFrame:
        """A row per variant at its last checkpoint."""
        return aggregate.variants_at(self.tables.models)

    def differences(self, result: Mapping[str, Any]) -> str:
        """Return the known radii that differ between this group and `result`, as text; may be empty."""
        pairs = {"ε": (self.radius, radius_of(result))}
        for case, words in (("avg", "average-case"), ("worst", "worst-case")):
            column = f"{case}_flatness_xi"
            radii = _usual(self.models, column), result["values"].get(column)
            pairs[f"ξ of {words} flatness"] = tuple("" if xi is None else f"{xi:.4g}" for xi in radii)
        return "; ".join(
            f"{name} = {there} there, {here} here"
            for name, (there, here) in pairs.items()
            if there and here and there != here
        )


def _usual(models: pd.DataFrame, column: str) -> float | None:
    """Return the most frequent value of a column, None if there is none."""
    values = models[column].dropna() if column in models else ()
    return float(values.mode().iloc[0]) if len(values) else None


def radius_of(result: Mapping[str, Any]) -> str:
    """Return the radius of the attack as text; empty if no attack was run."""
    attacks = [given["attack"] for given in result["settings"].values() if "attack" in given]
    return radius_words(attacks[0]["epsilon"], attacks[0].get("norm", "linf")) if attacks else ""


def radius_words(radius: float, norm: str = "linf") -> str:
    """Return the radius of an attack as text: with the norm if it is L2, else n/255 if it is a multiple.

    >>> radius_words(8 / 255), radius_words(0.1), radius_words(0.5, "l2")
    ('8/255', '0.1', '0.5 (L2)')
    """
    whole = round(255 * radius)
    exact = whole and math.isclose(255 * radius, whole, rel_tol=1e-6)
    if norm == "l2":
        return f"{radius:.4g} (L2)"
    return f"{whole}/255" if exact else f"{radius:.4g}"


def described(result: Mapping[str, Any], groups: Sequence[ModelGroup]) -> str:
    """Return a network's values and standard errors as a text table, followed by its ranks among `groups`
    (none if measured with a user-defined loss)."""
    rows = [*value_rows(result["records"])]
    width = max((len(row[0]) for row in rows), default=0)
    lines = [f"{'':{width}}  {'value':>9}  {'+-':>8}"] if rows else []
    for words, value, error, direction in rows:
        spread = "" if error is None else f"{error:.2g}"
        lines.append(f"{words:{width}}  {value:9.4g}  {spread:>8}  {direction}".rstrip())
    if loss := result["notes"].get("loss"):
        note = f"CE and RLoss are the clean and the robust loss of {loss}."
        return "\n".join([*lines, "", f"{note} Not ranked: other models' loss is the cross-entropy."])
    for group in groups:
        lines += ["", f"Among {group.name}:", *places(result["values"], group.models)]
        if differences := group.differences(result):
            lines.append(f"  (measured otherwise: {differences})")
    return "\n".join([*lines, "", "Compare ranks among models of the same data, at the same radii, only."])


def value_rows(records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float, float | None, str]]:
    """Yield label, value, standard error and direction of each record but settings, spreads and curves."""
    for r in records:
        metric = schema.metric_of(r["measure"], r["metric"])
        spread = r["metric"].endswith("_std") and metric.column == r["metric"]
        if metric.column is not None and metric.kind != "setting" and not spread:
            words = metric.words(r["split"], r["loss"], r[metric.radius] or None if metric.radius else None)
            if r["coordinate"] and metric.radius != "coordinate":
                words += f", {r['coordinate']} alone"
            yield words, r["value"], r["se"], metric.direction


def places(values: Mapping[str, float], models: pd.DataFrame) -> list[str]:
    """Return rank and percentile among `models` (a row each) for each column of `RANKED` that both have;
    NaN is not ranked."""
    lines = []
    for column in (name for name in RANKED if name in models and name in values):
        value, others = values[column], models[column].dropna()
        n = len(others)
        if n and not math.isnan(value):
            below = int((others < value).sum())
            lies = f"the others {others.min():.3g} to {others.max():.3g}; {below / n:.0%} lie below"
            place = f"{value:.3g}, rank {below + 1} of {n + 1} ({lies})"
            lines.append(f"  {schema.describe(column)}: {place}")
    return lines or ["  nothing that was measured here"]
