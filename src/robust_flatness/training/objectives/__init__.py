"""Training objectives, one file each; `robust_flatness.config.catalogue` lists them."""

from robust_flatness.config import TrainingSpec
from robust_flatness.config.catalogue import OBJECTIVES
from robust_flatness.config.kinds import imported
from robust_flatness.training.objectives.base import Batch, Forward, Objective

__all__ = ["Batch", "Forward", "Objective", "make_objective"]


def make_objective(spec: TrainingSpec) -> Objective:
    """Return the objective of a training, of the catalogue or given as `package.module:Class`."""
    known = OBJECTIVES.get(spec.objective)
    return imported(known.path if known else spec.objective, "objective")(spec)
