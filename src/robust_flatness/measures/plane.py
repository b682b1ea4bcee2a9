"""Clean and robust loss on a plane in weight space: the block `plane`."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from robust_flatness.config.measures import AttackSpec, FirstExamples, MeasureSettings, attack_defaults
from robust_flatness.config.values import Count, Integer, Positive, Precision
from robust_flatness.measures.base import MORE_ROBUST, Examples, Measure, Metric, Network, Record, pgd

#: Space around the path of the snapshots, relative to its extent along each axis.
ROOM = 0.25
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
    adversarial: Literal["anew", "fixed"] = "anew"
    """Whether adversarial examples are recomputed at each point, or computed once at the trained weights."""
    examples: Annotated[Count, FirstExamples("test", 128)]
    precision: Precision = "float32"

    @property
    def takes_snapshots(self) -> bool:
        return self.directions == "snapshots"

    def passes(self, held_out: int) -> int:
        return self.points**2 * self.examples * (self.attack.passes + 1)


def plane(net: Network, data: Examples, settings: PlaneSettings) -> Iterator[Record]:
    """Yield both losses on the grid. `coordinate` is `a,b`, in multiples of each filter's norm along random
    directions or, with snapshots, in distances; the records `path` are the snapshots' projections."""
    import torch

    from robust_flatness.boundary import unwrapped
    from robust_flatness.measures.surfaces import loss_plane, principal_plane, random_directions

    x, y = data.examples("test", settings.examples)
    seed, attack = data.derived_seed("plane"), pgd(settings.attack, settings.precision)
    if settings.takes_snapshots:
        modules = [unwrapped(load()) for load in data.snapshots.values()]
        snapshots = [{name: p.detach() for name, p in module.named_parameters()} for module in modules]
        directions, path, explained = principal_plane(net.weights(), snapshots)
        path = path.cpu()
        for epoch, (a, b) in zip(data.snapshots, path.tolist(), strict=True):
            yield Record("path", epoch, coordinate=f"{a},{b}")
        for axis, share in zip("ab", explained.tolist(), strict=True):
            yield Record("explained", share, coordinate=axis)
        low, high = path.amin(0).clamp(max=0), path.amax(0).clamp(min=0)
        low, high = low - ROOM * (high - low), high + ROOM * (high - low)
    else:
        directions = random_directions(net, seed)
        high = torch.full((2,), settings.scale, dtype=torch.float64)
        low = -high
    steps = torch.linspace(0, 1, settings.points, dtype=torch.float64)
    a, b = (low + steps[:, None] * (high - low)).T
    points = [(round(a, 12), round(b, 12)) for a, b in torch.cartesian_prod(a, b).tolist()]
    options = {"adversarial": settings.adversarial, "weight_bound": data.weight_bound, "loss": data.loss}
    options |= {"directions": directions, "points": points, "attack": attack, "seed": seed}
    values = loss_plane(net, x, y, **options)
    for loss, column in values.items():
        where = {"loss": loss, "split": "test", "n": len(x)}
        where |= settings.attack.ball if loss == "rloss" else {}
        for (a, b), value in zip(points, column, strict=True):
            yield Record("plane", value, coordinate=f"{a},{b}", **where)


MEASURE = Measure("plane", PlaneSettings, plane, METRICS, by_default=())
