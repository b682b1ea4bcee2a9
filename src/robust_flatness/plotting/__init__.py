"""Shared code of the notebooks in `figures/` and `paper_tables/`: inputs and outputs, style, plots.

Works on tables only and never imports torch.
"""

from robust_flatness.plotting.notebook import Notebook, inputs

__all__ = ["Notebook", "inputs"]
