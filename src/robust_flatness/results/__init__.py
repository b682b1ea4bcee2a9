"""Tables of results: their columns, reading, checking, writing and joining.

An experiment has four tables under `results/<experiment>/`:

`models.csv`
    one row per variant, seed and checkpoint (`last`, `best`), with every measure (the Hessian's and the
    landscape of the last one alone);
`history.csv`
    one row per variant, seed and epoch: the training curves;
`series.csv`
    one row per variant, seed and snapshot: loss and flatness throughout training;
`landscape.csv`
    one row per variant, direction and point: RLoss along directions in weight space.

`read_published` brings the paper's printed numbers into the same four tables, so ours and theirs go
through the same figures, tables and claims. Nothing here imports torch.
"""

from robust_flatness.results.aggregate import (
    has,
    join_published,
    over_seeds,
    robust_error_column,
    same_data,
    variants_at,
    with_differences,
)
from robust_flatness.results.columns import (
    ERRORS,
    FLATNESS,
    HESSIAN,
    HISTORY,
    LANDSCAPE,
    LOSSES,
    OTHER,
    ROBUSTBENCH,
    SERIES,
    all_radii,
    describe,
    direction,
    is_known_column,
    is_measure,
    radius_columns,
)
from robust_flatness.results.importing import import_table
from robust_flatness.results.published import published_directory, read_printed, read_published
from robust_flatness.results.tables import (
    ResultsError,
    Tables,
    catalogue,
    csv_text,
    empty,
    read_history,
    read_landscape,
    read_models,
    read_results_table,
    read_series,
    read_tables,
    repository,
    write_tables,
)

__all__ = [
    "ERRORS",
    "FLATNESS",
    "HESSIAN",
    "HISTORY",
    "LANDSCAPE",
    "LOSSES",
    "OTHER",
    "ROBUSTBENCH",
    "SERIES",
    "ResultsError",
    "Tables",
    "all_radii",
    "catalogue",
    "csv_text",
    "describe",
    "direction",
    "empty",
    "has",
    "import_table",
    "is_known_column",
    "is_measure",
    "join_published",
    "over_seeds",
    "published_directory",
    "radius_columns",
    "read_history",
    "read_landscape",
    "read_models",
    "read_printed",
    "read_published",
    "read_results_table",
    "read_series",
    "read_tables",
    "repository",
    "robust_error_column",
    "same_data",
    "variants_at",
    "with_differences",
    "write_tables",
]
