"""The paper's printed numbers, in the form of an experiment's tables."""

import pandas as pd

from robust_flatness.folders import repository
from robust_flatness.tables.frames import Tables, typed
from robust_flatness.tables.importing import read_wide
from robust_flatness.tables.records import read_csv

FOLDER = "paper_tables/published"


def read_printed(name: str) -> pd.DataFrame:
    """Return one of the published tables unchanged, e.g. `read_printed("headline")`."""
    return typed(read_csv(repository() / FOLDER / f"{name}.csv"))


def read_published() -> Tables:
    """Return the paper's printed numbers in the form of an experiment's tables; `README.md` in their folder
    describes them. `hessian_max` is the paper's, about four times that of the mean loss."""
    return read_wide(repository() / FOLDER / "models.csv")
