"""Time that jobs may take on a cluster, from what they compute.

The unit of work is one pass: forward and backward through the network for one image. The rates
are low on purpose, since a scheduler ends a job at its limit; an attempt that ran out of time is
followed by one with more.
"""

import math

from robust_flatness.config.kinds import NETWORKS, declared
from robust_flatness.config.measures import AttackSpec, AutoAttackSpec
from robust_flatness.config.training import ModelSpec, TrainJob

#: Width, and passes per second on a core and on a GPU, of a network that does not say so: a large one.
LARGE = (64, 20, 2500)
#: Start of Python and torch, reading data, waiting for a slow file system.
OVERHEAD_MINUTES = 10
#: The standard AutoAttack: 100 iterations of APGD-CE, 900 each of APGD-T and FAB-T, 5,000 queries.
STANDARD_AUTOATTACK = 100 + 900 + 2 * 900 + 5000 // 2


def minutes(passes: float, model: ModelSpec, device: str) -> int:
    """Time limit in minutes for `passes` through `model`."""
    width, on_core, on_gpu = declared(NETWORKS, model.name, "PASSES", LARGE)
    rate = on_gpu if device.startswith("cuda") else on_core
    rate /= max(1, model.width / width) ** 2
    return OVERHEAD_MINUTES + math.ceil(passes / rate / 60)


def training_passes(job: TrainJob, images: int) -> int:
    """Attack and update in every epoch, twice that for evaluation and methods with more passes."""
    return 2 * job.training.epochs * images * (job.training.steps + 1)


def attack_passes(spec: AttackSpec) -> int:
    """Passes of PGD for one example."""
    return spec.steps * spec.restarts


def autoattack_passes(spec: AutoAttackSpec) -> int:
    """Passes of AutoAttack for one example, if no attack finds anything."""
    if spec.version == "standard":
        return STANDARD_AUTOATTACK
    runs = len(set(spec.attacks) - {"pgd", "square"}) * (spec.target_classes or 9)
    return runs * spec.iterations * spec.restarts + (spec.queries if "square" in spec.attacks else 0)
