"""Training objectives, one file each; `robust_flatness.config.catalogue` lists them."""

from importlib import import_module

from robust_flatness.config import TrainingSpec
from robust_flatness.config.catalogue import OBJECTIVES
from robust_flatness.config.kinds import imported
from robust_flatness.training.objectives.base import Batch, Forward, Objective

__all__ = ["Batch", "Forward", "Objective", "make_objective"]


def make_objective(spec: TrainingSpec) -> Objective:
    """Return the objective of a training: one of the catalogue, or a class given as `package.module:Class`.

    Raises
    ------
    ConfigError
        If the class cannot be imported.
    """
    if spec.objective not in OBJECTIVES:
        return imported(spec.objective, "objective")(spec)
    module, _, name = OBJECTIVES[spec.objective].path.partition(":")
    return getattr(import_module(module), name)(spec)
