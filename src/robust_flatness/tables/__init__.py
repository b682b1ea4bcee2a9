"""Tables of results: their columns, reading, checking, writing, joining and merging.

`schema` has the columns, `rows` reads and writes CSV, `frames` and `aggregate` work with pandas, `printed`
brings the paper's printed numbers into the same tables, so that ours and theirs go through the same
figures, tables and claims; `collect`, `merging` and `importing` make the tables of an experiment. Nothing
here imports torch.
"""

import importlib

_MODULES = ("schema", "aggregate", "frames", "printed", "importing")


def __getattr__(name: str):
    if name.startswith("__"):
        raise AttributeError(name)
    for module in _MODULES:
        found = importlib.import_module(f"{__name__}.{module}")
        if hasattr(found, name):
            return getattr(found, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
