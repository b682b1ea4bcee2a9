"""The tables of an experiment as pandas frames, made from its records."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from robust_flatness.config import VariantSpec, load_variants
from robust_flatness.errors import FileError
from robust_flatness.files import write_text
from robust_flatness.folders import repository
from robust_flatness.measures.base import CHECKPOINTS
from robust_flatness.measures.landscape import CURVES
from robust_flatness.measures.registry import MEASURES
from robust_flatness.tables.records import read_csv, read_records
from robust_flatness.tables.rows import csv_text
from robust_flatness.tables.schema import (
    EXAMPLES,
    KEYS,
    OTHER,
    PROVENANCE,
    Quantity,
    metric_of,
    register,
    with_spread,
)
from robust_flatness.training.history import HISTORY

DIRECTIONS = {metric: pair for pair, metric in CURVES.items()}
#: Columns of text; others hold numbers, settings of trainings either.
WORDS = (
    *("variant", "checkpoint", "split", "family", "label", "dataset", "robustness_group", "autoattack"),
    *("not_finite", "same_as"),
)
IDENTITY = (*KEYS, "family", "label", "derived", "epoch", "epochs")


@dataclass(frozen=True)
class Tables:
    """An experiment's results: `models` (a row for each checkpoint, a column for each quantity), training
    curves, `series` (a row for each snapshot), loss landscapes, values of single examples."""

    models: pd.DataFrame
    history: pd.DataFrame
    series: pd.DataFrame
    landscape: pd.DataFrame
    examples: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({name: [] for name in EXAMPLES}))


class Named(NamedTuple):
    """What a catalogue says of a variant."""

    label: str
    family: str
    derived: bool


@cache
def catalogue() -> Mapping[str, VariantSpec]:
    """The variants of `config/variants.yaml`."""
    return load_variants(repository() / "config" / "variants.yaml")


def read_tables(directory: Path) -> Tables:
    """Read the results under `results/<experiment>/`, without the long table of single examples."""
    records = read_records(directory / "records.csv")
    columns, networks = with_columns(records), typed(read_csv(directory / "networks.csv"))
    of_checkpoints = columns["checkpoint"].isin(CHECKPOINTS)
    return Tables(
        models_frame(columns[of_checkpoints], networks),
        typed(read_csv(directory / "history.csv")).reindex(columns=HISTORY),
        series_frame(columns[~of_checkpoints], networks),
        landscape_frame(records[records["measure"] == "landscape"]),
    )


def read_examples(directory: Path) -> pd.DataFrame:
    """Read the values of single examples."""
    return typed(read_csv(directory / "examples.csv")).reindex(columns=EXAMPLES)


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert text to numbers: settings cell by cell, other columns where all of their cells are numbers."""
    columns = {}
    for name in frame.columns:
        cells = frame[name]
        if name.startswith("setting_"):
            columns[name] = cells.map(_number_or_word).astype(object)
        elif name in WORDS or name.startswith(PROVENANCE):
            columns[name] = cells.astype(object)
        else:
            numbers = cells.map(lambda cell: _number_or_word(cell or "nan"))
            is_number = numbers.map(lambda cell: isinstance(cell, float)).all()
            columns[name] = numbers.astype(float) if is_number else cells.astype(object)
    typed_frame = pd.DataFrame(columns, columns=frame.columns)
    for name in {"seed", "derived"} & {*frame.columns}:
        typed_frame[name] = typed_frame[name].fillna(0).astype(int)
    return typed_frame


