"""Tables of several runs of one experiment as one: rows of one machine with those of another."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from robust_flatness.errors import FileError
from robust_flatness.measures.registry import MEASURES
from robust_flatness.tables.rows import Rows, read_rows, table_in, write_rows
from robust_flatness.tables.runs import PREFIX, same_models
from robust_flatness.tables.schema import OF_MEASURES, TABLES, tables_of

#: What makes a row the same as another one, by table.
KEYS = {
    "models": ("variant", "seed", "checkpoint"),
    "history": ("variant", "seed", "epoch"),
    "series": ("variant", "seed", "epoch"),
    "examples": ("variant", "seed", "checkpoint", "split", "example"),
} | {
    name: ("variant", "seed", "checkpoint", *entry.row_keys) for name, entry in MEASURES.items() if entry.rows
}
#: Words that may differ in one and the same model: how it is called, and where it was made.
FREE = ("label", "family", "same_as", "not_finite", f"{PREFIX}commit", f"{PREFIX}device", f"{PREFIX}torch")
#: Columns in which a run may have no other value than the first one has, and what a difference is called.
COMMON = {
    f"{PREFIX}config": "another config",
    f"{PREFIX}version": "another version of this package",
    f"{PREFIX}torch": "another torch",
    f"{PREFIX}precision": "another precision of the measures",
}
#: Problems that one message names.
SHOWN = 5

Source = Mapping[str, Rows]


def read_source(path: Path) -> Source:
    """The tables of a run: a folder with `models.csv` and what lies beside it, or that file.

    Raises
    ------
    FileError
        If there is no `models.csv`, or a table is damaged.
    """
    folder = Path(path).parent if Path(path).suffix == ".csv" else Path(path)
    models = folder / "models.csv"
    if not models.is_file():
        raise FileError(f"{models}: no such file; give a folder with the tables of an experiment")
    found = {name: table_in(folder, name) for name in (*TABLES, *OF_MEASURES)}
    return {name: read_rows(path, need=["variant"]) for name, path in found.items() if path.exists()}


def merge_tables(paths: Sequence[Path], output: Path) -> None:
    """Join the tables in the folders `paths` and write them to the folder `output`.

    Raises
    ------
    FileError
        If a table cannot be used, a row is in two of them with other numbers, or rows are of another
        config, version or precision. The message names them; nothing is written then.
    """
    write_tables(merged({str(path): read_source(path) for path in paths}), output)


def check_other_runs(paths: Iterable[Path], config: str) -> None:
    """Before anything runs: whether the tables in `paths` are there, and of an experiment with the digest
    `config`.

    Raises
    ------
    FileError
        If not.
    """
    for path in paths:
        for row in read_source(path)["models"].rows:
            found = row.get(f"{PREFIX}config")
            if found != config:
                raise FileError(
                    f"{path}: {COMMON[f'{PREFIX}config']}: {PREFIX}config of {row['variant']} is "
                    f"{found or 'not given'}, here it is {config}; join tables of the same data, network and "
                    "training of the baseline"
                )


def write_tables(tables: Source, directory: Path) -> None:
    """Write tables as `merged` returns them, each whole or not at all."""
    for name, table in tables.items():
        write_rows(Path(directory) / f"{name}.csv", table.rows, table.columns)


def merged(sources: Mapping[str, Source]) -> dict[str, Rows]:
    """The tables of several runs as one; `sources` go by the names that messages give them.

    A row that is in several of them is kept once; a measure that only one of them has joins the row, if
    the weights are the same. The order is that of the sources, rows of a variant together.

    Raises
    ------
    FileError
        As in `merge_tables`.
    """
    problems = [*_of_other_runs(sources)]
    tables = {}
    for name in tables_of(name for tables in sources.values() for name in tables):
        found = {source: tables_of[name] for source, tables_of in sources.items() if name in tables_of}
        rows, conflicts = _joined(name, found)
        problems += conflicts
        columns = dict.fromkeys(column for table in found.values() for column in table.columns)
        tables[name] = Rows(tuple(columns) or ("variant",), rows)
    if problems:
        more = f"\n... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise FileError("these tables cannot be merged:\n" + "\n".join(problems[:SHOWN]) + more)
    models = tables["models"]
    same = same_models(models.rows)
    if same or "same_as" in models.columns:
        for row in models.rows:
            row["same_as"] = same.get(row["variant"], "")
        tables["models"] = Rows(tuple(dict.fromkeys((*models.columns, "same_as"))), models.rows)
    return tables


def _joined(name: str, found: Mapping[str, Rows]) -> tuple[list[dict[str, str]], list[str]]:
    """The rows of one table from all sources, and the conflicts between them in words."""
    key = KEYS[name]
    rows: dict[tuple, dict[str, str]] = {}
    owners: dict[tuple, str] = {}
    seen: set[tuple] = set()
    conflicts = []
    for source, table in found.items():
        for row in table.rows:
            which = tuple(_plain(row.get(column, "")) for column in key)
            kept = rows.setdefault(which, dict(row))
            owner = owners.setdefault(which, source)
            place = ", ".join(f"{part} {row.get(part, '')}" for part in key if row.get(part))
            if owner == source:
                if (which, source) in seen:
                    conflicts.append(f"{name}.csv, {place}: twice in {source}; keep one of them")
                seen.add((which, source))
                continue
            differing = [
                column
                for column, cell in row.items()
                if column not in FREE and cell and kept.get(column) and _plain(cell) != _plain(kept[column])
            ]
            if differing:
                column = differing[0]
                more = f" and {len(differing) - 1} other columns" if len(differing) > 1 else ""
                conflicts.append(
                    f"{name}.csv, {place}: {column} is {kept[column]} in {owner} and {row[column]} in "
                    f"{source}{more}; leave the row out of one of them"
                )
            strange = f"{kept.get('not_finite', '')} {row.get('not_finite', '')}".split()
            rows[which] = row | {column: cell for column, cell in kept.items() if cell}
            if strange:
                rows[which]["not_finite"] = " ".join(dict.fromkeys(strange))
    order = {slug: index for index, slug in enumerate(dict.fromkeys(which[0] for which in rows))}
    return [rows[which] for which in sorted(rows, key=lambda which: order[which[0]])], conflicts


def _of_other_runs(sources: Mapping[str, Source]) -> Iterable[str]:
    """Differences between the runs' settings, in words."""
    models = {source: tables["models"] for source, tables in sources.items()}
    columns = dict.fromkeys(name for table in models.values() for name in table.columns)
    measures = [name for name in columns if name.startswith(PREFIX) and name not in FREE]
    measures = [name for name in measures if name not in (*COMMON, f"{PREFIX}data", f"{PREFIX}weights")]
    words = COMMON | {name: f"other settings of {name.removeprefix(PREFIX)}" for name in measures}
    for column, what in words.items():
        values = {
            source: {part: row for row in table.rows for part in _parts(column, row)}
            for source, table in models.items()
        }
        first, expected = next((pair for pair in values.items() if pair[1]), ("", {}))
        for source, found in values.items():
            other = [row for part, row in found.items() if part not in expected]
            if other or (column == f"{PREFIX}config" and expected and not found):
                row = (other or models[source].rows)[0]
                given = row.get(column) or "nothing"
                yield (
                    f"{source}: {what}: {column} of {row['variant']}, seed {row.get('seed', 0)} is {given}, "
                    f"in {first} {', '.join(expected)}"
                )
    yield from _other_precision_of_training(models)
    yield from _other_data(models)


