"""Extreme eigenvalues of the Hessian of the clean loss."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robust_flatness.attacks.pgd import batches, check_inputs
from robust_flatness.models.layers import with_affine_norms
from robust_flatness.models.tracing import evaluation_copy
from robust_flatness.seeding import derive_seed


@dataclass(frozen=True)
class HessianResult:
    """Eigenvalues at both ends of the spectrum.

    Attributes
    ----------
    eigenvalues
        Those computed, ascending: half of them the smallest, half the largest.
    vector
        Eigenvector of the largest one, unit norm, by parameter name.
    """

    eigenvalues: np.ndarray
    vector: dict[str, Tensor]

    @property
    def largest(self) -> float:
        return float(self.eigenvalues[-1])

    @property
    def smallest(self) -> float:
        return float(self.eigenvalues[0])

    @property
    def convexity(self) -> float:
        """|lambda_min| / |lambda_max|: 0 in a convex region."""
        return abs(self.smallest) / abs(self.largest)


def hessian_eigenvalues(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    k: int = 4,
    tolerance: float = 0.01,
    batch_size: int = 128,
    seed: int = 0,
) -> HessianResult:
    r"""Extreme eigenvalues of :math:`\nabla_w^2 \tfrac1n\sum_i L(f(x_i; w), y_i)` by Lanczos' method.

    In evaluation mode, with respect to the parameters with more than one dimension (Stutz et al.
    2021, Sec. 3.4). Not invariant to a rescaling of layers: scaling all convolutions of a network
    with batch norm by s divides their block of the Hessian by s squared.

    Parameters
    ----------
    model
        Inputs [n, ...] to logits [n, K]; not changed.
    x, y
        Inputs and labels.
    k
        Number of eigenvalues, half of them from each end of the spectrum.
    tolerance
        Relative accuracy.
    batch_size
        Examples per pass.
    seed
        Source of the start vector.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    check_inputs(x, y)
    network = with_affine_norms(evaluation_copy(model))
    parameters = {name: p for name, p in network.named_parameters() if p.ndim > 1}
    size = sum(p.numel() for p in parameters.values())
    if not 2 <= k < size:
        raise ValueError(f"k: {k} given; allowed are 2 to {size - 1}, below the number of weights")
    if not tolerance > 0:
        raise ValueError(f"tolerance: {tolerance} given, but it must be > 0")
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    start = np.random.default_rng(derive_seed(seed, "lanczos")).standard_normal(size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the libraries' own code, on first use
        from curvlinops import HessianLinearOperator
        from scipy.sparse.linalg import eigsh  # here: 0.4 s of start-up that other measures need not pay

        operator = HessianLinearOperator(
            network,
            nn.CrossEntropyLoss(reduction="mean"),
            list(parameters.values()),
            [(x[part], y[part]) for part in batches(len(x), batch_size)],
            check_deterministic=False,
        ).to_scipy()
        values, vectors = eigsh(operator, k=k, which="BE", tol=tolerance, v0=start.astype(operator.dtype))
    order = np.argsort(values)
    top = torch.from_numpy(np.ascontiguousarray(vectors[:, order[-1]])).to(x.device)
    pieces = top.split([p.numel() for p in parameters.values()])
    vector = {
        name: piece.view(parameters[name].shape).to(parameters[name].dtype)
        for name, piece in zip(parameters, pieces, strict=True)
    }
    return HessianResult(values[order].astype(float), vector)
