"""Conversion of wide tables, one row per model, to records: `results_table:` and the printed numbers."""

import difflib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from robust_flatness.errors import FileError
from robust_flatness.files import write_text
from robust_flatness.measures.landscape import CURVES
from robust_flatness.measures.registry import MEASURES
from robust_flatness.tables.frames import IDENTITY, WORDS, Tables, frame_text, identified, typed, write_models
from robust_flatness.tables.printed import read_published
from robust_flatness.tables.records import FIELDS, read_csv
from robust_flatness.tables.rows import csv_text
from robust_flatness.tables.schema import (
    EXAMPLES,
    KEYS,
    PROVENANCE,
    TABLES,
    Quantity,
    columns_of,
    is_number,
    main_quantities,
    named,
)
from robust_flatness.training.history import HISTORY


def import_table(path: Path, directory: Path) -> None:
    """Write the tables of an experiment that starts from a given table of results.

    `path` is a table in the form of `models.csv`; `history.csv`, `series.csv`, `landscape.csv` and
    `examples.csv` beside it are converted too. A `records.csv` is taken as it is, with the tables beside it.
    A path in `paper_tables/published` stands for all printed numbers. Raises `FileError` if a table cannot
    be used; nothing is written then.
    """
    if not path.exists():
        raise FileError(f"results_table: {path}: no such file")
    folder = path if path.is_dir() else path.parent
    if folder.resolve().parts[-2:] == ("paper_tables", "published"):
        tables = read_published(folder)
    elif path.name.startswith("records.csv"):
        copies = {name: read_csv(folder / f"{name}.csv") for name in TABLES}
        for name, frame in copies.items():
            write_text(directory / f"{name}.csv", csv_text(frame.to_dict("records"), [*frame.columns]))
        write_models(directory)
        return
    else:
        beside = (_read_beside(folder, name) for name in ("history", "series", "landscape", "examples"))
        tables = Tables(read_results_table(path), *beside)
    write_tables(tables, directory)


def write_tables(tables: Tables, directory: Path) -> None:
    """Write wide tables as those of an experiment."""
    written = dict(zip(("records", "networks"), to_records(tables), strict=True))
    written["history"] = tables.history.reindex(columns=HISTORY)
    written["examples"] = tables.examples.reindex(columns=EXAMPLES)
    for name, frame in written.items():
        write_text(directory / f"{name}.csv", frame_text(frame))
    write_models(directory)


def _read_beside(folder: Path, name: str) -> pd.DataFrame:
    path = folder / f"{name}.csv"
    if path.exists() or path.with_name(f"{name}.csv.gz").exists():
        return typed(read_csv(path))
    return pd.DataFrame({"variant": [], "seed": []})


def read_results_table(path: Path) -> pd.DataFrame:
    """Read and check a user's table of results in the form of `models.csv`.

    The column `variant` and at least one measure are needed; `seed` (0), `checkpoint` (last), `family` and
    `label` (from config/variants.yaml) may be left out. Unknown columns are kept, and unknown variants are of
    family "other". Empty cells mean that nothing was measured. Raises `FileError` for a missing or misspelt
    column, no rows, a cell that is not a number, an error outside 0 to 100, a negative loss, or two rows for
    the same variant, seed and checkpoint.
    """
    frame = typed(read_csv(path))
    columns = columns_of(frame.columns)
    known = [*IDENTITY, *WORDS, *(q.name for q in main_quantities())]
    for name in frame.columns:
        if name not in columns and name not in known and not name.startswith(("setting_", PROVENANCE)):
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            if close:
                raise FileError(f"{path}: unknown column {name!r}; did you mean {close[0]!r}?")
    if "variant" not in frame:
        raise FileError(f"{path}: column 'variant' is missing; found {', '.join(map(repr, frame.columns))}")
    if frame.empty:
        raise FileError(f"{path}: no rows; expected one for each model")
    if not columns:
        known = ", ".join(named("error") + named("loss"))
        raise FileError(f"{path}: no column holds a measure; known are {known}")
    for name, quantity in columns.items():
        if frame[name].dtype == object:
            row, bad = next((row, cell) for row, cell in frame[name].items() if not is_number(cell))
            raise FileError(f"{path}: row {row + 2}, column {name}: {bad!r} is not a number, nor is it empty")
        upper = {"error": 100, "loss": math.inf}.get(quantity.description.kind)
        if upper and not quantity.spread:
            outside = frame.loc[(frame[name] < 0) | (frame[name] > upper), name]
            for row, value in outside.items():
                where = f"row {row + 2}, column {name}"
                raise FileError(f"{path}: {where}: {value:g}; allowed are 0 to {upper:g}")
    return identified(path, frame)


def to_records(tables: Tables) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The records of wide tables, and the table of networks, which keeps all columns that hold no measure."""
    models = tables.models
    columns = columns_of(models.columns)
    counts = {
        description.count.format(split=split)
        for measure in MEASURES.values()
        for description in measure.metrics.values()
        for split in description.splits
    }
    settings = [name for name, q in columns.items() if q.description.kind == "setting"]
    main = {name: models[name].dropna().iloc[0] for name in settings if models[name].notna().any()}
    rows = [*_rows(models, columns, main)]
    if len(tables.series):
        checkpoints = [f"epoch-{int(epoch):03d}" for epoch in tables.series["epoch"]]
        series = tables.series.assign(checkpoint=checkpoints)
        rows += _rows(series, columns_of(series.columns), main)
    for row in tables.landscape.to_dict("records"):
        key = {name: row[name] for name in KEYS} | {"measure": "landscape", "loss": "rloss", "split": "test"}
        key |= {"xi": row["scale"], "coordinate": row["s"]}
        metric = CURVES[row["direction"], row["normalisation"]]
        rows.append(key | {"metric": metric, "value": row["rloss"]})
        if not math.isnan(row["rloss_std"]):
            rows.append(key | {"metric": f"{metric}_std", "value": row["rloss_std"]})
    networks = models.drop(columns=[name for name in models.columns if name in columns or name in counts])
    return pd.DataFrame(rows, columns=[*FIELDS]), networks


def _rows(
    frame: pd.DataFrame, columns: Mapping[str, Quantity], main: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """A record for each measured cell, in the order of the rows."""
    for row in frame.to_dict("records"):
        for name, q in columns.items():
            if q.spread == "se" or not isinstance(row[name], float) or math.isnan(row[name]):
                continue
            description = MEASURES[q.measure].metrics[q.metric]
            radius = q.radius
            if radius is None and description.main:
                radius = main.get(MEASURES[q.measure].metrics[description.main].column)
            record = {key: row[key] for key in (*KEYS, "epoch") if key in row} | {"measure": q.measure}
            record |= {"metric": q.metric + ("_std" if q.spread else ""), "loss": q.loss, "split": q.split}
            record |= {"value": row[name], "se": row.get(f"{name}_se")}
            if description.radius:
                record["xi" if description.radius == "xi" else "coordinate"] = radius
            record["n"] = row.get(description.count.format(split=q.split))
            yield record
