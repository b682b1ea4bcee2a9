"""Training methods, one file each."""

from robust_flatness.training.objectives.adversarial import AdversarialTraining
from robust_flatness.training.objectives.base import Batch, Forward, Objective
from robust_flatness.training.objectives.mart import Mart
from robust_flatness.training.objectives.self_supervision import SelfSupervision
from robust_flatness.training.objectives.trades import Trades

#: Methods by the name that `TrainingSpec.objective` gives them.
OBJECTIVES: dict[str, type[Objective]] = {
    "at": AdversarialTraining,
    "trades": Trades,
    "mart": Mart,
    "self-supervision": SelfSupervision,
}

__all__ = [
    "OBJECTIVES",
    "AdversarialTraining",
    "Batch",
    "Forward",
    "Mart",
    "Objective",
    "SelfSupervision",
    "Trades",
]
