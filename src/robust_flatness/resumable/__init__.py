"""Finished parts of a measuring job."""

from robust_flatness.resumable.measure import Unfinished, kept
from robust_flatness.run.resume import Report

__all__ = ["Report", "Unfinished", "kept"]
