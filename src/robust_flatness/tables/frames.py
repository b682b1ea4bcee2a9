"""The tables of an experiment as pandas frames, made from its records."""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robust_flatness.config import VariantSpec, load_variants
from robust_flatness.errors import FileError
from robust_flatness.files import csv_text, write_text
from robust_flatness.folders import repository
from robust_flatness.measures.base import CHECKPOINTS
from robust_flatness.measures.landscape import CURVES
from robust_flatness.measures.registry import MEASURES
from robust_flatness.tables import schema
from robust_flatness.tables.records import read_csv, read_records
from robust_flatness.tables.schema import EXAMPLES, KEYS, Quantity
from robust_flatness.training.history import HISTORY

#: Columns that always hold text, even if their cells look like numbers.
WORDS = (
    *("variant", "checkpoint", "split", "family", "label", "dataset", "robustness_group", "autoattack"),
    *("not_finite", "same_as"),
)
IDENTITY = (*KEYS, "family", "label", "derived", "epoch", "epochs")


@dataclass(frozen=True)
class Tables:
    """Results of an experiment: `models` (a row per checkpoint, a column per quantity), `history` (training
    curves), `series` (a row per snapshot), loss landscapes, and values of single examples."""

    models: pd.DataFrame
    history: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=HISTORY))
    series: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["variant", "seed", "epoch"]))
    landscape: pd.DataFrame = field(default_factory=pd.DataFrame)
    examples: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=EXAMPLES))


@cache
def catalogue() -> Mapping[str, VariantSpec]:
    """Return the variants of `config/variants.yaml`."""
    return load_variants(repository() / "config" / "variants.yaml")


def read_tables(directory: Path) -> Tables:
    """Return the results under `results/<experiment>/`, without the long table of single examples, and
    without models that were trained on clean examples alone."""
    records, networks = read_records(directory / "records.csv"), typed(read_csv(directory / "networks.csv"))
    history = typed(read_csv(directory / "history.csv")).reindex(columns=HISTORY)
    known = networks.reindex(columns=["variant", "setting_adversarial_fraction"])
    clean = known["variant"][known["setting_adversarial_fraction"] == 0]
    records, networks, history = (f[~f["variant"].isin(clean)] for f in (records, networks, history))
    columns = with_columns(records)
    return Tables(_models(columns, networks), history, _series(columns, networks), _landscape(records))


