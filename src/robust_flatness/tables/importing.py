"""Tables from elsewhere as those of an experiment (`results_table:`); wide ones are converted to records."""

import difflib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from robust_flatness.errors import FileError
from robust_flatness.files import write_text
from robust_flatness.measures.registry import MEASURES
from robust_flatness.tables import frames, schema
from robust_flatness.tables.printed import published_directory, read_published
from robust_flatness.tables.records import FIELDS, read_csv, read_records
from robust_flatness.training.history import HISTORY

#: Largest allowed values of the kinds of measures that cannot be negative.
LARGEST = {"error": 100, "loss": math.inf}


def import_table(path: Path, directory: Path) -> None:
    """Write the tables of an experiment that starts from a given table of results.

    `path` is a `records.csv`, which is copied with the other tables beside it, or a table in the form of
    `models.csv`. A path in `paper_tables/published` stands for all printed numbers. Raises `FileError` if a
    table cannot be used; nothing is written then.
    """
    if path.name.startswith("records.csv"):
        read_records(path.parent / "records.csv")  # checks every number before anything is written
        parts = [read_csv(path.parent / f"{name}.csv") for name in schema.TABLES]
    else:
        of_paper = path.resolve().parent == published_directory().resolve()
        tables = read_published() if of_paper else frames.Tables(read_results_table(path))
        parts = [*to_records(tables), tables.history.reindex(columns=HISTORY), tables.examples]
    for name, frame in zip(schema.TABLES, parts, strict=True):
        write_text(directory / f"{name}.csv", frames.frame_text(frame))
    frames.write_models(directory)


def read_results_table(path: Path) -> pd.DataFrame:
    """Return a user's table of results in the form of `models.csv`.

    The column `variant` and at least one measure are needed; `seed` (0), `checkpoint` (last), `family` and
    `label` (from config/variants.yaml) may be left out. Unknown columns are kept, and unknown variants are of
    family "other". An empty cell means that nothing was measured. Raises `FileError` for a missing or
    misspelt column, no rows, a cell that is not a number, an error outside 0 to 100, a negative loss, or two
    rows for the same variant, seed and checkpoint.
    """
    frame = frames.typed(read_csv(path, need=["variant"]))
    columns = schema.columns_of(frame.columns)
    known = [*frames.IDENTITY, *frames.WORDS, *schema.MAIN]
    for name in frame.columns.difference([*columns, *known], sort=False):
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if close and not name.startswith(("setting_", schema.PROVENANCE)):
            raise FileError(f"{path}: unknown column {name!r}; did you mean {close[0]!r}?")
    if frame.empty:
        raise FileError(f"{path}: no rows; expected one for each model")
    if not columns:
        known = ", ".join([*schema.ERRORS, *schema.LOSSES])
        raise FileError(f"{path}: no column holds a measure; known are {known}")
    for name, quantity in columns.items():
        largest = LARGEST.get(quantity.description.kind)
        for row, cell in frame[name].items():
            where = f"{path}: row {row + 2}, column {name}"
            try:
                value = float(cell or "nan")
            except ValueError:
                raise FileError(f"{where}: {cell!r} is not a number, nor is it empty") from None
            if largest and not quantity.spread and (value < 0 or value > largest):
                raise FileError(f"{where}: {value:g}; allowed are 0 to {largest:g}")
    return frames.identified(path, frame)


def to_records(tables: frames.Tables) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the records of wide tables, and the remaining columns of `models`: identity and settings."""
    models, columns = tables.models, schema.columns_of(tables.models.columns)
    settings = [name for name, q in columns.items() if q.description.kind == "setting"]
    main = {name: models[name].dropna().iloc[0] for name in settings if models[name].notna().any()}
    snapshots = [f"epoch-{epoch:03.0f}" for epoch in tables.series["epoch"]]
    rows = [*_rows(models, columns, main)]
    rows += _rows(tables.series.assign(checkpoint=snapshots), schema.columns_of(tables.series.columns), main)
    described = [metric for measure in MEASURES.values() for metric in measure.metrics.values()]
    counts = [metric.count.format(split=split) for metric in described for split in metric.splits]
    networks = models[models.columns.difference([*columns, *counts], sort=False)]
    records = pd.DataFrame(rows, columns=[*FIELDS])
    if (models.get("setting_norm", pd.Series()) == "l2").any():
        attacked = (records["loss"] == "rloss") | records["metric"].str.startswith(("rerr", "rloss"))
        records["norm"] = attacked.map({True: "l2", False: None})
    return records, networks


def _rows(
    frame: pd.DataFrame, columns: Mapping[str, schema.Quantity], main: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Yield a record for each measured cell, row by row; `main` holds the main radii by column."""
    for row in frame.to_dict("records"):
        for name, q in columns.items():
            if q.spread == "se" or not isinstance(row[name], float) or math.isnan(row[name]):
                continue
            description = q.description
            record = {key: row[key] for key in (*schema.KEYS, "epoch") if key in row}
            record |= {"measure": q.measure, "metric": q.metric + ("_std" if q.spread else "")}
            record |= {"loss": q.loss, "split": q.split, "value": row[name], "se": row.get(f"{name}_se")}
            if description.radius:
                radius = q.radius
                if radius is None and description.main:
                    radius = main.get(schema.metric_of(q.measure, description.main).column)
                record[description.radius] = radius
            record["n"] = row.get(description.count.format(split=q.split))
            yield record
