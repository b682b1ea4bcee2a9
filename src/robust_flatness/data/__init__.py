"""Datasets, their disjoint splits, and augmentation."""

from robust_flatness.data.dataset import (
    Dataset,
    load_dataset,
    load_pseudo_labels,
    save_dataset,
    save_pseudo_labels,
)
from robust_flatness.data.prepare import make_splits

__all__ = [
    "Dataset",
    "load_dataset",
    "load_pseudo_labels",
    "make_splits",
    "save_dataset",
    "save_pseudo_labels",
]
