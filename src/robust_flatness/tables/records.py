"""The table of records: a measured number a row. Each network (variant and seed) has a file `records.csv`: a
comment line with its provenance as JSON, then the rows. The table of an experiment has the same columns. In
concatenated files, further comment and header lines are skipped."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_flatness.errors import FileError
from robust_flatness.files import canonical_json, csv_text, write_text

if TYPE_CHECKING:
    import pandas as pd

FIELDS = {
    "variant": "training variant, or the name of another network",
    "seed": "random seed of data, initialisation and training",
    "checkpoint": "`last`, `best` (early-stopped), or a snapshot `epoch-NNN`",
    "epoch": "epoch of the checkpoint, counted from 0",
    "measure": "measure, as in the experiment's config",
    "metric": "what was measured (dictionary.csv)",
    "loss": "`ce` (clean) or `rloss` (robust), where the metric is taken of a loss",
    "split": "examples: `test`, `train` or `early_stopping`",
    "xi": "relative radius in weight space",
    "epsilon": "radius of the attack on inputs",
    "norm": "norm of the attack's ball: `l2`; empty: L-infinity",
    "coordinate": "layer, position along a direction, or `a,b` on a plane",
    "value": "the number; errors in per cent, losses in nats",
    "se": "standard error of the measurement",
    "n": "number of examples",
}
NUMBERS = ("seed", "epoch", "xi", "epsilon", "value", "se", "n")


def write_network(path: Path, header: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the records of one network with its provenance, atomically."""
    write_text(path, f"# {canonical_json(header)}\n{csv_text(rows, tuple(FIELDS))}")


def read_network(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return provenance and unparsed CSV rows of a network. Raises `FileError` if it cannot be read."""
    try:
        first, header, *lines = path.read_text(encoding="utf-8").splitlines()
        provenance = json.loads(first.removeprefix("# "))
        _ = provenance["checkpoints"]
        if header != ",".join(FIELDS):
            raise ValueError(f"columns {header}, written by another version")
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path}: damaged ({error!r}); delete it and run snakemake again") from None
    return provenance, lines


def read_records(path: Path) -> "pd.DataFrame":
    """Return a table of records, or several concatenated ones (.csv or .csv.gz). Raises `FileError` if a
    column is missing or a cell of a numeric column is not a number."""
    frame = read_csv(path, need=("variant", "metric", "value"))
    frame = frame[frame["metric"] != "metric"].reindex(columns=[*FIELDS], fill_value="")
    for name in NUMBERS:
        try:
            frame[name] = frame[name].replace("", "nan").astype(float)
        except ValueError as error:
            raise FileError(f"{path}: column {name}: {error}") from None
    return frame.reset_index(drop=True)


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
