"""The robust loss along directions in weight space: the block `landscape`."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from robust_flatness.config.measures import AttackSpec, FirstExamples, MeasureSettings, attack_defaults
from robust_flatness.config.values import Count, Integer, Positive, Precision
from robust_flatness.config.variants import BASELINE
from robust_flatness.measures.base import MORE_ROBUST, Measure, Metric, Record
from robust_flatness.measures.cost import attack_passes
from robust_flatness.measures.examples import BATCH_SIZE, Examples, ball, pgd
from robust_flatness.measures.flatness import WORST
from robust_flatness.measures.hessian import hessian_eigenvalues
from robust_flatness.runtime.progress import stage, track
from robust_flatness.seeding import derive_seed, generator

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_flatness.attacks.pgd import Loss
    from robust_flatness.network import Network

#: Kinds of directions, and the units by which they are normalised.
DIRECTIONS, NORMALISATIONS = ("random", "adversarial", "hessian"), ("layer", "filter")
#: Names of metrics by direction and normalisation.
CURVES = {(way, part): f"{way}_{part}" for way in DIRECTIONS for part in NORMALISATIONS}
METRICS = {
    name: Metric(
        None, f"RLoss along {way} directions, normalised by {part}", "loss", MORE_ROBUST, splits=("test",),
        count="landscape_examples",
    )
    for (way, part), name in CURVES.items()
}  # fmt: skip


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
    examples: Annotated[Count, FirstExamples("test", 128)]
    precision: Precision = "float32"


def loss_landscape(
    model: "nn.Module", x: "Tensor", y: "Tensor", *, settings: LandscapeSettings,
    held_out: tuple["Tensor", "Tensor"], seed: int = 0, weight_bound: float | None = None,
    loss: "Loss | None" = None,
) -> list[Record]:  # fmt: skip
    r"""Return RLoss at :math:`w + s\,c\,\hat\nu` for s in [-1, 1] (Stutz et al. 2021, Sec. 3.3).

    :math:`\hat\nu` is a direction normalised to the norm of w, for each layer (`layer`) or for each filter of
    it (`filter`; one-dimensional tensors still as a whole), and c the scale of its kind. Adversarial examples
    are computed anew at every s, from the same starts.

    Random: the mean over several Gaussian directions, with the standard deviation in separate records.
    Adversarial: the maximum over directions from the search of worst-case flatness in the ball of relative
    radius c. Hessian: the eigenvector of the largest eigenvalue of the clean loss on `held_out`. The field
    `coordinate` of a record is s, `xi` is c.
    """
    import torch

    from robust_flatness.attacks.pgd import cross_entropy
    from robust_flatness.measures.neighborhood import Neighborhood
    from robust_flatness.measures.result import checked
    from robust_flatness.measures.worst import JointSearch
    from robust_flatness.runtime.isolation import isolated

    points = torch.linspace(-1, 1, settings.points, dtype=torch.float64).tolist()
    attack, records = pgd(settings.attack, settings.precision), []
    with isolated():
        net, x, y = checked(model, x, y, loss)
        criterion = loss or cross_entropy
        space = Neighborhood(net, settings.adversarial_scale, weight_bound)
        start = attack.start(x, generator(seed, "adversarial", "starts"))
        steps = settings.adversarial_steps
        search = JointSearch(net, space, attack, steps, WORST.weight_step, attack.precision, criterion)
        top = hessian_eigenvalues(net, *held_out, seed=derive_seed(seed, "hessian"), loss=loss).vector
        directions = {
            "random": [
                space.directions(generator(seed, "random", i)) for i in range(settings.random_directions)
            ],
            "adversarial": [
                search.run(x, y, start, [slice(None)], generator(seed, "adversarial", i))[0]
                for i in range(settings.adversarial_directions)
            ],
            "hessian": [[top.get(name, torch.zeros_like(w)) for name, w in net.weights().items()]],
        }
        for (way, part), name in track(CURVES.items(), "curve"):
            scale = getattr(settings, f"{way}_scale")
            table = torch.empty(len(directions[way]), len(points), dtype=torch.float64)
            for row, direction in zip(table, directions[way], strict=True):
                nu = normalised(direction, space.weights, part, scale)
                for index, s in enumerate(points):
                    shifted = space.at(space.within_bound(torch._foreach_mul(nu, s)))
                    starts = generator(seed, "landscape starts")
                    found = attack(net.at(shifted), x, y, BATCH_SIZE, starts, criterion)
                    row[index] = found.loss.double().mean()
            curves = {name: table.amax(0) if way == "adversarial" else table.mean(0)}
            if way == "random" and len(table) > 1:
                curves[f"{name}_std"] = table.std(0)
            where = {"loss": "rloss", "split": "test", **ball(attack), "xi": scale, "n": len(x)}
            for index, s in enumerate(points):
                at = where | {"coordinate": round(s, 12)}
                records += [Record(metric, values[index].item(), **at) for metric, values in curves.items()]
    return records


def normalised(direction: Sequence["Tensor"], weights: Sequence["Tensor"], part: str, scale: float):
    """Return `direction` rescaled to `scale` times the norms of `weights` per `part`; norms of 0 stay 0."""
    pairs = zip(direction, weights, strict=True)
    return [d / _norm(d, part).clamp(min=1e-37) * (scale * _norm(w, part)) for d, w in pairs]


def _norm(tensor: "Tensor", part: str) -> "Tensor":
    if part == "layer" or tensor.ndim < 2:
        return tensor.norm()
    return tensor.flatten(1).norm(dim=1).view(-1, *[1] * (tensor.ndim - 1))


def landscape(net: "Network", data: Examples, settings: LandscapeSettings) -> Iterator[Record]:
    """Yield RLoss along random, adversarial and Hessian directions."""
    x, y = data.examples("test", settings.examples)
    options = {"seed": derive_seed(data.seed, "landscape"), "weight_bound": data.weight_bound}
    options["loss"] = data.loss
    with stage("loss landscape"):
        held_out = data.examples("early_stopping")
        yield from loss_landscape(net, x, y, settings=settings, held_out=held_out, **options)


def passes(settings: LandscapeSettings, held_out: int, snapshots: int) -> int:
    """Return the cost of the attack at every point of every direction, normalised in two ways."""
    directions = 2 * (settings.random_directions + settings.adversarial_directions + 1)
    return directions * settings.points * settings.examples * attack_passes(settings.attack)


MEASURE = Measure(
    "landscape", LandscapeSettings, landscape, METRICS, passes,
    checkpoints=("last",), by_default=(BASELINE,), held_out=True,
)  # fmt: skip
