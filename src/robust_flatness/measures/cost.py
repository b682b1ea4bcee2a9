"""What jobs cost, from what they compute.

The unit of work is one pass: forward and backward through the network for one image. Its time follows from
the multiply-adds of the forward half and from rates measured once.
"""

import math

from robust_flatness.config.catalogue import COSTS
from robust_flatness.config.measures import AttackSpec, AutoAttackSpec
from robust_flatness.config.training import ModelSpec, TrainJob

#: Of a network that does not say what it costs: a large one.
LARGE = {"width": 64, "side": 32, "multiply_adds": 555_422_720, "parameters": 11_174_922}
#: Of networks of others: a WideResNet-34-10, the largest of the usual ones.
EXTERNAL = {"side": 32, "multiply_adds": 6_700_000_000, "parameters": 46_160_474}
#: Multiply-adds of forward halves per second, by kind of device and precision: PGD-20 on 1,000 images through
#: ResNet-18 on an H100 (benchmarks/gpu.py), and a training on one core without AVX-512.
RATES = {("cpu", "float32"): 8.3e9, ("cuda", "float32"): 3.6e12, ("cuda", "bfloat16"): 22e12}
#: The same for a whole training in bfloat16, whose passes are replayed as CUDA graphs.
TRAINING_RATE = 34e12
#: Seconds of a pass besides, on a core.
PASS_OVERHEAD = 3e-5
#: How much longer than estimated a job may take: other methods, slower machines, evaluations on the way.
SLACK = 4
#: Start of Python and torch, reading data, waiting for a slow file system.
OVERHEAD_MINUTES = 10
#: The standard AutoAttack: 100 iterations of APGD-CE, 900 each of APGD-T and FAB-T, 5,000 queries.
STANDARD_AUTOATTACK = 100 + 900 + 2 * 900 + 5000 // 2


def _cost(model: ModelSpec | None, quantity: str) -> tuple[float, int]:
    """A quantity of `model`, None for one of others, on images of the side that its file states, and that
    side."""
    if model is None:
        return EXTERNAL[quantity], EXTERNAL["side"]
    stated = COSTS.get(model.name, LARGE)
    return stated[quantity] * (model.width / stated["width"]) ** 2, stated["side"]


def parameters(model: ModelSpec | None) -> float:
    """Number of weights, about: it grows with the square of the width."""
    return _cost(model, "parameters")[0]


def seconds(
    passes: float, model: ModelSpec | None, side: int, device: str, precision: str = "float32",
    training: bool = False,
) -> float:  # fmt: skip
    """Time of `passes` through `model` of images of `side` pixels, on a core or a GPU."""
    work, stated_side = _cost(model, "multiply_adds")
    work *= (side / stated_side) ** 2
    if not device.startswith("cuda"):
        return passes * (PASS_OVERHEAD + work / RATES["cpu", "float32"])
    fast = training and precision != "float32"
    rate = TRAINING_RATE if fast else RATES["cuda", "float32" if precision == "float32" else "bfloat16"]
    return passes * work / rate


def minutes(passes: float, model: ModelSpec | None, side: int, device: str) -> int:
    """Time limit in minutes for `passes` through `model` of images of `side` pixels, in float32."""
    return OVERHEAD_MINUTES + math.ceil(SLACK * seconds(passes, model, side, device) / 60)


def training_passes(job: TrainJob, images: int) -> int:
    """Attack and update in every epoch."""
    return job.training.epochs * images * (job.training.steps + 1)


def attack_passes(spec: AttackSpec) -> int:
    """Passes of PGD for one example."""
    return spec.steps * spec.restarts


def autoattack_passes(spec: AutoAttackSpec) -> int:
    """Passes of AutoAttack for one example, if no attack finds anything."""
    if spec.version == "standard":
        return STANDARD_AUTOATTACK
    runs = len(set(spec.attacks) - {"pgd", "square"}) * (spec.target_classes or 9)
    return runs * spec.iterations * spec.restarts + (spec.queries if "square" in spec.attacks else 0)
