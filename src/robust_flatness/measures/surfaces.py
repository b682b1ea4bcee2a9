"""The loss on lines and planes in weight space."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robust_flatness.attacks.pgd import PGD, Loss, checked
from robust_flatness.config.measures import BATCH_SIZE
from robust_flatness.errors import ConfigError
from robust_flatness.measures.base import LOSSES, Record, pgd
from robust_flatness.measures.cases import joint_ascent
from robust_flatness.measures.flatness import WORST
from robust_flatness.measures.landscape import CURVES, LandscapeSettings
from robust_flatness.measures.losses import clean_losses
from robust_flatness.measures.neighborhood import Neighborhood
from robust_flatness.measures.spectrum import hessian_eigenvalues
from robust_flatness.network import Network
from robust_flatness.runtime.isolation import isolated
from robust_flatness.runtime.progress import track
from robust_flatness.seeding import derive_seed, generator

#: Smallest variance along the second axis, relative to the first, of snapshots that span a plane.
FLAT = 1e-10


@isolated()
def loss_landscape(
    model: nn.Module, x: Tensor, y: Tensor, *, settings: LandscapeSettings, held_out: tuple[Tensor, Tensor],
    seed: int = 0, weight_bound: float | None = None, loss: Loss | None = None,
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
    net, x, y, loss = checked(model, x, y, loss)
    points = torch.linspace(-1, 1, settings.points, dtype=torch.float64).tolist()
    attack, records = pgd(settings.attack, settings.precision), []
    space = Neighborhood(net, settings.adversarial_scale, weight_bound)
    start = attack.start(x, generator(seed, "adversarial", "starts"))
    top = hessian_eigenvalues(net, *held_out, seed=derive_seed(seed, "hessian"), loss=loss).vector
    drawn = [space.directions(generator(seed, "random", i)) for i in range(settings.random_directions)]
    found = [space.in_ball(generator(seed, "adversarial", i)) for i in range(settings.adversarial_directions)]
    for nu in found:
        budget = (settings.adversarial_steps, WORST.weight_step, attack.precision)
        joint_ascent(net, space, x, y, start, [slice(None)], nu, attack, *budget, loss)
    largest = [top.get(name, torch.zeros_like(w)) for name, w in net.weights().items()]
    directions = {"random": drawn, "adversarial": found, "hessian": [largest]}
    for (way, part), name in track(CURVES.items(), "curve"):
        scale = getattr(settings, f"{way}_scale")
        table = torch.empty(len(directions[way]), len(points), dtype=torch.float64)
        for row, direction in zip(table, directions[way], strict=True):
            nu = normalised(direction, space.weights, part, scale)
            for index, s in enumerate(points):
                shifted = space.at(space.within_bound(torch._foreach_mul(nu, s)))
                starts = generator(seed, "landscape starts")
                row[index] = attack(net.at(shifted), x, y, BATCH_SIZE, starts, loss).loss.double().mean()
        curves = {name: table.amax(0) if way == "adversarial" else table.mean(0)}
        if way == "random" and len(table) > 1:
            curves[f"{name}_std"] = table.std(0)
        where = {"loss": "rloss", "split": "test", **settings.attack.ball, "xi": scale, "n": len(x)}
        for index, s in enumerate(points):
            at = where | {"coordinate": round(s, 12)}
            records += [Record(metric, values[index].item(), **at) for metric, values in curves.items()]
    return records


def normalised(direction: list[Tensor], weights: list[Tensor], part: str, scale: float) -> list[Tensor]:
    """Return `direction` rescaled to `scale` times the norms of `weights` per `part`; norms of 0 stay 0."""
    pairs = zip(direction, weights, strict=True)
    return [d / _norm(d, part).clamp(min=1e-37) * (scale * _norm(w, part)) for d, w in pairs]


def _norm(tensor: Tensor, part: str) -> Tensor:
    if part == "layer" or tensor.ndim < 2:
        return tensor.norm()
    return tensor.flatten(1).norm(dim=1).view(-1, *[1] * (tensor.ndim - 1))


def random_directions(net: Network, seed: int) -> list[dict[str, Tensor]]:
    """Return two Gaussian directions as tensors by name, scaled to the norm of each filter of the weights."""
    space = Neighborhood(net, 1.0)
    drawn = (space.directions(generator(seed, "random", number)) for number in range(2))
    scaled = (normalised(direction, space.weights, "filter", 1.0) for direction in drawn)
    return [dict(zip(space.names, direction, strict=True)) for direction in scaled]


class PrincipalPlane(NamedTuple):
    """The plane through w along two orthonormal `directions`, tensors by name. `coordinates` [m, 2] are those
    of the snapshots projected onto it, `explained` [2] the shares of variance along the directions."""

    directions: list[dict[str, Tensor]]
    coordinates: Tensor
    explained: Tensor


def principal_plane(
    weights: Mapping[str, Tensor], snapshots: Sequence[Mapping[str, Tensor]]
) -> PrincipalPlane:
    r"""Return the plane through w along the first two principal components of m snapshots and w.

    (Li et al., NeurIPS 2018, Sec. 7.) The components are those of the differences :math:`w_i - w`, including
    0 for w itself, so that w and two snapshots give the plane through all three. They follow from the matrix
    of inner products :math:`\langle w_i - w, w_j - w\rangle`, [m, m], in float64. Signs make the coordinate
    of largest magnitude positive.

    `weights` are the tensors by name to which the plane belongs, those of `perturbed_parameters` for example;
    `snapshots` hold at least these names each. Raises `ConfigError` if a name is missing, a tensor is of
    integers (such as counters of batch norms), or w and the snapshots lie on a line.
    """
    whole = [name for name, w in weights.items() if not w.is_floating_point()]
    missing = [name for name in weights for snapshot in snapshots if name not in snapshot]
    if whole or missing:
        problem = "integer" if whole else "not in every snapshot"
        raise ConfigError(f"weights: {(whole or missing)[0]!r} is {problem}")

    def differences(name: str) -> Tensor:
        w = weights[name].detach()
        return torch.stack([(snapshot[name].detach().to(w) - w).flatten() for snapshot in snapshots]).double()

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


@isolated()
def loss_plane(
    model: nn.Module, x: Tensor, y: Tensor, *, directions: Sequence[Mapping[str, Tensor]],
    points: Sequence[tuple[float, float]], attack: PGD, adversarial: str = "anew",
    seed: int = 0, weight_bound: float | None = None, loss: Loss | None = None,
) -> dict[str, list[float]]:  # fmt: skip
    r"""Compute clean loss and RLoss at :math:`w + a\,d_1 + b\,d_2` for each (a, b) in `points`.

    `directions` are :math:`d_1, d_2`, tensors by name; parameters that are not perturbed, such as those of
    normalisation layers, keep their values. RLoss is computed by `attack` at each point, from the same
    starts, or with `adversarial="fixed"` on the adversarial examples found at w. `weight_bound` and `loss` as
    in `average_flatness`. Returns lists in the order of `points`: `ce` and `rloss`. Raises `ConfigError` if
    the directions do not fit the weights.
    """
    if adversarial not in ("anew", "fixed"):
        raise ConfigError(f"adversarial: {adversarial!r} given; expected 'anew' or 'fixed'")
    net, x, y, loss = checked(model, x, y, loss)
    space = Neighborhood(net, 1.0, weight_bound)
    shapes = {name: weight.shape for name, weight in zip(space.names, space.weights, strict=True)}
    for direction in directions:
        if wrong := [n for n, shape in shapes.items() if n not in direction or direction[n].shape != shape]:
            expected = f"a tensor of shape {tuple(shapes[wrong[0]])} at {wrong[0]!r}"
            raise ConfigError(f"directions: expected {expected}; zeros where a parameter does not move")
    first, second = ([direction[name] for name in space.names] for direction in directions)

    def attacked(network: Network) -> Tensor:
        return attack(network, x, y, BATCH_SIZE, generator(seed, "starts"), loss).x_adv

    inputs = attacked(net)
    values: dict[str, list[float]] = {name: [] for name in LOSSES}
    for a, b in track(points, "point of the plane"):
        nu = torch._foreach_add(torch._foreach_mul(first, a), second, alpha=b)
        network = net.at(space.at(space.within_bound(list(nu))))
        if adversarial == "anew":
            inputs = attacked(network)
        for name, images in (("ce", x), ("rloss", inputs)):
            losses, _ = clean_losses(network, images, y, BATCH_SIZE, loss)
            values[name].append(losses.double().mean().item())
    return values
