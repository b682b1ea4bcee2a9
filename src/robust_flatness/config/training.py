"""Network and training, and everything that the variants change in them."""

import math
import re
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from robust_flatness.config.kinds import NETWORKS, OBJECTIVES, OPTIMIZERS, check_name, declared, names
from robust_flatness.config.values import (
    Count,
    Integer,
    NonNegative,
    Positive,
    Precision,
    Probability,
    Real,
    Size,
    Spec,
    parse_list,
)

Network = Annotated[str, AfterValidator(partial(check_name, NETWORKS))]
Optimizer = Annotated[str, AfterValidator(partial(check_name, OPTIMIZERS))]
Objective = Annotated[str, AfterValidator(partial(check_name, OBJECTIVES, own="package.module:Class"))]


class ModelSpec(Spec):
    """An architecture: `name` one of `config.architectures.COSTS`, `width` channels in the first
    stage (160 in a WideResNet-28-10); `dropout` is the probability in every residual block."""

    name: Network
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
    optimizer: Optimizer = "sgd"
    learning_rate: Positive = 0.05
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 0.0005
    langevin_steps: Count = 1
    """Entropy-SGD: inner steps L of stochastic gradient Langevin dynamics."""
    schedule: Literal["multi-step", "constant", "cyclic"] = "multi-step"
    milestones: Annotated[tuple[Annotated[Real, Field(gt=0, lt=1)], ...], BeforeValidator(parse_list)] = (
        0.4,
        0.6,
        0.8,
    )
    """Multi-step: fractions of the epochs at which the rate is multiplied by 0.1."""
    cycles: Count = 1
    """Cyclic: number of triangular cycles, each from 0 to the learning rate and back to 0."""

    epsilon: Annotated[Positive, Field(le=1)]
    step_size: Positive
    steps: Count = 7
    stop_after_flip: Annotated[Integer, Field(ge=0)] | None = None
    """PGD-tau: an example's attack stops tau iterations after its label flips."""
    attack_incorrect: bool = True
    """False: examples misclassified when clean stay clean ("ignore incorrect")."""
    attack_predicted_label: bool = False
    """PGD against the label predicted on the clean example ("prevent label leaking")."""

    objective: Objective = "at"
    objective_parameters: dict[str, Any] = Field(default_factory=dict)
    """What else a loss of one's own takes."""
    objective_weight: NonNegative = 0.0
    """lambda of TRADES, MART and self-supervision."""
    adversarial_fraction: Probability = 1.0
    """Share of each batch that is attacked; below 1 with self-supervision only."""
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
    """Share of each batch drawn from the unlabelled pool, with pseudo-labels."""
    augmentation: AugmentationSpec = AugmentationSpec()

    snapshots: Count = 12
    """At least this many snapshots over the training, evenly spaced, and one after the last epoch."""
    early_stopping_restarts: Count = 5
    """Restarts of the PGD that chooses the early-stopped checkpoint."""
    history_examples: Count = 1280
    """Test images of the training curves."""
    evaluation_epsilon: Annotated[Positive, Field(le=1)]
    evaluation_step_size: Positive
    evaluation_steps: Count
    """PGD of early stopping and training curves: the threat model's radius and the baseline's steps,
    whatever is trained with."""
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _check(self) -> "TrainingSpec":
        for field, given in (
            ("label_smoothing", self.label_smoothing > 0),
            ("attack_predicted_label", self.attack_predicted_label),
            ("attack_incorrect: false", not self.attack_incorrect),
            ("stop_after_flip", self.stop_after_flip is not None),
            ("adversarial_fraction < 1", self.adversarial_fraction < 1),
        ):
            setting = re.split("[: ]", field)[0]
            of_kit = names(OBJECTIVES)
            objectives = [name for name in of_kit if setting in declared(OBJECTIVES, name, "SUPPORTS")]
            if given and self.objective in of_kit and self.objective not in objectives:
                raise ValueError(
                    f"{field}: not defined with objective {self.objective!r}; "
                    f"allowed with {', '.join(objectives)}"
                )
        for field in declared(OPTIMIZERS, self.optimizer, "REFUSES"):
            if getattr(self, field):
                raise ValueError(
                    f"{field}: {getattr(self, field)} with optimizer {self.optimizer!r}; it runs without "
                    f"{field}, set 0"
                )
        return self

    def snapshot_epochs(self) -> list[int]:
        """Epochs (from 0) after which a snapshot is taken: 0, k, 2k, ... and the last."""
        interval = max(1, self.epochs // self.snapshots)
        return sorted({*range(0, self.epochs, interval), self.epochs - 1})


class TrainJob(Spec):
    """Everything a training depends on besides its data file."""

    variant: str
    seed: Size
    model: ModelSpec
    training: TrainingSpec


#: The longest of the published memories, and what it may leave of the initial weights.
LONGEST_DECAY, LEFT_OF_START = 0.9975, 0.01


def rescaled_decay(decay: float, steps: int) -> float:
    """Decay per update of the average over a training of `steps` updates.

    The published one where that is long enough; in a shorter training all decays are raised to the one power
    by which 0.9975, the longest of the published memories, has forgotten the initial weights to a hundredth:
    decay^max(1, ln 0.01 / (steps ln 0.9975)). Below 1,840 updates, that is.
    """
    return decay ** max(1.0, math.log(LEFT_OF_START) / (steps * math.log(LONGEST_DECAY)))
