"""Curvature of the loss at w: the largest eigenvalue and the trace of its Hessian."""

import numpy as np
import torch
from torch import Tensor, nn

from robust_flatness.derivatives import twice_differentiable
from robust_flatness.errors import ConfigError
from robust_flatness.seeding import derive_seed, generator
from robust_flatness.sharpness.base import Loss, Objective, SharpnessResult, dot


def hessian_eigenvalue(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss = "ce",
    batch_size: int = 128,
    seed: int = 0,
    tolerance: float = 0.01,
    iterations: int = 300,
) -> SharpnessResult:
    r"""The largest eigenvalue of :math:`\nabla_w^2 L(w)` (Keskar et al., ICLR 2017; Dinh et al., ICML 2017).

    By Lanczos' method to a relative accuracy of `tolerance`, in at most `iterations` restarts; if these do
    not suffice, the largest Ritz value is returned. The robust loss is taken at adversarial examples found
    at w and kept fixed. Not invariant: weights of a convolution before a batch norm scaled by s divide its
    block by s squared. No standard error. Parameters as in `Objective`.
    """
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    objective = Objective(model, x, y, loss, batch_size, seed)
    size = sum(w.numel() for w in objective.weights)

    def product(vector: np.ndarray) -> np.ndarray:
        pieces = _pieces(torch.from_numpy(np.ascontiguousarray(vector.ravel())), objective)
        found = hessian_product(objective, pieces)
        return torch.cat([piece.double().flatten() for piece in found]).cpu().numpy()

    if size == 1:
        return SharpnessResult(float(product(np.ones(1))[0]))
    start = np.random.default_rng(derive_seed(seed, "lanczos")).standard_normal(size)
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    try:
        values = eigsh(operator, k=1, which="LA", tol=tolerance, v0=start, maxiter=iterations,
                       return_eigenvectors=False)  # fmt: skip
    except ArpackNoConvergence as error:
        values = error.eigenvalues
        if not len(values):
            raise ConfigError(
                f"hessian_eigenvalue: not converged after {iterations} restarts; "
                "raise iterations or tolerance"
            ) from None
    return SharpnessResult(float(values.max()))


def hessian_trace(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: Loss = "ce",
    batch_size: int = 128,
    seed: int = 0,
    samples: int = 20,
) -> SharpnessResult:
    r"""The trace of :math:`\nabla_w^2 L(w)` by Hutchinson's estimator (Keskar et al. 2017, Dinh et al. 2017).

    .. math:: \mathrm{Tr}\,H \approx \tfrac1S \sum_s v_s^\top H v_s,\quad v_s \in \{-1, 1\}^P

    with `samples` Rademacher vectors; the standard error is over them. Otherwise as `hessian_eigenvalue`.
    """
    objective = Objective(model, x, y, loss, batch_size, seed)
    values = []
    for sample in range(samples):
        stream = generator(seed, "hutchinson", sample)
        vector = [
            torch.randint(2, w.shape, generator=stream).mul_(2).sub_(1).to(w.device, w.dtype)
            for w in objective.weights
        ]
        values.append(dot(vector, hessian_product(objective, vector)))
    return SharpnessResult.mean(torch.stack(values))


def hessian_product(objective: Objective, vector: list[Tensor]) -> list[Tensor]:
    """The Hessian of the mean loss at w times `vector`, by differentiating <gradient, vector>."""
    leaves = [w.detach().requires_grad_(True) for w in objective.weights]
    total = [torch.zeros_like(w) for w in leaves]
    with torch.enable_grad(), twice_differentiable():
        for part in objective.parts:
            loss = objective.fixed(leaves, part).sum() / len(objective.x)
            first = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
            second = torch.autograd.grad(dot(first, vector), leaves, materialize_grads=True)
            torch._foreach_add_(total, second)
    return total


def _pieces(flat: Tensor, objective: Objective) -> list[Tensor]:
    parts = flat.split([w.numel() for w in objective.weights])
    return [part.view(w.shape).to(w) for part, w in zip(parts, objective.weights, strict=True)]