def _parts(column: str, row: Mapping[str, str]) -> list[str]:
    """The values of a cell; builds of the same torch for other devices are the same."""
    cells = [part for part in row.get(column, "").split(" / ") if part]
    return [cell.partition("+")[0] for cell in cells] if column == f"{PREFIX}torch" else cells


def _other_precision_of_training(models: Mapping[str, Rows]) -> Iterable[str]:
    """The precision that most variants of a run were trained in has to be the same in all."""
    column = "setting_precision"
    usual = {}
    for source, table in models.items():
        count = Counter(row[column] for row in table.rows if row.get(column))
        if count:
            usual[source] = count.most_common(1)[0][0]
    for source, precision in usual.items():
        first, expected = next(iter(usual.items()))
        if precision != expected:
            yield f"{source}: another precision of training: {precision}, in {first} {expected}"


def _other_data(models: Mapping[str, Rows]) -> Iterable[str]:
    """Runs of the same seed have the same data."""
    known: dict[str, tuple[str, str]] = {}
    for source, table in models.items():
        for row in table.rows:
            data, seed = row.get(f"{PREFIX}data"), row.get("seed", "0")
            owner, expected = known.setdefault(seed, (source, data)) if data else ("", data)
            if data != expected:
                variant = row["variant"]
                yield f"{source}: other data: seed {seed} has {data} ({variant}), in {owner} {expected}"
                break


def _plain(cell: str) -> str | float:
    """Numbers are equal however they are written; "nan" equals "nan"."""
    try:
        number = float(cell)
    except ValueError:
        return cell
    return "nan" if math.isnan(number) else number