def read_examples(directory: Path) -> pd.DataFrame:
    """Return the values of single examples."""
    return typed(read_csv(directory / "examples.csv")).reindex(columns=EXAMPLES)


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert text to numbers: settings cell by cell, other columns if all cells are numbers or empty."""
    frame = frame.copy()
    for name, cells in frame.items():
        if name.startswith("setting_"):
            frame[name] = cells.map(_number_or_word).astype(object)
        elif name not in WORDS and not name.startswith(schema.PROVENANCE):
            with contextlib.suppress(ValueError):
                frame[name] = cells.replace("", "nan").astype(float)
        if name in ("seed", "derived"):
            frame[name] = frame[name].fillna(0).astype(int)
    return frame


def _number_or_word(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def with_columns(records: pd.DataFrame) -> pd.DataFrame:
    """Add to each record the name of its column in `models.csv`, and drop records without one."""
    keys = ["measure", "metric", "loss", "split", "xi", "coordinate"]
    values = records.drop_duplicates(keys[:2]).set_index(keys[:2])["value"].to_dict()
    number = records.groupby(keys, sort=False, dropna=False).ngroup()
    first = records.assign(number=number).drop_duplicates("number")
    quantities = {record.number: _quantity(record, values) for record in first.itertuples()}
    names = {number: quantity and schema.register(quantity) for number, quantity in quantities.items()}
    return records.assign(column=number.map(names)).dropna(subset="column")


def _quantity(record: Any, values: Mapping[tuple[str, str], float]) -> Quantity | None:
    """Return the quantity of a record, None if it has no column; `values` of metrics have the main radii."""
    metric, spread = record.metric, ""
    if metric.endswith("_std") and metric.removesuffix("_std") in MEASURES[record.measure].metrics:
        metric, spread = metric.removesuffix("_std"), "std"
    description = schema.metric_of(record.measure, metric)
    if description.column is None or (record.coordinate and description.radius != "coordinate"):
        return None
    radius = float(getattr(record, description.radius) or "nan") if description.radius else math.nan
    main = math.isnan(radius) or radius == values.get((record.measure, description.main))
    return Quantity(record.measure, metric, record.loss, record.split, None if main else radius, spread)


def _models(records: pd.DataFrame, networks: pd.DataFrame) -> pd.DataFrame:
    """Return one row per variant, seed and checkpoint: identity, measures with standard errors, numbers of
    examples, settings. Values that are not finite are NaN and named in the column `not_finite`."""
    records, counts = records[records["checkpoint"].isin(CHECKPOINTS)], []
    for (measure, metric), group in records.groupby(["measure", "metric"]):
        if template := getattr(MEASURES[measure].metrics.get(metric), "count", ""):
            names = [template.format(split=split) for split in group["split"]]
            counts.append(group.assign(column=names, value=group["n"]))
    measured = _pivot(records, [*KEYS], counts).replace([math.inf, -math.inf], math.nan)
    frame = networks.set_index([*KEYS]).join(measured)
    infinite = records[~np.isfinite(records["value"])].groupby([*KEYS])["column"].agg(" ".join)
    frame["not_finite"] = infinite.reindex(frame.index).fillna(frame.get("not_finite", ""))
    return _identity_first(frame.reset_index())


def _pivot(records: pd.DataFrame, keys: list[str], more: Sequence[pd.DataFrame] = ()) -> pd.DataFrame:
    """Return a row per combination of `keys`, with values, standard errors and the records of `more`."""
    errors = records.dropna(subset="se")
    errors = errors.assign(column=errors["column"] + "_se", value=errors["se"])
    cells = pd.concat([records, errors, *more]).drop_duplicates([*keys, "column"])
    wide = cells.pivot(index=keys, columns="column", values="value")
    return wide[[*cells["column"].unique()]].rename_axis(columns=None)


def _series(records: pd.DataFrame, networks: pd.DataFrame) -> pd.DataFrame:
    """Return one row per variant, seed and snapshot: losses, flatness and eigenvalue during training."""
    snapshots = records[~records["checkpoint"].isin(CHECKPOINTS)]
    wide = _pivot(snapshots, ["variant", "seed", "epoch"]).reset_index()
    epochs = networks.drop_duplicates(["variant", "seed"])[["variant", "seed", "epochs"]]
    total = wide[["variant", "seed"]].merge(epochs, on=["variant", "seed"], how="left")["epochs"]
    wide.insert(3, "normalised_epoch", (wide["epoch"] + 1) / total)
    return wide


def _landscape(records: pd.DataFrame) -> pd.DataFrame:
    """Return one row per network, direction and position: RLoss along directions in weight space."""
    records = records[records["measure"] == "landscape"]
    places = [(metric, *place) for place, metric in CURVES.items()]
    places = pd.DataFrame(places, columns=["metric", "direction", "normalisation"])
    keys = [*KEYS, "metric", "coordinate"]
    spread = records[records["metric"].str.endswith("_std")].rename(columns={"value": "rloss_std"})
    spread = spread.assign(metric=spread["metric"].str.removesuffix("_std"))[[*keys, "rloss_std"]]
    lines = records.merge(places, on="metric").merge(spread, on=keys, how="left")
    lines["s"] = lines["coordinate"].astype(float)
    columns = [*KEYS, "direction", "normalisation", "scale", "s", "rloss", "rloss_std"]
    return lines.rename(columns={"xi": "scale", "value": "rloss"})[columns]


def identified(path: Path, frame: pd.DataFrame, known: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return `frame` with every identity column. Missing values are taken from `known`, a frame with family,
    label and derived by variant (None: `config/variants.yaml`); defaults are seed 0 and checkpoint "last"."""
    if known is None:
        rows = {slug: (v.label, v.family, bool(v.derived_from)) for slug, v in catalogue().items()}
        known = pd.DataFrame.from_dict(rows, "index", columns=["label", "family", "derived"])
    filled = known[["label", "family", "derived"]].reindex(frame["variant"]).set_axis(frame.index)
    filled = filled.fillna({"label": frame["variant"], "family": schema.OTHER, "derived": 0})
    filled = filled.assign(seed=0, checkpoint="last").astype({"derived": int})
    frame = frame.assign(**{name: frame.get(name, filled[name]).replace("", None) for name in filled})
    frame = frame.fillna(filled).astype({"seed": int, "derived": int})
    for row in frame.index[~frame["checkpoint"].isin(CHECKPOINTS) | (frame["variant"] == "")]:
        given, allowed = frame.loc[row, ["variant", "checkpoint"]].tolist(), ", ".join(CHECKPOINTS)
        raise FileError(f"{path}: row {row + 2}: variant and checkpoint {given}; checkpoints are {allowed}")
    for row in frame.index[frame.duplicated([*KEYS])]:
        twice = ", ".join(map(str, frame.loc[row, [*KEYS]]))
        raise FileError(f"{path}: two rows for {twice}; keep one of them")
    return _identity_first(frame)


def _identity_first(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with the columns of `IDENTITY` first, empty where they are missing."""
    return frame.reindex(columns=[*IDENTITY, *frame.columns.difference(IDENTITY, sort=False)])


def frame_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV, with shortest exact numbers and empty cells for missing values."""
    rows = frame.to_dict("records")
    return csv_text([{name: _shortest(row[name]) for name in row} for row in rows], [*frame.columns])


def _shortest(value: object) -> object:
    if isinstance(value, float) and math.isnan(value):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def write_models(directory: Path) -> None:
    """Write `models.csv`, the records as a wide table; the kit itself reads it only as a `results_table`."""
    records, networks = read_records(directory / "records.csv"), typed(read_csv(directory / "networks.csv"))
    write_text(directory / "models.csv", frame_text(_models(with_columns(records), networks)))
