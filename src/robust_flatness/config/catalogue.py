"""Training objectives and optimisers by name, readable without torch."""

from typing import NamedTuple


class Objective(NamedTuple):
    """A training objective: its class as `package.module:Class`, and the optional settings it implements."""

    path: str
    supports: tuple[str, ...] = ()


_FOLDER = "robust_flatness.training.objectives"

OBJECTIVES = {
    "at": Objective(
        f"{_FOLDER}.at:AdversarialTraining",
        ("label_smoothing", "attack_predicted_label", "attack_incorrect", "stop_after_flip"),
    ),
    "mart": Objective(
        f"{_FOLDER}.mart:Mart", ("attack_predicted_label", "attack_incorrect", "stop_after_flip")
    ),
    "self-supervision": Objective(
        f"{_FOLDER}.self_supervision:SelfSupervision", ("label_smoothing", "adversarial_fraction")
    ),
    "trades": Objective(f"{_FOLDER}.trades:Trades", ("label_smoothing", "attack_incorrect")),
}

#: Settings that each optimiser of `training/optimizers.py` does not have.
OPTIMIZERS: dict[str, tuple[str, ...]] = {"adam": (), "entropy-sgd": ("momentum",), "sgd": ()}
