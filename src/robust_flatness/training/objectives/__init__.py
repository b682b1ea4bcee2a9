"""Training methods, one file each; the file's name is the method's, as `TrainingSpec.objective` gives it.

A file has its class as `OBJECTIVE`, and names in `SUPPORTS` the settings, of those that not every method has,
with which it is defined.
"""

from robust_flatness.config import TrainingSpec, kinds
from robust_flatness.training.objectives.base import Batch, Forward, Objective

__all__ = ["OBJECTIVES", "Batch", "Forward", "Objective", "make_objective"]

#: The methods of the kit, by name.
OBJECTIVES: dict[str, type[Objective]] = {
    name: kinds.load(kinds.OBJECTIVES, name).OBJECTIVE for name in kinds.names(kinds.OBJECTIVES)
}


def make_objective(spec: TrainingSpec) -> Objective:
    """The method of a training: one of the kit, or `package.module:Class` of one's own.

    Raises
    ------
    ConfigError
        If one's own cannot be imported.
    """
    if spec.objective in OBJECTIVES:
        return OBJECTIVES[spec.objective](spec)
    return kinds.imported(spec.objective, "objective")(spec)
