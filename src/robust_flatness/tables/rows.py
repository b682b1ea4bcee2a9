"""Reading and writing CSV, without pandas: text in, rows of anything out."""

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
    """Return the rows of a CSV file as text. Raises `FileError` as `read_cells` does, or if a column of
    `need` is missing."""
    header, lines = read_cells(path)
    for name in need:
        if name not in header:
            raise FileError(f"{path}: column {name!r} is missing; found {', '.join(map(repr, header))}")
    return [dict(zip(header, line, strict=True)) for line in lines]


def read_cells(path: Path) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return the header and the cells of a CSV file, without surrounding blanks. Lines that begin with `# `
    are skipped. Where only `<path>.gz` exists, that is read. Raises `FileError` if the file cannot be read,
    has no header, a column twice, or a row of another length."""
    packed = path.with_name(f"{path.name}.gz")
    try:
        only_packed = packed.exists() and not path.exists()
        content = gzip.decompress(packed.read_bytes()) if only_packed else path.read_bytes()
        text = io.StringIO(content.decode("utf-8-sig").rstrip())
        lines = [*csv.reader(line for line in text if not line.startswith("# "))]
    except FileNotFoundError:
        raise FileError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise FileError(f"{path}: not a text file in UTF-8") from None
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise FileError(f"{path}: cannot be read as a table ({error})") from None
    if not lines:
        raise FileError(f"{path}: empty; expected a header line and one row per model")
    header = tuple(name.strip() for name in lines[0])
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise FileError(f"{path}: column {', '.join(map(repr, doubled))} appears more than once")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise FileError(f"{path}: row {number} has {len(line)} cells, the header has {len(header)}")
    return header, [[cell.strip() for cell in line] for line in lines[1:]]


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Rows as CSV: `columns` first, then the others in order of appearance; an empty cell where a row has
    none, and for None. Floats have the shortest digits that read back to the same number."""
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
