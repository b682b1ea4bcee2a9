"""Norms of the weights: capacity, not sharpness. The controls that a measure of sharpness has to beat."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robust_flatness.errors import UndefinedError
from robust_flatness.measures.objective import Estimate, norm
from robust_flatness.network import Network


def weight_norm(model: nn.Module) -> Estimate:
    r"""The norm of the weights, :math:`\|w\|_2`, over the tensors of the neighbourhood."""
    return Estimate(norm(list(Network.of(model).weights().values())).item())


def distance_from_init(model: nn.Module, initial: Mapping[str, Tensor]) -> Estimate:
    r"""The distance from the initial weights, :math:`\|w - w_0\|_2` (Neyshabur et al., NeurIPS 2017).

    `initial` holds w_0 by the names of the model's parameters.

    Raises
    ------
    ValueError
        If a tensor of the neighbourhood is missing in `initial` or has another shape.
    """
    weights = Network.of(model).weights()
    for name, weight in weights.items():
        if name not in initial or initial[name].shape != weight.shape:
            raise ValueError(f"initial: no tensor {name!r} of shape {tuple(weight.shape)}")
    return Estimate(norm([w - initial[name].to(w) for name, w in weights.items()]).item())


def spectral_product(model: nn.Module) -> Estimate:
    r"""The product of the layers' spectral norms, :math:`\prod_l \|W_l\|_2` (Neyshabur et al., ICLR 2018).

    W_l are the tensors of the neighbourhood with more than one dimension, as matrices [out, rest].

    Raises
    ------
    UndefinedError
        If there is no such tensor.
    """
    matrices = [w.flatten(1) for w in Network.of(model).weights().values() if w.ndim > 1]
    if not matrices:
        raise UndefinedError("model: no layer with a matrix of weights")
    logs = torch.stack([torch.linalg.matrix_norm(m.double(), ord=2).log() for m in matrices])
    return Estimate(logs.sum().exp().item())
