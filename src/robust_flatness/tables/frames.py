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
    "variant",
    "checkpoint",
    "split",
    "family",
    "label",
    "dataset",
    "robustness_group",
    "autoattack",
    "not_finite",
    "same_as",
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
    directory = Path(directory)
    columns = with_columns(records := read_records(directory / "records.csv"))
    networks = typed(read_csv(directory / "networks.csv"))
    of_checkpoints = columns["checkpoint"].isin(CHECKPOINTS)
    return Tables(
        models_frame(columns[of_checkpoints], networks),
        typed(read_csv(directory / "history.csv")).reindex(columns=HISTORY),
        series_frame(columns[~of_checkpoints], networks),
        landscape_frame(records[records["measure"] == "landscape"]),
    )


def read_examples(directory: Path) -> pd.DataFrame:
    """Read the values of single examples."""
    return typed(read_csv(Path(directory) / "examples.csv")).reindex(columns=EXAMPLES)


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
        radius = {"xi": key.xi, "coordinate": _number_or_word(key.coordinate or "nan")}.get(
            description.radius, math.nan
        )
        same = radius == main.get((key.measure, description.main)) or math.isnan(radius)
        quantity = Quantity(key.measure, metric, key.loss, key.split, None if same else radius, spread)
        names[_hashable(key)] = register(quantity)
    column = [names.get(_hashable(key)) for key in records[keys].itertuples(index=False)]
    return records.assign(column=column).dropna(subset="column")


def _hashable(key: tuple) -> tuple:
    return tuple(None if isinstance(part, float) and math.isnan(part) else part for part in key)


def models_frame(records: pd.DataFrame, networks: pd.DataFrame) -> pd.DataFrame:
    """One row per variant, seed and checkpoint: identity, measures with standard errors, numbers of examples,
    settings.

    A value that is infinite or not a number is NaN; the column `not_finite` names it.
    """
    keys = [*KEYS]
    wide = _pivot(records, keys, "column", "value")
    counts = []
    for (measure, metric), group in records.groupby(["measure", "metric"]):
        template = getattr(MEASURES[measure].metrics.get(metric), "count", "")
        if template:
            counts.append(group.assign(column=[template.format(split=split) for split in group["split"]]))
    parts = [wide, _pivot(standard_errors(records), keys, "column", "se")]
    if counts:
        parts.append(_pivot(pd.concat(counts), keys, "column", "n"))
    measured = pd.concat(parts, axis=1) if len(wide) else wide
    infinite = ~np.isfinite(records["value"].astype(float))
    frame = networks.set_index(keys).join(measured.replace([math.inf, -math.inf], math.nan))
    named = records[infinite].groupby(keys)["column"].agg(" ".join)
    frame["not_finite"] = named.reindex(frame.index).fillna(frame.get("not_finite", ""))
    frame = frame.reset_index()
    return frame[[*IDENTITY, *(name for name in frame.columns if name not in IDENTITY)]]


def standard_errors(records: pd.DataFrame) -> pd.DataFrame:
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
    values, errors = (
        _pivot(records, keys, "column", "value"),
        _pivot(standard_errors(records), keys, "column", "se"),
    )
    wide = pd.concat([values, errors], axis=1).reset_index()
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
    named = pd.DataFrame(
        [DIRECTIONS[metric] for metric in lines["metric"]],
        columns=["direction", "normalisation"],
        index=lines.index,
    )
    columns = {"xi": "scale", "value": "rloss", "value_std": "rloss_std"}
    frame = pd.concat([lines[[*KEYS]], named, lines[[*columns]].rename(columns=columns)], axis=1)
    frame.insert(6, "s", lines["coordinate"].astype(float))
    return frame.reset_index(drop=True)


def identified(path: Path, frame: pd.DataFrame, known: Mapping[str, Named] | None = None) -> pd.DataFrame:
    """Return `frame` with every identity column.

    Where the table does not say, family, label and derived are those of `known` (None: of
    `config/variants.yaml`), seed is 0 and checkpoint "last".
    """
    if known is None:
        known = {
            slug: Named(v.label, v.family, v.derived_from is not None) for slug, v in catalogue().items()
        }
    frame = frame.copy()
    frame["seed"] = frame["seed"].fillna(0).astype(int) if "seed" in frame else 0
    frame["checkpoint"] = frame["checkpoint"].replace("", "last") if "checkpoint" in frame else "last"
    entries = [known.get(slug, Named(slug, OTHER, False)) for slug in frame["variant"]]
    for name in ("family", "label"):
        given = frame[name] if name in frame else [""] * len(frame)
        frame[name] = [cell or getattr(entry, name) for cell, entry in zip(given, entries, strict=True)]
    derived = frame["derived"] if "derived" in frame else pd.Series(math.nan, index=frame.index)
    frame["derived"] = derived.fillna(
        pd.Series([float(e.derived) for e in entries], index=frame.index)
    ).astype(int)
    wrong = frame[~frame["checkpoint"].isin(CHECKPOINTS) | (frame["variant"] == "")]
    if len(wrong):
        raise FileError(
            f"{path}: row {wrong.index[0] + 2}: variant {wrong['variant'].iloc[0]!r}, checkpoint "
            f"{wrong['checkpoint'].iloc[0]!r}; a variant is needed, and checkpoints are "
            f"{', '.join(CHECKPOINTS)}"
        )
    twice = frame[frame.duplicated([*KEYS])]
    if len(twice):
        raise FileError(
            f"{path}: two rows for {', '.join(map(str, twice[[*KEYS]].iloc[0]))}; keep one of them"
        )
    return frame.reindex(columns=[*IDENTITY, *(name for name in frame.columns if name not in IDENTITY)])


def frame_text(frame: pd.DataFrame) -> str:
    """A frame as CSV: the shortest text that reads back as the same numbers, empty for missing values."""
    rows = (dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False, name=None))
    return csv_text(
        ({name: _shortest(value) for name, value in row.items()} for row in rows), [*frame.columns]
    )


def _shortest(value: object) -> object:
    if isinstance(value, float | np.floating):
        number = float(value)
        if math.isnan(number):
            return None
        return int(number) if number.is_integer() and abs(number) < 1e15 else number
    return value


def write_models(directory: Path) -> None:
    """Write `models.csv`, the pivot of the records for readers; the kit reads it as `results_table` alone."""
    write_text(Path(directory) / "models.csv", frame_text(read_tables(directory).models))
