"""The robust loss along directions in weight space: the block `landscape`."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from robust_flatness.config.measures import AttackSpec, MeasureSettings, attack_defaults
from robust_flatness.config.measures import Examples as NumberOf
from robust_flatness.config.values import Count, Integer, Positive, Precision
from robust_flatness.config.variants import BASELINE
from robust_flatness.measures.base import MORE_ROBUST, Measure, Metric, Record
from robust_flatness.measures.cost import attack_passes
from robust_flatness.measures.examples import BATCH_SIZE, Examples, pgd
from robust_flatness.measures.hessian import hessian_eigenvalues
from robust_flatness.runtime.progress import stage, told
from robust_flatness.seeding import derive_seed, generator

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_flatness.attacks import PGD
    from robust_flatness.measures.neighborhood import Neighborhood
    from robust_flatness.network import Network

#: Kinds of directions, and the parts of a tensor that are normalised.
DIRECTIONS, NORMALISATIONS = ("random", "adversarial", "hessian"), ("layer", "filter")
#: Names of metrics by direction and normalisation.
CURVES = {(way, part): f"{way}_{part}" for way in DIRECTIONS for part in NORMALISATIONS}
METRICS = {
    name: Metric(
        None,
        f"RLoss along {way} directions, normalised by {part}",
        "loss",
        MORE_ROBUST,
        splits=("test",),
        std=way == "random",
        count="landscape_examples",
    )
    for (way, part), name in CURVES.items()
}


class LandscapeSettings(MeasureSettings):
    """RLoss along directions in weight space, at `points` values of s in [-1, 1]."""

    points: Annotated[Integer, Field(ge=3)] = 51
    attack: AttackSpec = attack_defaults(steps=10, restarts=1)
    random_directions: Count = 10
    adversarial_directions: Count = 10
    random_scale: Positive = 0.5
    adversarial_scale: Positive = 0.025
    hessian_scale: Positive = 0.5
    adversarial_steps: Count = 20
    examples: Annotated[Count, NumberOf("test", 128)]
    precision: Precision = "float32"


def loss_landscape(
    model: "nn.Module",
    x: "Tensor",
    y: "Tensor",
    *,
    spec: LandscapeSettings,
    attack: "PGD",
    held_out: tuple["Tensor", "Tensor"],
    seed: int = 0,
    weight_bound: float | None = None,
    batch_size: int = BATCH_SIZE,
) -> list[dict[str, str | float | None]]:
    r"""RLoss at :math:`w + s\,c\,\hat\nu` for s in [-1, 1] (Stutz et al. 2021, Sec. 3.3).

    :math:`\hat\nu` is a direction normalised to the norm of w, for each layer (`layer`) or for each filter of
    it (`filter`; one-dimensional tensors still as a whole), and c the scale of its kind. Adversarial examples
    are computed anew at every s, from the same starts.

    Random directions: the mean over several Gaussian ones. Adversarial: the highest over several found as for
    worst-case flatness, in the ball of relative radius c. Hessian: the eigenvector of the largest eigenvalue
    of the clean loss on `held_out`.

    Returns
    -------
    list of dict
        A row for each direction, normalisation and s: `direction`, `normalisation`, `scale`, `s`, `rloss` and
        `rloss_std` (over random directions, else None).
    """
    import torch

    from robust_flatness.measures.neighborhood import Neighborhood
    from robust_flatness.measures.result import checked
    from robust_flatness.runtime.isolation import isolated

    points = torch.linspace(-1, 1, spec.points, dtype=torch.float64).tolist()
    rows = []
    with isolated():
        net, x, y = checked(model, x, y)
        space = Neighborhood(net, spec.adversarial_scale, weight_bound)
        directions = _directions(net, space, x, y, spec, attack, held_out, batch_size, seed)
        for way, part in told(list(CURVES), "curve"):
            scale = getattr(spec, f"{way}_scale")
            table = torch.empty(len(directions[way]), len(points), dtype=torch.float64)
            for row, nu in zip(table, directions[way], strict=True):
                nu = _normalised(nu, space.weights, part, scale)
                for index, s in enumerate(points):
                    shifted = space.at(space.within_bound(torch._foreach_mul(nu, s)))
                    streams = generator(seed, "landscape starts")
                    result = attack(net.at(shifted), x, y, batch_size, streams)
                    row[index] = result.loss.double().mean()
            std = table.std(dim=0).tolist() if way == "random" and len(table) > 1 else [None] * len(points)
            values = (table.amax(0) if way == "adversarial" else table.mean(0)).tolist()
            rows += [
                {"direction": way, "normalisation": part, "scale": scale, "s": round(s, 12), "rloss": value,
                 "rloss_std": spread}
                for s, value, spread in zip(points, values, std, strict=True)
            ]  # fmt: skip
    return rows


def _directions(
    net: "Network",
    space: "Neighborhood",
    x: "Tensor",
    y: "Tensor",
    spec: LandscapeSettings,
    attack: "PGD",
    held_out: tuple["Tensor", "Tensor"],
    batch_size: int,
    seed: int,
) -> dict[str, list[list["Tensor"]]]:
    """Directions of each kind, not normalised."""
    import torch

    from robust_flatness.attacks.pgd import random_start
    from robust_flatness.measures.worst import JointSearch

    start = random_start(x, attack.epsilon, generator(seed, "adversarial", "starts"))
    search = JointSearch(net, space, attack, spec.adversarial_steps, 0.01, attack.precision)
    vector = hessian_eigenvalues(
        net, *held_out, batch_size=batch_size, seed=derive_seed(seed, "hessian")
    ).vector
    pairs = zip(space.names, space.weights, strict=True)
    return {
        "random": [
            space.directions(generator(seed, "random", i)) for i in range(spec.random_directions)
        ],
        "adversarial": [
            search.run(x, y, start, [slice(None)], generator(seed, "adversarial", i))[0]
            for i in range(spec.adversarial_directions)
        ],
        "hessian": [[vector[name] if name in vector else torch.zeros_like(w) for name, w in pairs]],
    }  # fmt: skip


def _normalised(
    direction: Sequence["Tensor"], weights: Sequence["Tensor"], part: str, scale: float
) -> list["Tensor"]:
    """`direction` with `scale` times the norms of `weights`; a part of norm 0 stays 0."""
    return [
        d / _norm(d, part).clamp(min=1e-37) * (scale * _norm(w, part))
        for d, w in zip(direction, weights, strict=True)
    ]


def _norm(tensor: "Tensor", part: str) -> "Tensor":
    import torch

    if part == "layer" or tensor.ndim < 2:
        return tensor.norm()
    return torch.linalg.vector_norm(tensor, dim=tuple(range(1, tensor.ndim)), keepdim=True)


def landscape(net: "Network", data: Examples, settings: LandscapeSettings) -> Iterator[Record]:
    """RLoss along random, adversarial and Hessian directions; `coordinate` is s, `xi` the scale."""
    x, y = data.examples("test", settings.examples)
    with stage("loss landscape"):
        rows = loss_landscape(
            net, x, y, spec=settings, attack=pgd(settings.attack, settings.precision),
            held_out=data.examples("early_stopping"), seed=derive_seed(data.seed, "landscape"),
            weight_bound=data.weight_bound,
        )  # fmt: skip
    for row in rows:
        name = CURVES[row["direction"], row["normalisation"]]
        where = {"loss": "rloss", "split": "test", "xi": row["scale"], "epsilon": settings.attack.epsilon,
                 "coordinate": row["s"], "n": len(x)}  # fmt: skip
        yield Record(name, row["rloss"], **where)
        if row["rloss_std"] is not None:
            yield Record(f"{name}_std", row["rloss_std"], **where)


def passes(settings: LandscapeSettings, held_out: int, snapshots: int) -> int:
    """The attack at every point of every direction, normalised in two ways."""
    directions = 2 * (settings.random_directions + settings.adversarial_directions + 1)
    return directions * settings.points * settings.examples * attack_passes(settings.attack)


MEASURE = Measure(
    "landscape", LandscapeSettings, landscape, METRICS, passes,
    checkpoints=("last",), by_default=(BASELINE,), held_out=True,
)  # fmt: skip
