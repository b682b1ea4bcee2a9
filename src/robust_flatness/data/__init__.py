"""Datasets, their disjoint splits, and augmentation."""

from robust_flatness.data.dataset import Dataset, load_dataset, save_dataset
from robust_flatness.data.prepare import make_splits

__all__ = ["Dataset", "load_dataset", "make_splits", "save_dataset"]
