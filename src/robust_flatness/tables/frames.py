"""The tables of an experiment as pandas frames: read, checked and written."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from robust_flatness.config import VariantSpec, load_variants
from robust_flatness.errors import FileError
from robust_flatness.tables import rows as csv_rows
from robust_flatness.tables.rows import Rows, read_rows, write_rows
from robust_flatness.tables.schema import (
    CHECKPOINTS,
    ERRORS,
    FLATNESS,
    HESSIAN,
    HISTORY,
    IDENTITY,
    KEYS,
    LANDSCAPE,
    LOSSES,
    OTHER,
    SERIES,
    WORDS,
    is_known_column,
    is_measure,
)


@dataclass(frozen=True)
class Tables:
    """The tables of an experiment, named as their files."""

    models: pd.DataFrame
    history: pd.DataFrame
    series: pd.DataFrame
    landscape: pd.DataFrame


def repository() -> Path:
    """The repository's root: the nearest folder from here upwards with `config/variants.yaml`, or
    the checkout this package was installed from.

    Raises
    ------
    FileError
        If there is neither.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[3]):
        if (folder / "config" / "variants.yaml").is_file():
            return folder
    raise FileError(f"{here}: not inside a checkout of this repository (no config/variants.yaml found)")


@cache
def catalogue() -> Mapping[str, VariantSpec]:
    """The variants of `config/variants.yaml`: slug -> spec, with label and family."""
    return load_variants(repository() / "config" / "variants.yaml")


def parse_numbers(path: Path, column: str, cells: list[str], who: list[str]) -> list[float]:
    """The cells of one column as numbers, NaN where empty; `who` names each row in the message."""
    values = []
    for number, (cell, variant) in enumerate(zip(cells, who, strict=True), start=2):
        try:
            value = float(cell) if cell else math.nan
        except ValueError:
            value = math.inf
        if math.isinf(value) or (cell and math.isnan(value) and cell.lower() != "nan"):
            raise FileError(
                f"{path}: row {number} ({variant}), column {column}: {cell!r} is not a finite number; "
                "leave the cell empty where nothing was measured"
            )
        values.append(value)
    return values


def parse_rows(path: Path, table: Rows) -> pd.DataFrame:
    """Rows of text as a frame: words and columns of somebody's own words as they are, everything else as
    numbers."""
    who = [row.get("variant", "") for row in table.rows]
    frame = {}
    for name in table.columns:
        column = [row[name] for row in table.rows]
        if name in WORDS:
            frame[name] = pd.Series(column, dtype=object)
        elif name.startswith("setting_"):
            frame[name] = pd.Series([_number_or_word(cell) for cell in column], dtype=object)
        else:
            frame[name] = pd.Series(parse_numbers(path, name, column, who), dtype=float)
    return pd.DataFrame(frame)


