"""The tables of an experiment as pandas frames: read, checked and written."""

import contextlib
import math
from collections.abc import Mapping, Sequence
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
from robust_flatness.tables.rows import Rows, csv_text, read_rows
from robust_flatness.tables.runs import PREFIX
from robust_flatness.tables.schema import (
    EXAMPLES,
    HISTORY,
    IDENTITY,
    KEYS,
    LANDSCAPE,
    OTHER,
    SERIES,
    TABLES,
    WORDS,
    is_number,
)

#: What the tables beside `models.csv` hold at least.
COLUMNS = {"history": HISTORY, "series": SERIES, "landscape": LANDSCAPE, "examples": EXAMPLES}


@dataclass(frozen=True)
class Tables:
    """The tables of an experiment, named as their files."""

    models: pd.DataFrame
    history: pd.DataFrame
    series: pd.DataFrame
    landscape: pd.DataFrame
    examples: pd.DataFrame = field(default_factory=lambda: empty(EXAMPLES))


@cache
def catalogue() -> Mapping[str, VariantSpec]:
    """The variants of `config/variants.yaml`: slug -> spec, with label and family."""
    return load_variants(repository() / "config" / "variants.yaml")


def parse_numbers(
    path: Path, column: str, cells: list[str], who: list[str], infinite: Sequence[bool] | bool = False
) -> list[float]:
    """The cells of one column as numbers, NaN where empty; `who` names each row in the message. Where
    `infinite`, a number that is not finite is NaN, too, and no error."""
    with contextlib.suppress(ValueError):  # the same as below, for whole columns at once
        quick = np.array([cell or "nan" for cell in cells], dtype=float)
        if infinite is True or np.isfinite(quick).sum() == sum(map(bool, cells)):
            return np.where(np.isfinite(quick), quick, math.nan).tolist()
    allowed = [infinite] * len(cells) if isinstance(infinite, bool) else infinite
    values = []
    for number, (cell, variant, free) in enumerate(zip(cells, who, allowed, strict=True), start=2):
        try:
            value = float(cell) if cell else math.nan
        except ValueError:
            value, free = math.inf, False
        if not free and (math.isinf(value) or (cell and math.isnan(value) and cell.lower() != "nan")):
            raise FileError(
                f"{path}: row {number} ({variant}), column {column}: {cell!r} is not a finite number; "
                "leave the cell empty where nothing was measured"
            )
        values.append(value if math.isfinite(value) else math.nan)
    return values


def parse_rows(path: Path, table: Rows, infinite: bool = False) -> pd.DataFrame:
    """Rows of text as a frame: words as they are, numbers as numbers; settings of trainings and columns of
    somebody's own may hold either. Numbers that are not finite are NaN where `infinite`, or where the
    row's `not_finite` names the column, and an error elsewhere."""
    who = [row.get("variant", "") for row in table.rows]
    named = [row.get("not_finite", "").split() for row in table.rows]
    frame = {}
    for name in table.columns:
        column = [row[name] for row in table.rows]
        if name in WORDS or name.startswith(PREFIX):
            frame[name] = pd.Series(column, dtype=object)
        elif name.startswith("setting_"):
            frame[name] = pd.Series([_number_or_word(cell) for cell in column], dtype=object)
        elif is_number(name) or all(isinstance(_number_or_word(cell), float) for cell in column if cell):
            free = infinite or [name in names for names in named]
            frame[name] = pd.Series(parse_numbers(path, name, column, who, free), dtype=float)
        else:
            frame[name] = pd.Series(column, dtype=object)
    return pd.DataFrame(frame)


def _number_or_word(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


class Named(NamedTuple):
    """What a catalogue says of a variant."""

    label: str
    family: str
    derived: bool


def known_variants() -> dict[str, Named]:
    """The variants of `config/variants.yaml`."""
    return {
        slug: Named(variant.label, variant.family, variant.derived_from is not None)
        for slug, variant in catalogue().items()
    }


def identified(path: Path, frame: pd.DataFrame, known: Mapping[str, Named] | None = None) -> pd.DataFrame:
    """`frame` with every identity column. Where the table does not say, family, label and derived are
    those of `known` (None: of `config/variants.yaml`), seed is 0 and checkpoint "last"."""
    frame = frame.copy()
    known = known_variants() if known is None else known
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
    named = [known.get(slug, Named(slug, OTHER, False)) for slug in variants]
    for name in ("family", "label"):
        given = frame.get(name, [""] * len(frame))
        cells = [own or getattr(each, name) for own, each in zip(given, named, strict=True)]
        frame[name] = pd.Series(cells, dtype=object)
    derived = frame.get("derived", pd.Series([math.nan] * len(frame), dtype=float))
    derived = derived.fillna(pd.Series([float(each.derived) for each in named], index=frame.index))
    frame["derived"] = (derived != 0).astype(int)
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


def read_models(path: Path) -> pd.DataFrame:
    """`models.csv` as written by `collect` or `import_table`; columns it does not know are kept.

    Raises
    ------
    FileError
        If a cell is no number, a row is doubled, or `variant` is missing.
    """
    return identified(path, parse_rows(path, read_rows(path, need=["variant"])))


def empty(columns: tuple[str, ...]) -> pd.DataFrame:
    """A table without rows."""
    return pd.DataFrame({name: pd.Series(dtype=object if name in WORDS else float) for name in columns})


def read_table(name: str, path: Path) -> pd.DataFrame:
    """One of the tables beside `models.csv`, with at least its `COLUMNS`; empty if there is no file."""
    columns = COLUMNS[name]
    if not Path(path).exists():
        return empty(columns)
    frame = parse_rows(path, read_rows(path, need=["variant"]), infinite=True)
    for column in columns:
        if column not in frame:
            frame[column] = 0.0 if column == "seed" else math.nan
    return frame[[*columns, *(column for column in frame.columns if column not in columns)]]


def read_tables(directory: Path) -> Tables:
    """The tables under `results/<experiment>/`, but for the long one of single examples."""
    directory = Path(directory)
    others = {name: read_table(name, directory / f"{name}.csv") for name in COLUMNS if name != "examples"}
    return Tables(read_models(directory / "models.csv"), **others)


def frame_text(frame: pd.DataFrame) -> str:
    """A frame as CSV: the shortest text that reads back as the same numbers, empty for missing."""
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


def write_tables(tables: Tables, directory: Path) -> None:
    """Write the tables of an experiment, each whole or not at all."""
    for name in TABLES:
        write_text(Path(directory) / f"{name}.csv", frame_text(getattr(tables, name)))
