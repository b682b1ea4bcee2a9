"""Starting an experiment from a table of results instead of from trainings."""

import difflib
import math
from pathlib import Path

import numpy as np
import pandas as pd

from robust_flatness.errors import FileError
from robust_flatness.tables.frames import COLUMNS, Tables, identified, parse_rows, read_table, write_tables
from robust_flatness.tables.printed import read_published
from robust_flatness.tables.rows import read_rows, table_in
from robust_flatness.tables.schema import (
    ERRORS,
    FLATNESS,
    HESSIAN,
    IDENTITY,
    LOSSES,
    SETTINGS,
    WORDS,
    is_known_column,
    is_measure,
)


def import_table(path: Path, directory: Path) -> None:
    """Write the tables of an experiment that starts from a given table of results.

    A path inside `paper_tables/published` stands for all printed numbers there; beside any other
    table, `history.csv`, `series.csv`, `landscape.csv` and `examples.csv` are taken along where they exist.

    Raises
    ------
    FileError
        If a table cannot be used; nothing is written then.
    """
    path = Path(path)
    if not path.exists():
        raise FileError(f"results_table: {path}: no such file")
    folder = path if path.is_dir() else path.parent
    if folder.resolve().parts[-2:] == ("paper_tables", "published"):
        tables = read_published(folder)
    else:
        others = {name: read_table(name, table_in(folder, name)) for name in COLUMNS}
        tables = Tables(read_results_table(path), **others)
    write_tables(tables, directory)


def read_results_table(path: Path) -> pd.DataFrame:
    """A table of results that somebody gives us, checked, in the form of `models.csv`.

    Needed are the column `variant` and at least one measure; `seed` (0), `checkpoint` (last),
    `family` and `label` (from config/variants.yaml) may be left out. Variants that the catalogue
    does not know are kept, as family "other". Empty cells mean that nothing was measured.

    Raises
    ------
    FileError
        For a missing or misnamed column, a cell that is no number, an error outside 0 to 100, a
        negative loss, or two rows for the same variant, seed and checkpoint.
    """
    path = Path(path)
    table = read_rows(path)
    measures = [*ERRORS, *LOSSES, *FLATNESS, *HESSIAN]
    names = [*IDENTITY, *WORDS, *measures, *SETTINGS]
    for name in table.columns:
        if is_known_column(name):
            continue
        if ";" in name or "\t" in name:
            raise FileError(f"{path}: the header is {name!r}; separate cells by commas")
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.85)
        if close:
            raise FileError(
                f"{path}: unknown column {name!r}; did you mean {close[0]!r}? "
                "(a column of your own needs a name that is less like it)"
            )
    if "variant" not in table.columns:
        found = ", ".join(map(repr, table.columns))
        raise FileError(f"{path}: column 'variant' is missing; found {found}")
    if not any(is_measure(name) for name in table.columns):
        raise FileError(f"{path}: no column holds a measure; known are {', '.join(measures)}")
    if not table.rows:
        raise FileError(f"{path}: no rows; expected one per variant, seed and checkpoint")
    frame = parse_rows(path, table)
    for name in set(table.columns) & {*ERRORS, *LOSSES}:
        values = frame[name].to_numpy()
        upper = 100 if name in ERRORS else math.inf
        for row in np.flatnonzero((values < 0) | (values > upper)):
            allowed = "0 to 100 (per cent)" if name in ERRORS else "0 and above"
            raise FileError(
                f"{path}: row {row + 2} ({frame['variant'][row]}), column {name}: {values[row]:g}; "
                f"allowed is {allowed}"
            )
    return identified(path, frame)
