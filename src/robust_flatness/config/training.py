"""Network and training, and everything that the variants change in them."""

import math
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from robust_flatness.config.catalogue import COSTS, OBJECTIVES, OPTIMIZERS
from robust_flatness.config.kinds import check_name
from robust_flatness.config.measures import STEPS_TO_THE_EDGE
from robust_flatness.config.values import (
    AS_LIST,
    Count,
    Epsilon,
    Integer,
    NonNegative,
    Norm,
    Positive,
    Precision,
    Probability,
    Real,
    Size,
    Spec,
)

_Network = Annotated[str, AfterValidator(partial(check_name, sorted(COSTS)))]
_Optimizer = Annotated[str, AfterValidator(partial(check_name, OPTIMIZERS))]
_Milestones = Annotated[tuple[Annotated[Real, Field(gt=0, lt=1)], ...], AS_LIST]
_Objective = Annotated[str, AfterValidator(partial(check_name, OBJECTIVES, own="package.module:Class"))]


class ModelSpec(Spec):
    """An architecture by name, with `width` channels in the first stage (160 in a WideResNet-28-10);
    `dropout` is the probability in every residual block."""

    name: _Network
    width: Count
    activation: Literal["relu", "mish", "silu", "gelu"] = "relu"
    dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.0


class AugmentationSpec(Spec):
    """Crops after zero padding by up to `crop` pixels, flips, AutoAugment's CIFAR-10 policy, and a
    square of `cutout` pixels (0: none) filled with the channel means."""

    crop: Size = 0
    flip: bool = False
    autoaugment: bool = False
    cutout: Size = 0


class TrainingSpec(Spec):
    """Adversarial training and everything the variants change in it.

    Section references are to Stutz et al., ICCV 2021; defaults are the AT baseline where it
    does not depend on the dataset.
    """

    epochs: Count = 150
    batch_size: Annotated[Integer, Field(ge=2)] = 128
    """At least 2: batch norm has no statistics of one image."""
    optimizer: _Optimizer = "sgd"
    learning_rate: Positive = 0.05
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 0.0005
    langevin_steps: Count = 1
    """Entropy-SGD: inner steps L of stochastic gradient Langevin dynamics."""
    schedule: Literal["multi-step", "constant", "cyclic"] = "multi-step"
    milestones: _Milestones = (0.4, 0.6, 0.8)
    """Multi-step: fractions of the epochs at which the rate is multiplied by 0.1."""
    cycles: Count = 1
    """Cyclic: number of triangular cycles, each from 0 to the learning rate and back to 0."""

    norm: Norm = "linf"
    """Norm of the attacks, that of early stopping and training curves included."""
    epsilon: Epsilon
    step_size: Positive = Field(default_factory=lambda given: given["epsilon"] / STEPS_TO_THE_EDGE)
    steps: Count = 7
    stop_after_flip: Annotated[Integer, Field(ge=0)] | None = None
    """PGD-tau: an example's attack stops tau iterations after its label flips."""
    attack_incorrect: bool = True
    """False: examples misclassified when clean stay clean ("ignore incorrect")."""
    attack_predicted_label: bool = False
    """PGD against the label predicted on the clean example ("prevent label leaking")."""

    objective: _Objective = "at"
    objective_parameters: dict[str, Any] = Field(default_factory=dict)
    """Further settings of a user's own objective."""
    objective_weight: NonNegative = 0.0
    """lambda of TRADES, MART and self-supervision."""
    adversarial_fraction: Probability = 1.0
    """Fraction of each batch that is attacked; below 1 with self-supervision only."""
    weight_perturbation: NonNegative = 0.0
    """AT-AWP: size xi of the adversarial weight perturbation, relative to each layer's norm."""
    gradient_clamp: Positive | None = 0.05
    """AT-AWP: bound on each element of the gradient at the perturbed weights; None for none."""
    label_smoothing: Probability = 0.0
    label_noise: Probability = 0.0
    weight_clipping: Positive | None = None
    weight_averaging: Annotated[Real, Field(ge=0, lt=1)] | None = None
    """Decay per step of the exponential moving average of the weights, already rescaled to the
    number of steps (see `rescaled_decay`)."""
    unlabeled_fraction: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    """Fraction of each batch drawn from the unlabelled pool, with pseudo-labels."""
    augmentation: AugmentationSpec = AugmentationSpec()

    snapshots: Count = 12
    """At least this many snapshots over the training, evenly spaced, and one after the last epoch."""
    early_stopping_restarts: Count = 5
    """Restarts of the PGD that chooses the early-stopped checkpoint."""
    history_examples: Count = 1280
    """Test images of the training curves."""
    evaluation_epsilon: Epsilon = Field(default_factory=lambda given: given["epsilon"])
    evaluation_step_size: Positive = Field(default_factory=lambda given: given["step_size"])
    evaluation_steps: Count = Field(default_factory=lambda given: given["steps"])
    """PGD of early stopping and training curves: the baseline's for every variant."""
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _check(self) -> "TrainingSpec":
        optional = {
            "label_smoothing": self.label_smoothing > 0,
            "attack_predicted_label": self.attack_predicted_label,
            "attack_incorrect": not self.attack_incorrect,
            "stop_after_flip": self.stop_after_flip is not None,
            "adversarial_fraction": self.adversarial_fraction < 1,
        }
        for field in (field for field, used in optional.items() if used):
            allowed = [name for name, objective in OBJECTIVES.items() if field in objective.supports]
            if self.objective in OBJECTIVES and self.objective not in allowed:
                given = f"{field}: {getattr(self, field)} is not defined with objective {self.objective!r}"
                raise ValueError(f"{given}; allowed with {', '.join(allowed)}")
        for field in OPTIMIZERS[self.optimizer]:
            if value := getattr(self, field):
                raise ValueError(f"{field}: {value} is not defined with optimizer {self.optimizer!r}; set 0")
        return self

    def snapshot_epochs(self) -> list[int]:
        """Return the epochs (from 0) after which a snapshot is taken: 0, k, 2k, ... and the last."""
        interval = max(1, self.epochs // self.snapshots)
        return sorted({*range(0, self.epochs, interval), self.epochs - 1})


class TrainJob(Spec):
    """All settings of a training."""

    variant: str
    seed: Size
    model: ModelSpec
    training: TrainingSpec


#: The slowest published decay, and the weight that it may leave to the initial weights.
SLOWEST_DECAY, INITIAL_WEIGHT = 0.9975, 0.01


def rescaled_decay(decay: float, steps: int) -> float:
    """Return the decay per update of the weight average over a training of `steps` updates. For fewer than
    1,840 updates, published decays are raised to the power at which 0.9975, the slowest, leaves the initial
    weights a hundredth: decay^max(1, ln 0.01 / (steps ln 0.9975))."""
    return decay ** max(1.0, math.log(INITIAL_WEIGHT) / (steps * math.log(SLOWEST_DECAY)))
