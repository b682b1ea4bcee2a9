"""Clean and robust loss on a plane in weight space: the block `plane`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from robust_flatness.config.measures import AttackSpec, FirstExamples, MeasureSettings, attack_defaults
from robust_flatness.config.values import Count, Integer, Positive, Precision
from robust_flatness.errors import ConfigError
from robust_flatness.measures.base import LOSSES, MORE_ROBUST, Measure, Metric, Record
from robust_flatness.measures.cost import attack_passes
from robust_flatness.measures.examples import BATCH_SIZE, Examples, ball, pgd
from robust_flatness.measures.landscape import normalised
from robust_flatness.runtime.progress import stage, track
from robust_flatness.seeding import derive_seed, generator

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_flatness.attacks import PGD
    from robust_flatness.attacks.pgd import Loss
    from robust_flatness.network import Network

Adversarial = Literal["anew", "fixed"]
#: Space around the path of the snapshots, relative to its extent along each axis.
ROOM = 0.25
#: Smallest variance along the second axis, relative to the first, of snapshots that span a plane.
FLAT = 1e-10
METRICS = {
    "plane": Metric(None, "{loss} on a plane in weight space", "loss", MORE_ROBUST, splits=("test",)),
    "path": Metric(None, "epoch, or number, of the snapshot projected onto this point", "setting"),
    "explained": Metric(None, "share of the snapshots' variance along an axis of the plane", "setting"),
}


class PlaneSettings(MeasureSettings):
    """Clean and robust loss on a grid of `points` x `points` in a plane through the weights."""

    directions: Literal["random", "snapshots"] = "random"
    """Two random directions, or the first two principal components of the training's snapshots."""
    points: Annotated[Integer, Field(ge=3)] = 11
    scale: Positive = 0.5
    """Extent along random directions, relative to the norm of each filter."""
    attack: AttackSpec = attack_defaults(steps=5, restarts=1)
    adversarial: Adversarial = "anew"
    """Whether adversarial examples are recomputed at each point, or computed once at the trained weights."""
    examples: Annotated[Count, FirstExamples("test", 128)]
    precision: Precision = "float32"

    @property
    def takes_snapshots(self) -> bool:
        return self.directions == "snapshots"


@dataclass(frozen=True)
class PrincipalPlane:
    """The plane through w along two orthonormal `directions`, tensors by name. `coordinates` [m, 2] are those
    of the snapshots projected onto it, `explained` [2] the shares of variance along the directions."""

    directions: list[dict[str, "Tensor"]]
    coordinates: "Tensor"
    explained: "Tensor"


def principal_plane(
    weights: Mapping[str, "Tensor"], snapshots: Sequence[Mapping[str, "Tensor"]]
) -> PrincipalPlane:
    r"""Return the plane through w along the first two principal components of m snapshots and w.

    (Li et al., NeurIPS 2018, Sec. 7.) The components are those of the differences :math:`w_i - w`, including
    0 for w itself, so that w and two snapshots give the plane through all three. They follow from the matrix
    of inner products :math:`\langle w_i - w, w_j - w\rangle`, [m, m], in float64. Signs make the coordinate
    of largest magnitude positive.

    `weights` are tensors by name, `snapshots` hold at least these names each. Raises `ConfigError` if w and
    the snapshots lie on a line.
    """
    import torch

    def differences(name: str) -> "Tensor":
        w = weights[name]
        return torch.stack([(snapshot[name].to(w) - w).flatten() for snapshot in snapshots]).double()

    inner = sum(rows @ rows.T for rows in map(differences, weights)) if snapshots else torch.zeros(0, 0)
    moved = inner.diagonal() > 0
    n = int(moved.sum()) + 1
    centring = torch.eye(n, dtype=inner.dtype, device=inner.device) - 1 / n
    padded = torch.zeros_like(centring)
    padded[1:, 1:] = inner[moved][:, moved]
    values, vectors = torch.linalg.eigh(centring @ padded @ centring)
    values, vectors = values.flip(0), vectors.flip(1)
    if n < 3 or not values[1] > FLAT * values[0]:
        raise ConfigError("snapshots: a plane needs two that do not lie on a line with the weights")
    mix = torch.zeros(len(snapshots), 2, dtype=inner.dtype, device=inner.device)
    mix[moved] = (centring @ vectors[:, :2] / values[:2].sqrt())[1:]
    coordinates = inner @ mix
    signs = coordinates.gather(0, coordinates.abs().argmax(0, keepdim=True)).sign()
    axes = {name: (signs * mix).T @ differences(name) for name in weights}
    directions = [{name: axes[name][k].view_as(w).to(w) for name, w in weights.items()} for k in range(2)]
    return PrincipalPlane(directions, signs * coordinates, values[:2] / values.sum())