def _number_or_word(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def with_columns(records: pd.DataFrame) -> pd.DataFrame:
    """Add to each record the name of its column in `models.csv`; records without one are left out."""
    if records.empty:
        return records.assign(column=pd.Series(dtype=object))
    main = {
        (measure, metric): group["value"].iloc[0]
        for (measure, metric), group in records.groupby(["measure", "metric"])
        if metric in MEASURES[measure].metrics and MEASURES[measure].metrics[metric].kind == "setting"
    }
    keys = ["measure", "metric", "loss", "split", "xi", "coordinate"]
    names = {}
    for key in records[keys].drop_duplicates().itertuples(index=False):
        metric, spread = key.metric, ""
        if metric.endswith("_std") and metric.removesuffix("_std") in MEASURES[key.measure].metrics:
            metric, spread = metric.removesuffix("_std"), "std"
        description = metric_of(key.measure, metric)
        if description.column is None or (key.coordinate and description.radius != "coordinate"):
            continue
        radii = {"xi": key.xi, "coordinate": _number_or_word(key.coordinate or "nan")}
        radius = radii.get(description.radius, math.nan)
        same = radius == main.get((key.measure, description.main)) or math.isnan(radius)
        quantity = Quantity(key.measure, metric, key.loss, key.split, None if same else radius, spread)
        names[_hashable(key)] = register(quantity)
    column = [names.get(_hashable(key)) for key in records[keys].itertuples(index=False)]
    return records.assign(column=column).dropna(subset="column")


def _hashable(key: tuple) -> tuple:
    return tuple(None if isinstance(part, float) and math.isnan(part) else part for part in key)


def models_frame(records: pd.DataFrame, networks: pd.DataFrame) -> pd.DataFrame:
    """One row per variant, seed and checkpoint: identity, measures with standard errors, numbers of examples,
    settings. A value that is infinite or not a number is NaN; the column `not_finite` names it."""
    keys = [*KEYS]
    wide = _pivot(records, keys, "column", "value")
    counts = []
    for (measure, metric), group in records.groupby(["measure", "metric"]):
        template = getattr(MEASURES[measure].metrics.get(metric), "count", "")
        if template:
            counts.append(group.assign(column=[template.format(split=split) for split in group["split"]]))
    parts = [wide, _pivot(_standard_errors(records), keys, "column", "se")]
    if counts:
        parts.append(_pivot(pd.concat(counts), keys, "column", "n"))
    measured = pd.concat(parts, axis=1) if len(wide) else wide
    infinite = ~np.isfinite(records["value"].astype(float))
    frame = networks.set_index(keys).join(measured.replace([math.inf, -math.inf], math.nan))
    named = records[infinite].groupby(keys)["column"].agg(" ".join)
    frame["not_finite"] = named.reindex(frame.index).fillna(frame.get("not_finite", ""))
    frame = frame.reset_index()
    return frame[[*IDENTITY, *(name for name in frame.columns if name not in IDENTITY)]]


def _standard_errors(records: pd.DataFrame) -> pd.DataFrame:
    """The records that have a standard error, with the name of its column."""
    records = records.dropna(subset="se")
    names = {name: with_spread(name, "se") for name in records["column"].unique()}
    return records.assign(column=records["column"].map(names))


def _pivot(records: pd.DataFrame, keys: list[str], column: str, value: str) -> pd.DataFrame:
    """A row for each combination of `keys`, a column for each name, in the order of first appearance."""
    table = records.drop_duplicates([*keys, column]).pivot(index=keys, columns=column, values=value)
    return table[[*records[column].unique()]].rename_axis(columns=None)


def series_frame(records: pd.DataFrame, networks: pd.DataFrame) -> pd.DataFrame:
    """One row per variant, seed and snapshot: losses, flatness and eigenvalue throughout training."""
    keys = ["variant", "seed", "epoch"]
    errors = _pivot(_standard_errors(records), keys, "column", "se")
    wide = pd.concat([_pivot(records, keys, "column", "value"), errors], axis=1).reset_index()
    epochs = networks.drop_duplicates(["variant", "seed"]).set_index(["variant", "seed"])["epochs"]
    total = epochs.reindex(pd.MultiIndex.from_frame(wide[["variant", "seed"]])).to_numpy()
    wide.insert(3, "normalised_epoch", (wide["epoch"] + 1) / total)
    return wide


def landscape_frame(records: pd.DataFrame) -> pd.DataFrame:
    """One row per network, direction and position: RLoss along directions in weight space."""
    lines = records[records["metric"].isin(DIRECTIONS)]
    spread = records[records["metric"].str.endswith("_std")]
    spread = spread.assign(metric=spread["metric"].str.removesuffix("_std"))
    keys = [*KEYS, "metric", "coordinate"]
    lines = lines.merge(spread[[*keys, "value"]], on=keys, how="left", suffixes=("", "_std"))
    for number, name in enumerate(("direction", "normalisation")):
        lines[name] = [DIRECTIONS[metric][number] for metric in lines["metric"]]
    lines["s"] = lines["coordinate"].astype(float)
    names = {"xi": "scale", "value": "rloss", "value_std": "rloss_std"}
    columns = [*KEYS, "direction", "normalisation", "scale", "s", "rloss", "rloss_std"]
    return lines.rename(columns=names)[columns]


def identified(path: Path, frame: pd.DataFrame, known: Mapping[str, Named] | None = None) -> pd.DataFrame:
    """Return `frame` with every identity column. Where the table does not say, family, label and derived are
    those of `known` (None: of `config/variants.yaml`), seed is 0 and checkpoint "last"."""
    if known is None:
        known = {slug: Named(v.label, v.family, bool(v.derived_from)) for slug, v in catalogue().items()}
    entries = [known.get(slug, Named(slug, OTHER, False)) for slug in frame["variant"]]
    filled = pd.DataFrame(entries, index=frame.index).astype({"derived": int})
    filled = filled.assign(seed=0, checkpoint="last")
    frame = frame.assign(**{name: frame.get(name, filled[name]).replace("", None) for name in filled})
    frame = frame.fillna(filled).astype({"seed": int, "derived": int})
    wrong = frame[~frame["checkpoint"].isin(CHECKPOINTS) | (frame["variant"] == "")]
    if len(wrong):
        row, given = wrong.index[0] + 2, wrong.iloc[0][["variant", "checkpoint"]].tolist()
        raise FileError(
            f"{path}: row {row}: variant and checkpoint {given}; known are {', '.join(CHECKPOINTS)}"
        )
    twice = frame.loc[frame.duplicated([*KEYS]), [*KEYS]]
    if len(twice):
        raise FileError(f"{path}: two rows for {', '.join(map(str, twice.iloc[0]))}; keep one of them")
    return frame.reindex(columns=[*IDENTITY, *(name for name in frame.columns if name not in IDENTITY)])


def frame_text(frame: pd.DataFrame) -> str:
    """A frame as CSV: the shortest text that reads back as the same numbers, empty for missing values."""
    rows = frame.to_dict("records")
    return csv_text([{name: _shortest(row[name]) for name in row} for row in rows], [*frame.columns])


def _shortest(value: object) -> object:
    if not isinstance(value, float):
        return value
    if math.isnan(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 1e15 else float(value)


def write_models(directory: Path) -> None:
    """Write `models.csv`, the pivot of the records for readers; the kit reads it as `results_table` alone."""
    write_text(Path(directory) / "models.csv", frame_text(read_tables(directory).models))
