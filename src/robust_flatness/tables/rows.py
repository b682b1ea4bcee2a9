"""Reading and writing CSV files without pandas."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from robust_flatness.errors import FileError
from robust_flatness.files import write_text


def read_rows(path: Path, need: Sequence[str] = ()) -> list[dict[str, str]]:
    """Return the rows of a CSV file as text; see `read_cells`."""
    header, lines = read_cells(path, need)
    return [dict(zip(header, line, strict=True)) for line in lines]


def read_cells(path: Path, need: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """Return the header and the stripped cells of a CSV file, or of `<path>.gz` where only that exists. Lines
    that begin with `# ` are skipped. Raises `FileError` if the file cannot be read, has no header, lacks a
    column of `need`, or has a duplicate column or a row of another length."""
    packed = path.with_name(f"{path.name}.gz")
    try:
        only_packed = packed.exists() and not path.exists()
        content = gzip.decompress(packed.read_bytes()) if only_packed else path.read_bytes()
        text = io.StringIO(content.decode("utf-8-sig").rstrip())
        lines = [[cell.strip() for cell in line] for line in csv.reader(t for t in text if t[:2] != "# ")]
    except FileNotFoundError:
        raise FileError(f"{path}: no such file") from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise FileError(f"{path}: cannot be read as a table in UTF-8 ({error})") from None
    if not lines:
        raise FileError(f"{path}: empty; expected a header line and one row per model")
    header, *lines = lines
    if len({*header}) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise FileError(f"{path}: column {twice!r} appears more than once")
    for name in need:
        if name not in header:
            raise FileError(f"{path}: column {name!r} is missing; found {', '.join(map(repr, header))}")
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise FileError(f"{path}: row {number} has {len(line)} cells, the header has {len(header)}")
    return header, lines


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Return rows as CSV: `columns` first, then the others in order of appearance. Missing values and None
    are empty cells; floats have the shortest digits that read back as the same number."""
    rows = list(rows)
    names = dict.fromkeys((*columns, *(name for row in rows for name in row)))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*names], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Write `csv_text` to `path` atomically."""
    write_text(path, csv_text(rows, columns))
