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

import importlib

#: Where each name lives; imported on first use, since pandas takes half a second and planning does without.
_HOME = {
    "ERRORS": "schema",
    "FLATNESS": "schema",
    "HESSIAN": "schema",
    "HISTORY": "schema",
    "LANDSCAPE": "schema",
    "LOSSES": "schema",
    "OTHER": "schema",
    "ROBUSTBENCH": "schema",
    "ResultsError": "frames",
    "SERIES": "schema",
    "Tables": "frames",
    "all_radii": "schema",
    "catalogue": "frames",
    "csv_text": "frames",
    "describe": "schema",
    "direction": "schema",
    "empty": "frames",
    "has": "aggregate",
    "import_table": "importing",
    "is_known_column": "schema",
    "is_measure": "schema",
    "join_published": "aggregate",
    "over_seeds": "aggregate",
    "published_directory": "printed",
    "radius_columns": "schema",
    "read_history": "frames",
    "read_landscape": "frames",
    "read_models": "frames",
    "read_printed": "printed",
    "read_published": "printed",
    "read_results_table": "frames",
    "read_series": "frames",
    "read_tables": "frames",
    "repository": "frames",
    "robust_error_column": "aggregate",
    "same_data": "aggregate",
    "variants_at": "aggregate",
    "with_differences": "aggregate",
    "write_tables": "frames",
}


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
