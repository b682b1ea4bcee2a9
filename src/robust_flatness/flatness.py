"""Flatness of the loss around a network's weights."""

from torch import nn

from robust_flatness.measures.cases import FlatnessResult, average_flatness, worst_flatness
from robust_flatness.measures.neighborhood import Neighborhood
from robust_flatness.measures.scaling import scale_convolutions
from robust_flatness.measures.spectrum import HessianResult, hessian_eigenvalues
from robust_flatness.measures.surfaces import PrincipalPlane, loss_landscape, loss_plane, principal_plane
from robust_flatness.network import Network

__all__ = [
    "FlatnessResult", "HessianResult", "Neighborhood", "PrincipalPlane", "average_flatness",
    "hessian_eigenvalues", "loss_landscape", "loss_plane", "perturbed_parameters", "principal_plane",
    "scale_convolutions", "worst_flatness",
]  # fmt: skip


def perturbed_parameters(model: nn.Module) -> list[str]:
    """Return the names of the perturbable parameters, each a layer of its own (see `Network.layers`)."""
    return Network.of(model).layers