def loss_plane(
    model: "nn.Module", x: "Tensor", y: "Tensor", *, directions: Sequence[Mapping[str, "Tensor"]],
    points: Sequence[tuple[float, float]], attack: "PGD", adversarial: Adversarial = "anew",
    seed: int = 0, weight_bound: float | None = None, loss: "Loss | None" = None,
) -> dict[str, list[float]]:  # fmt: skip
    r"""Compute clean loss and RLoss at :math:`w + a\,d_1 + b\,d_2` for each (a, b) in `points`.

    `directions` are :math:`d_1, d_2`, tensors by name; parameters that are not perturbed, such as those of
    normalisation layers, keep their values. RLoss is computed by `attack` at each point, from the same
    starts, or with `adversarial="fixed"` on the adversarial examples found at w. `weight_bound` and `loss` as
    in `average_flatness`. Returns lists in the order of `points`: `ce` and `rloss`.
    """
    import torch

    from robust_flatness.attacks.pgd import cross_entropy
    from robust_flatness.measures.neighborhood import Neighborhood
    from robust_flatness.measures.result import checked, clean_logits
    from robust_flatness.runtime.isolation import isolated

    with isolated():
        net, x, y = checked(model, x, y, loss)
        criterion = loss or cross_entropy
        space = Neighborhood(net, 1.0, weight_bound)
        first, second = ([direction[name] for name in space.names] for direction in directions)

        def attacked(network: "Network") -> "Tensor":
            return attack(network, x, y, BATCH_SIZE, generator(seed, "starts"), criterion).x_adv

        inputs = attacked(net)
        values: dict[str, list[float]] = {name: [] for name in LOSSES}
        for a, b in track(points, "point of the plane"):
            nu = torch._foreach_add(torch._foreach_mul(first, a), second, alpha=b)
            network = net.at(space.at(space.within_bound(list(nu))))
            if adversarial == "anew":
                inputs = attacked(network)
            for name, images in (("ce", x), ("rloss", inputs)):
                losses = criterion(clean_logits(network, images, BATCH_SIZE), y)
                values[name].append(losses.double().mean().item())
    return values


def plane(net: "Network", data: Examples, settings: PlaneSettings) -> Iterator[Record]:
    """Yield both losses on the grid. `coordinate` is `a,b`, in multiples of each filter's norm along random
    directions or, with snapshots, in distances; the records `path` are the snapshots' projections."""
    import torch

    from robust_flatness.boundary import unwrapped
    from robust_flatness.measures.neighborhood import Neighborhood

    x, y = data.examples("test", settings.examples)
    seed = derive_seed(data.seed, "plane")
    low, high = torch.tensor([[-settings.scale] * 2, [settings.scale] * 2], dtype=torch.float64)
    if not settings.takes_snapshots:
        space = Neighborhood(net, 1.0)
        drawn = [space.directions(generator(seed, "random", number)) for number in range(2)]
        scaled = [normalised(direction, space.weights, "filter", 1.0) for direction in drawn]
        directions = [dict(zip(space.names, direction, strict=True)) for direction in scaled]
    else:
        modules = [unwrapped(load()) for load in data.snapshots.values()]
        snapshots = [{name: p.detach() for name, p in module.named_parameters()} for module in modules]
        found = principal_plane(net.weights(), snapshots)
        directions, path = found.directions, found.coordinates.cpu()
        for epoch, point in zip(data.snapshots, path.tolist(), strict=True):
            yield Record("path", epoch, coordinate=f"{point[0]},{point[1]}")
        for axis, share in zip("ab", found.explained.tolist(), strict=True):
            yield Record("explained", share, coordinate=axis)
        low, high = path.amin(0).clamp(max=0), path.amax(0).clamp(min=0)
        low, high = low - ROOM * (high - low), high + ROOM * (high - low)
    steps = torch.linspace(0, 1, settings.points, dtype=torch.float64)
    a, b = (low + steps[:, None] * (high - low)).T
    points = [(round(a, 12), round(b, 12)) for a, b in torch.cartesian_prod(a, b).tolist()]
    options = {"adversarial": settings.adversarial, "weight_bound": data.weight_bound, "loss": data.loss}
    attack = pgd(settings.attack, settings.precision)
    with stage("loss on a plane"):
        values = loss_plane(
            net, x, y, directions=directions, points=points, attack=attack, seed=seed, **options
        )
    for loss, column in values.items():
        where = {"loss": loss, "split": "test", "n": len(x)}
        where |= ball(attack if loss == "rloss" else None)
        for (a, b), value in zip(points, column, strict=True):
            yield Record("plane", value, coordinate=f"{a},{b}", **where)


def passes(settings: PlaneSettings, held_out: int, snapshots: int) -> int:
    """Return the cost of the attack and of the clean loss at every point."""
    return settings.points**2 * settings.examples * (attack_passes(settings.attack) + 1)


MEASURE = Measure("plane", PlaneSettings, plane, METRICS, passes, checkpoints=("last",), by_default=())
