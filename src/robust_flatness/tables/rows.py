"""The only reader and writer of CSV: rows of text in, rows of anything out. No pandas."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from robust_flatness.errors import FileError
from robust_flatness.files import write_text


class Rows(NamedTuple):
    """A table as text: its columns, and a dictionary for each row."""

    columns: tuple[str, ...]
    rows: list[dict[str, str]]


def read_rows(path: Path, need: Sequence[str] = (), remedy: str = "") -> Rows:
    """The rows of a CSV file, or of one packed by gzip (`.csv.gz`), as text, without blanks around the cells.

    `need` names columns that must be there; `remedy` says what to do about a file that is missing or
    damaged.

    Raises
    ------
    FileError
        If the file cannot be read, has no header, a doubled column, one of `need` missing, or a row of
        another length.
    """
    remedy = f"; {remedy}" if remedy else ""
    try:
        content = Path(path).read_bytes()
        text = (gzip.decompress(content) if Path(path).suffix == ".gz" else content).decode("utf-8-sig")
        lines = [*csv.reader(io.StringIO(text.rstrip()))]
    except (OSError, EOFError, zlib.error) as error:
        words = getattr(error, "strerror", None) or error
        raise FileError(f"{path}: cannot be read ({words}){remedy}") from None
    except UnicodeDecodeError:
        raise FileError(f"{path}: not a text file in UTF-8{remedy}") from None
    except csv.Error as error:
        raise FileError(f"{path}: not a CSV file ({error}){remedy}") from None
    if not lines:
        raise FileError(f"{path}: empty; expected a header line and one row per model{remedy}")
    header = tuple(name.strip() for name in lines[0])
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise FileError(f"{path}: column {', '.join(map(repr, doubled))} appears more than once{remedy}")
    for name in need:
        if name not in header:
            found = ", ".join(map(repr, header))
            raise FileError(f"{path}: column {name!r} is missing; found {found}{remedy}")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise FileError(
                f"{path}: row {number} has {len(line)} cells, the header has {len(header)}"
                + ("; separate cells by commas" if len(header) == 1 else remedy)
            )
        rows.append(dict(zip(header, map(str.strip, line), strict=True)))
    return Rows(header, rows)


def table_in(folder: Path, name: str) -> Path:
    """The file of a table: `<name>.csv`, or `<name>.csv.gz` where only that is there."""
    plain, packed = Path(folder) / f"{name}.csv", Path(folder) / f"{name}.csv.gz"
    return packed if packed.exists() and not plain.exists() else plain


def as_text(rows: Iterable[Mapping[str, Any]]) -> Rows:
    """Rows as they would be read again once written."""
    rows = list(rows)
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    cells = ({name: row.get(name) for name in columns} for row in rows)
    return Rows(
        columns or ("variant",),
        [{name: "" if cell is None else str(cell) for name, cell in row.items()} for row in cells],
    )


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Rows as CSV: `columns` first, then the others in order of appearance; an empty cell where a row has
    none, and for None.

    Floats are written with the shortest digits that read back to the same number.
    """
    rows = list(rows)
    names = list(dict.fromkeys((*columns, *(name for row in rows for name in row))))
    text = io.StringIO()
    writer = csv.DictWriter(text, names or ["variant"], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Write `csv_text` to `path`, whole or not at all."""
    write_text(path, csv_text(rows, columns))
