"""Norms of the weights, controls that a measure of sharpness has to beat, and the margin of the logits."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robust_flatness.errors import UndefinedError
from robust_flatness.measures.objective import Estimate, Objective, norm, of_objective
from robust_flatness.network import Network
from robust_flatness.seeding import generator


@of_objective
def margin(objective: Objective, percentile: float = 10.0, resamples: int = 200) -> Estimate:
    r"""A percentile of the margin :math:`z_y - \max_{k \ne y} z_k` (as in Kim et al., NeurIPS 2023).

    z are the logits of x or, in the robust loss, of the adversarial example of highest loss. Larger is
    better: rankings of sharpness reverse its sign. The standard error is a bootstrap's over examples.
    """
    y = objective.y[:, None]
    with torch.no_grad():
        logits = torch.cat([objective.unfolded.logits(objective.inputs[part]) for part in objective.parts])
    others = logits.scatter(1, y, -torch.inf).amax(1)
    margins = (logits.gather(1, y)[:, 0] - others).double().cpu()
    drawn = torch.randint(len(y), (resamples, len(y)), generator=generator(objective.seed, "margin"))
    spread = margins[drawn].quantile(percentile / 100, dim=1).std().item()
    return Estimate(margins.quantile(percentile / 100).item(), spread)


def weight_norm(model: nn.Module) -> Estimate:
    r"""The norm of the weights, :math:`\|w\|_2`, over the tensors of the neighbourhood."""
    return Estimate(norm(list(Network.of(model).weights().values())).item())


def distance_from_init(model: nn.Module, initial: Mapping[str, Tensor]) -> Estimate:
    r"""The distance from the initial weights, :math:`\|w - w_0\|_2` (Neyshabur et al., NeurIPS 2017).

    `initial` holds w_0 by the names of the model's parameters. Raises `ValueError` if a tensor of the
    neighbourhood is missing in it or has another shape.
    """
    weights = Network.of(model).weights()
    for name, weight in weights.items():
        if name not in initial or initial[name].shape != weight.shape:
            raise ValueError(f"initial: no tensor {name!r} of shape {tuple(weight.shape)}")
    return Estimate(norm([w - initial[name].to(w) for name, w in weights.items()]).item())


def spectral_product(model: nn.Module) -> Estimate:
    r"""The product of the layers' spectral norms, :math:`\prod_l \|W_l\|_2` (Neyshabur et al., ICLR 2018).

    W_l are the tensors of the neighbourhood with more than one dimension, as matrices [out, rest]. Raises
    `UndefinedError` if there is none.
    """
    matrices = [w.flatten(1) for w in Network.of(model).weights().values() if w.ndim > 1]
    if not matrices:
        raise UndefinedError("model: no layer with a matrix of weights")
    logs = torch.stack([torch.linalg.matrix_norm(m.double(), ord=2).log() for m in matrices])
    return Estimate(logs.sum().exp().item())
