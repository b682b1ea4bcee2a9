"""Settings of the network and of training, which the variants change."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from robust_flatness.config.catalogue import COSTS, OBJECTIVES
from robust_flatness.config.measures import STEPS_TO_THE_EDGE
from robust_flatness.config.values import (
    AS_LIST,
    Count,
    Epsilon,
    NonNegative,
    Norm,
    Positive,
    Precision,
    Probability,
    Real,
    Size,
    Spec,
)

_Milestones = Annotated[tuple[Annotated[Real, Field(gt=0, lt=1)], ...], AS_LIST]
#: Named in the catalogue, or the user's own as `package.module:Class`.
_Objective = Literal[*OBJECTIVES] | Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]


class ModelSpec(Spec):
    """An architecture by name, with `width` channels in the first stage (160 in a WideResNet-28-10);
    `dropout` is the probability in every residual block."""

    name: Literal[*sorted(COSTS)]
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
    """Adversarial training and everything the variants change in it. Defaults are the AT baseline of Stutz et
    al., ICCV 2021, where it does not depend on the dataset."""

    epochs: Count = 150
    batch_size: Annotated[Count, Field(ge=2)] = 128
    """At least 2: batch norm has no statistics of one image."""
    optimizer: Literal["adam", "entropy-sgd", "sgd"] = "sgd"
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
    stop_after_flip: Size | None = None
    """PGD-tau: an example's attack stops tau iterations after its label flips."""
    attack_incorrect: bool = True
    """False: examples misclassified when clean stay clean ("ignore incorrect")."""
    attack_predicted_label: bool = False
    """PGD against the label predicted on the clean example ("prevent label leaking")."""

    objective: _Objective = "at"
    objective_parameters: dict[str, Any] = Field(default_factory=dict)
    """Settings of a user-defined objective, by name."""
    objective_weight: NonNegative = 0.0
    """lambda of TRADES, MART and self-supervision."""
    adversarial_fraction: Probability = 1.0
    """Fraction of each batch that is attacked, with objectives `at` and `self-supervision`; 0: none is."""
    weight_perturbation: NonNegative = 0.0
    """AT-AWP: size xi of the adversarial weight perturbation, relative to each layer's norm."""
    gradient_clamp: Positive | None = 0.05
    """AT-AWP: bound on each element of the gradient at the perturbed weights; None for none."""
    sam_rho: Annotated[NonNegative, Field(exclude_if=lambda rho: rho == 0)] = 0.0
    """SAM: radius rho of the perturbation of all weights together, in the L2 norm. JSON leaves 0 out, so
    that older fingerprints of settings stay valid."""
    label_smoothing: Probability = 0.0
    label_noise: Probability = 0.0
    weight_clipping: Positive | None = None
    weight_averaging: Annotated[Real, Field(ge=0, lt=1)] | None = None
    """Decay per step of the exponential moving average of the weights, after `rescaled_decay`."""
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
        for field, value in self.model_dump(exclude_defaults=True).items():
            allowed = [name for name, objective in OBJECTIVES.items() if field in objective.supports]
            if allowed and self.objective in OBJECTIVES and self.objective not in allowed:
                given = f"{field}: {value} is not defined with objective {self.objective!r}"
                raise ValueError(f"{given}; allowed with {', '.join(allowed)}")
        if self.sam_rho and self.weight_perturbation:
            raise ValueError(f"sam_rho: {self.sam_rho} given beside weight_perturbation; give one of them")
        if self.optimizer == "entropy-sgd" and self.momentum:
            raise ValueError(f"momentum: {self.momentum} is not defined with optimizer 'entropy-sgd'; set 0")
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


#: Slowest published decay, and the weight of the initial weights that it may leave in the average.
SLOWEST_DECAY, INITIAL_WEIGHT = 0.9975, 0.01


def rescaled_decay(decay: float, steps: int) -> float:
    """Return the decay per update of the weight average over a training of `steps` updates,
    decay^max(1, ln 0.01 / (steps ln 0.9975)): in a training of fewer than 1,840 updates, the slowest
    published decay, 0.9975, leaves a weight of 0.01 to the initial weights."""
    return decay ** max(1.0, math.log(INITIAL_WEIGHT) / (steps * math.log(SLOWEST_DECAY)))
