"""Estimated cost of jobs in passes (forward and backward through the network for one image) and in time.

Times follow from the multiply-adds of a forward pass and from throughputs measured beforehand.
"""

import math

from robust_flatness.config.catalogue import COSTS
from robust_flatness.config.measures import AttackSpec, AutoAttackSpec
from robust_flatness.config.training import ModelSpec, TrainJob

#: Assumed cost of external networks: that of a WideResNet-34-10.
EXTERNAL = {"side": 32, "multiply_adds": 6_700_000_000, "parameters": 46_160_474}
#: Throughput in forward multiply-adds per second: training on one core without AVX-512; PGD-20 on 1,000
#: images through ResNet-18 on an H100 (benchmarks/gpu.py); bfloat16 training with CUDA graphs there.
RATES = {"core": 8.3e9, "float32": 3.6e12, "bfloat16": 22e12, "training": 34e12}
#: Overhead of a pass on a core, in seconds, and of a job (imports, reading data), in minutes.
PASS_OVERHEAD, OVERHEAD_MINUTES = 3e-5, 10
#: Ratio of time limits to estimates, which allows for slower machines and evaluations during training.
SLACK = 4
#: Classes that AutoAttack targets by default, if there are as many others.
MOST_TARGETS = 9


def _cost(model: ModelSpec | None, quantity: str) -> tuple[float, int]:
    """Return a cost of `model` (None: an external network), scaled by its width squared, and the image side
    to which it refers."""
    if model is None:
        return EXTERNAL[quantity], EXTERNAL["side"]
    stated = COSTS.get(model.name, COSTS["resnet18"])
    return stated[quantity] * (model.width / stated["width"]) ** 2, stated["side"]


def parameters(model: ModelSpec | None) -> float:
    """Return the approximate number of weights."""
    return _cost(model, "parameters")[0]


def seconds(
    passes: float, model: ModelSpec | None, side: int, device: str, precision: str = "float32",
    training: bool = False,
) -> float:  # fmt: skip
    """Return the seconds of `passes` through `model` of images of `side` pixels, on a core or a GPU."""
    work, stated_side = _cost(model, "multiply_adds")
    work *= (side / stated_side) ** 2
    if not device.startswith("cuda"):
        return passes * (PASS_OVERHEAD + work / RATES["core"])
    kind = "float32" if precision == "float32" else "training" if training else "bfloat16"
    return passes * work / RATES[kind]


def minutes(passes: float, model: ModelSpec | None, side: int, device: str) -> int:
    """Return the time limit in minutes for `passes` through `model`, in float32."""
    return OVERHEAD_MINUTES + math.ceil(SLACK * seconds(passes, model, side, device) / 60)


def training_passes(job: TrainJob, images: int) -> int:
    """Return the passes of a training: attack and update in every epoch."""
    return job.training.epochs * images * (job.training.steps + 1)


def attack_passes(spec: AttackSpec) -> int:
    """Return the passes of PGD for one example."""
    return spec.steps * spec.restarts


def autoattack_passes(spec: AutoAttackSpec) -> int:
    """Return the passes of AutoAttack for one example, if no attack succeeds. FAB takes two passes an
    iteration; Square's queries are forward passes, half of one."""
    targeted = spec.iterations * (spec.target_classes or MOST_TARGETS)
    passes = {"pgd": 0, "apgd-ce": spec.iterations, "apgd-t": targeted, "fab-t": 2 * targeted}
    passes["square"] = spec.queries // 2
    return spec.restarts * sum(passes[name] for name in spec.attacks)
