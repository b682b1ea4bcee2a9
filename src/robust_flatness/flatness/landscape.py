"""The robust loss along directions in weight space."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from robust_flatness.attacks.pgd import PGD, random_start
from robust_flatness.config import LandscapeSpec
from robust_flatness.flatness.hessian import hessian_eigenvalues
from robust_flatness.flatness.neighborhood import Neighborhood, real_parts
from robust_flatness.flatness.worst import JointSearch
from robust_flatness.inputs import check_classes, checked_inputs
from robust_flatness.network import Network
from robust_flatness.runtime.isolation import isolated
from robust_flatness.runtime.progress import told
from robust_flatness.seeding import derive_seed, generator

Direction = list[Tensor]


@isolated()
def loss_landscape(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    spec: LandscapeSpec,
    attack: PGD,
    held_out: tuple[Tensor, Tensor],
    seed: int = 0,
    weight_bound: float | None = None,
    batch_size: int = 128,
) -> list[dict[str, str | float | None]]:
    r"""RLoss at :math:`w + s\,c\,\hat\nu` for s in [-1, 1] (Stutz et al. 2021, Sec. 3.3).

    :math:`\hat\nu` is a direction normalised to the norm of w, for each layer (`layer`) or for
    each filter of it (`filter`; one-dimensional tensors still as a whole), and c the scale of its
    kind. Adversarial examples are computed anew at every s, from the same starts.

    Random directions: the mean over several Gaussian ones. Adversarial: the highest over several
    found as for worst-case flatness, in the ball of relative radius c. Hessian: the eigenvector of
    the largest eigenvalue of the clean loss on `held_out`.

    Returns
    -------
    list of dict
        A row for each direction, normalisation and s: `direction`, `normalisation`, `scale`, `s`,
        `rloss` and `rloss_std` (over random directions, else None).
    """
    x, y = checked_inputs(x, y)
    net = Network.of(model, x[:2])
    check_classes(y, net.classes)
    search_space = Neighborhood(net, spec.adversarial_scale, weight_bound)
    start = random_start(x, attack.epsilon, generator(seed, "adversarial", "starts"))
    search = JointSearch(net, search_space, attack, spec.adversarial_steps, 0.01, attack.precision)
    kinds: list[tuple[str, float, list[Direction], Callable[[Tensor], Tensor]]] = [
        (
            "random",
            spec.random_scale,
            [search_space.directions(generator(seed, "random", i)) for i in range(spec.random_directions)],
            lambda table: table.mean(dim=0),
        ),
        (
            "adversarial",
            spec.adversarial_scale,
            [
                search.run(x, y, start, [slice(None)], generator(seed, "adversarial", i))[0]
                for i in range(spec.adversarial_directions)
            ],
            lambda table: table.amax(dim=0),
        ),
        (
            "hessian",
            spec.hessian_scale,
            [_top_eigenvector(model, held_out, search_space, batch_size, seed)],
            lambda table: table[0],
        ),
    ]
    points = torch.linspace(-1, 1, spec.points, dtype=torch.float64)
    rows = []
    jobs = [(kind, way) for kind in kinds for way in ("layer", "filter")]
    for (name, scale, directions, reduce), way in told(jobs, "curve"):
        table = torch.stack(
            [
                torch.stack(list(_curve(net, search_space, nu, points, (x, y), attack, batch_size, seed)))
                for nu in (_normalised(d, search_space.weights, way, scale) for d in directions)
            ]
        ).cpu()
        spread = table.std(dim=0) if name == "random" and len(directions) > 1 else None
        for index, (s, value) in enumerate(zip(points.tolist(), reduce(table).tolist(), strict=True)):
            rows.append(
                {
                    "direction": name,
                    "normalisation": way,
                    "scale": scale,
                    "s": round(s, 12),
                    "rloss": value,
                    "rloss_std": None if spread is None else spread[index].item(),
                }
            )
    return rows


def _top_eigenvector(
    model: nn.Module, held_out: tuple[Tensor, Tensor], space: Neighborhood, batch_size: int, seed: int
) -> Direction:
    found = hessian_eigenvalues(model, *held_out, batch_size=batch_size, seed=derive_seed(seed, "hessian"))
    parts = dict(zip(found.vector, real_parts(list(found.vector.values())), strict=True))
    return [
        parts[name].to(weight) if name in parts else torch.zeros_like(weight)
        for name, weight in zip(space.names, space.weights, strict=True)
    ]


def _normalised(direction: Direction, weights: list[Tensor], way: str, scale: float) -> Direction:
    """`direction` with `scale` times the norms of `weights`; a part of norm 0 stays 0."""
    return [
        d / _norm(d, way).clamp(min=torch.finfo(d.dtype).tiny) * (scale * _norm(w, way))
        for d, w in zip(direction, weights, strict=True)
    ]


def _norm(tensor: Tensor, way: str) -> Tensor:
    if way == "layer" or tensor.ndim < 2:
        return tensor.norm()
    return torch.linalg.vector_norm(tensor, dim=tuple(range(1, tensor.ndim)), keepdim=True)


def _curve(
    net: Network,
    space: Neighborhood,
    nu: Direction,
    points: Tensor,
    data: tuple[Tensor, Tensor],
    attack: PGD,
    batch_size: int,
    seed: int,
) -> Iterator[Tensor]:
    """RLoss at w + s nu for every s."""
    for s in points.tolist():
        shifted = space.within_bound(torch._foreach_mul(nu, s))
        found = attack(net.at(space.at(shifted)), *data, batch_size, generator(seed, "landscape starts"))
        yield found.loss.double().mean()
