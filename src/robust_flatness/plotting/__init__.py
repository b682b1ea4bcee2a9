"""Shared code of the notebooks in `figures/` and `paper_tables/`, which works on tables and without torch."""

from robust_flatness.plotting.notebook import Notebook, inputs

__all__ = ["Notebook", "inputs"]