def _number_or_word(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def identified(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with every identity column: family, label and derived from the catalogue, seed 0 and
    checkpoint "last" where the table does not say."""
    frame = frame.copy()
    known = catalogue()
    variants = list(frame["variant"])
    for number, slug in enumerate(variants, start=2):
        if not slug:
            raise FileError(f"{path}: row {number}, column variant: empty")
    seeds = frame.get("seed", pd.Series([math.nan] * len(frame), dtype=float)).fillna(0)
    for number, seed in enumerate(seeds, start=2):
        if seed < 0 or seed != int(seed):
            raise FileError(f"{path}: row {number}, column seed: {seed:g}; allowed are 0, 1, 2, ...")
    frame["seed"] = seeds.astype(int)
    checkpoints = list(frame.get("checkpoint", ["last"] * len(frame)))
    for number, checkpoint in enumerate(checkpoints, start=2):
        if checkpoint not in CHECKPOINTS:
            raise FileError(
                f"{path}: row {number}, column checkpoint: {checkpoint!r}; "
                f"allowed are {', '.join(CHECKPOINTS)}"
            )
    frame["checkpoint"] = pd.Series(checkpoints, dtype=object)
    families = frame.get("family", [OTHER] * len(frame))
    # A table of ours may hold variants added since; its own family and label then stand.
    frame["family"] = pd.Series(
        [
            known[slug].family if slug in known else family or OTHER
            for slug, family in zip(variants, families, strict=True)
        ],
        dtype=object,
    )
    labels = frame.get("label", [""] * len(frame))
    frame["label"] = pd.Series(
        [
            known[slug].label if slug in known else label or slug
            for slug, label in zip(variants, labels, strict=True)
        ],
        dtype=object,
    )
    given = frame.get("derived", pd.Series([0.0] * len(frame), dtype=float)).fillna(0)
    derived = [slug in known and known[slug].derived_from is not None for slug in variants]
    frame["derived"] = [int(a or b) for a, b in zip(derived, given != 0, strict=True)]
    for name in ("epoch", "epochs"):
        if name not in frame:
            frame[name] = math.nan
    seen: dict[tuple, int] = {}
    for number, key in enumerate(frame[list(KEYS)].itertuples(index=False, name=None), start=2):
        if key in seen:
            raise FileError(
                f"{path}: rows {seen[key]} and {number} are both variant {key[0]!r}, seed {key[1]}, "
                f"checkpoint {key[2]!r}; keep one of them"
            )
        seen[key] = number
    return frame[[*IDENTITY, *(name for name in frame.columns if name not in IDENTITY)]]


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
    header, rows = read_rows(path)
    measures = [*ERRORS, *LOSSES, *FLATNESS, *HESSIAN]
    names = [*IDENTITY, *WORDS, *measures, *SETTINGS]
    missing = ["variant"] if "variant" not in header else []
    for name in header:
        if not is_known_column(name):
            if ";" in name or "\t" in name:
                raise FileError(f"{path}: the header is {name!r}; separate cells by commas")
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
            hint = f"did you mean {close[0]!r}?" if close else "known are " + ", ".join(names)
            raise FileError(
                f"{path}: unknown column {name!r}; {hint} "
                "(columns of your own may be kept under setting_<name>)"
            )
    if missing:
        raise FileError(f"{path}: column 'variant' is missing; found {', '.join(map(repr, header))}")
    if not any(is_measure(name) for name in header):
        raise FileError(f"{path}: no column holds a measure; known are {', '.join(measures)}")
    if not rows:
        raise FileError(f"{path}: no rows; expected one per variant, seed and checkpoint")
    frame = _parse(path, header, rows)
    for name in set(header) & {*ERRORS, *LOSSES}:
        values = frame[name].to_numpy()
        upper = 100 if name in ERRORS else math.inf
        for row in np.flatnonzero((values < 0) | (values > upper)):
            allowed = "0 to 100 (per cent)" if name in ERRORS else "0 and above"
            raise FileError(
                f"{path}: row {row + 2} ({frame['variant'][row]}), column {name}: {values[row]:g}; "
                f"allowed is {allowed}"
            )
    return identified(path, frame)


def read_models(path: Path) -> pd.DataFrame:
    """`models.csv` as written by `collect` or `import_table`; columns it does not know are kept.

    Raises
    ------
    FileError
        If a cell is no number, a row is doubled, or `variant` is missing.
    """
    path = Path(path)
    header, rows = read_rows(path)
    if "variant" not in header:
        raise FileError(f"{path}: column 'variant' is missing; found {', '.join(map(repr, header))}")
    return identified(path, _parse(path, header, rows))


def _read_plain(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """One of the other tables, with at least `columns`; a missing file is an empty table."""
    if not Path(path).exists():
        return empty(columns)
    header, rows = read_rows(path)
    if "variant" not in header:
        raise FileError(f"{path}: column 'variant' is missing; found {', '.join(map(repr, header))}")
    frame = _parse(path, header, rows)
    for name in columns:
        if name not in frame:
            frame[name] = 0.0 if name == "seed" else math.nan
    return frame[[*columns, *(name for name in frame.columns if name not in columns)]]


def empty(columns: tuple[str, ...]) -> pd.DataFrame:
    """A table without rows."""
    return pd.DataFrame({name: pd.Series(dtype=object if name in WORDS else float) for name in columns})


def read_history(path: Path) -> pd.DataFrame:
    """`history.csv`; an empty table if the file does not exist."""
    return _read_plain(path, HISTORY)


def read_series(path: Path) -> pd.DataFrame:
    """`series.csv`; an empty table if the file does not exist."""
    return _read_plain(path, SERIES)


def read_landscape(path: Path) -> pd.DataFrame:
    """`landscape.csv`; an empty table if the file does not exist."""
    return _read_plain(path, LANDSCAPE)


def read_tables(directory: Path) -> Tables:
    """The four tables under `results/<experiment>/`."""
    directory = Path(directory)
    return Tables(
        models=read_models(directory / "models.csv"),
        history=read_history(directory / "history.csv"),
        series=read_series(directory / "series.csv"),
        landscape=read_landscape(directory / "landscape.csv"),
    )


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float | np.floating):
        number = float(value)
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
    return str(value)


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV: the shortest text that reads back as the same numbers, empty for missing."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(frame.columns)
    writer.writerows([_cell(value) for value in row] for row in frame.itertuples(index=False, name=None))
    return out.getvalue()


def write_tables(tables: Tables, directory: Path) -> None:
    """Write the four tables, each whole or not at all."""
    for name in ("models", "history", "series", "landscape"):
        write_text(Path(directory) / f"{name}.csv", csv_text(getattr(tables, name)))
