"""Time that jobs may take on a cluster, from what they compute.

The unit of work is one pass: forward and backward through the network for one image. The rates
are low on purpose, since a scheduler ends a job at its limit; an attempt that ran out of time is
followed by one with more.
"""

import math

from robust_flatness.config import (
    AttackSpec,
    AutoAttackSpec,
    AverageFlatnessSpec,
    FlatnessSpec,
    HessianSpec,
    LandscapeSpec,
    ModelSpec,
    RobustnessSpec,
    SeriesSpec,
    TrainJob,
    WorstFlatnessSpec,
)

#: Passes per second: an 8x8 image on one core through the small network of width 16; a 32x32 image
#: on one core and on a GPU through ResNet-18 of width 64.
SMALL, LARGE, LARGE_ON_GPU = 2000, 20, 2500
#: Start of Python and torch, reading data, waiting for a slow file system.
OVERHEAD_MINUTES = 10
CHECKPOINTS = 2
#: Products with the Hessian until Lanczos has converged at both ends, two passes each.
HESSIAN_PRODUCTS = 1000
#: The standard AutoAttack: 100 iterations of APGD-CE, 900 each of APGD-T and FAB-T, 5,000 queries.
STANDARD_AUTOATTACK = 100 + 900 + 2 * 900 + 5000 // 2


def minutes(passes: float, model: ModelSpec, device: str) -> int:
    """Time limit in minutes for `passes` through `model`."""
    if model.name == "small-resnet":
        rate = SMALL / max(1, model.width / 16) ** 2
    else:
        rate = (LARGE_ON_GPU if device == "cuda" else LARGE) / max(1 / 16, model.width / 64) ** 2
    return OVERHEAD_MINUTES + math.ceil(passes / rate / 60)


def training_passes(job: TrainJob, images: int) -> int:
    """Attack and update in every epoch, twice that for evaluation and methods with more passes."""
    return 2 * job.training.epochs * images * (job.training.steps + 1)


def measuring_passes(spec: RobustnessSpec | FlatnessSpec | HessianSpec | LandscapeSpec, held_out: int) -> int:
    """Both checkpoints and both splits; of the last one alone the Hessian, on `held_out` images, and
    the landscape."""
    if isinstance(spec, HessianSpec):
        return HESSIAN_PRODUCTS * held_out
    if isinstance(spec, RobustnessSpec):
        each = _attack(spec.attack) + (_autoattack(spec.autoattack) if spec.autoattack else 0)
        return CHECKPOINTS * (spec.test_examples + spec.train_examples) * each
    if isinstance(spec, FlatnessSpec):
        each = _attack(spec.attack) + _average(spec.average, spec.attack) + _worst(spec.worst)
        return CHECKPOINTS * (spec.test_examples + spec.train_examples) * each
    directions = 2 * (spec.random_directions + spec.adversarial_directions + 1)
    return directions * spec.points * spec.examples * _attack(spec.attack)


def series_passes(spec: SeriesSpec, snapshots: int) -> int:
    """Robustness and flatness at every snapshot."""
    each = 2 * _attack(spec.attack) + _average(spec.average, spec.attack) + _worst(spec.worst)
    return snapshots * (spec.test_examples + spec.train_examples) * each


def _attack(spec: AttackSpec) -> int:
    return spec.steps * spec.restarts


def _autoattack(spec: AutoAttackSpec) -> int:
    if spec.version == "standard":
        return STANDARD_AUTOATTACK
    return len(spec.attacks) * spec.iterations * spec.restarts * (spec.target_classes or 9) + (
        spec.queries if "square" in spec.attacks else 0
    )


def _average(spec: AverageFlatnessSpec, attack: AttackSpec) -> int:
    return len(spec.xi) * spec.samples * attack.steps + spec.clean_samples


def _worst(spec: WorstFlatnessSpec) -> int:
    return 2 * (len(spec.xi) + 1) * spec.steps * spec.restarts
