"""Starting an experiment from a table of results instead of from trainings."""

from pathlib import Path

from robust_flatness.errors import FileError
from robust_flatness.tables.frames import (
    Tables,
    read_examples,
    read_history,
    read_landscape,
    read_results_table,
    read_series,
    write_tables,
)
from robust_flatness.tables.printed import read_published
from robust_flatness.tables.rows import table_in


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
        tables = Tables(
            models=read_results_table(path),
            history=read_history(table_in(folder, "history")),
            series=read_series(table_in(folder, "series")),
            landscape=read_landscape(table_in(folder, "landscape")),
            examples=read_examples(table_in(folder, "examples")),
        )
    write_tables(tables, directory)
