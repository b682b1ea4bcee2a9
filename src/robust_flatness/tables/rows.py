"""Reading and writing CSV files."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_flatness.errors import FileError
from robust_flatness.files import write_text

if TYPE_CHECKING:
    import pandas as pd


def read_csv(path: Path, need: Sequence[str] = ()) -> "pd.DataFrame":
    """Return the stripped cells of a CSV file, or of `<path>.gz` where only that exists, as a frame of text.
    Lines that begin with `# ` are skipped. Raises `FileError` if the file cannot be read, has no header,
    lacks a column of `need`, or has a duplicate column or a row of another length."""
    import pandas as pd  # which planning does without

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
    if twice := [name for name in header if header.count(name) > 1]:
        raise FileError(f"{path}: column {twice[0]!r} appears more than once")
    if missing := [name for name in need if name not in header]:
        raise FileError(f"{path}: column {missing[0]!r} is missing; found {', '.join(map(repr, header))}")
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise FileError(f"{path}: row {number} has {len(line)} cells, the header has {len(header)}")
    return pd.DataFrame(lines, columns=header, dtype=object)


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
