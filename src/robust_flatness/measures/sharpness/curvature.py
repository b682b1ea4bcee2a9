"""Curvature of the loss at w: the largest eigenvalue and the trace of its Hessian."""

import numpy as np
import torch
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from robust_flatness.errors import ConfigError
from robust_flatness.measures.objective import Estimate, Objective, dot, of_objective
from robust_flatness.measures.sharpness.block import DEFAULTS
from robust_flatness.measures.spectrum import Hessian
from robust_flatness.seeding import derive_seed, generator


@of_objective
def hessian_eigenvalue(objective: Objective, tolerance: float = 0.01, iterations: int = 300) -> Estimate:
    r"""The largest eigenvalue of :math:`\nabla_w^2 L(w)` (Keskar et al., ICLR 2017; Dinh et al., ICML 2017).

    By Lanczos' method to a relative accuracy of `tolerance`, in at most `iterations` restarts; if these do
    not suffice, the largest Ritz value is returned. The robust loss is taken at adversarial examples found at
    w and kept fixed. Not invariant: weights of a convolution before a batch norm scaled by s divide their
    block by s squared. No standard error. Parameters as in `Objective`.
    """
    hessian = _hessian(objective)
    start = np.random.default_rng(derive_seed(objective.seed, "lanczos")).standard_normal(hessian.shape[0])
    try:
        values = eigsh(hessian, k=1, which="LA", tol=tolerance, v0=start, maxiter=iterations,
                       return_eigenvectors=False)  # fmt: skip
    except ArpackNoConvergence as error:
        values = error.eigenvalues
        if not len(values):
            raise ConfigError(
                f"hessian_eigenvalue: not converged after {iterations} restarts; "
                "raise iterations or tolerance"
            ) from None
    return Estimate(float(values.max()))


@of_objective
def hessian_trace(objective: Objective, samples: int = DEFAULTS.vectors) -> Estimate:
    r"""The trace of :math:`\nabla_w^2 L(w)` by Hutchinson's estimator (Keskar et al. 2017, Dinh et al. 2017).

    .. math:: \mathrm{Tr}\,H \approx \tfrac1S \sum_s v_s^\top H v_s,\quad v_s \in \{-1, 1\}^P

    with `samples` Rademacher vectors; the standard error is over them. Otherwise as `hessian_eigenvalue`.
    """
    hessian, values = _hessian(objective), []
    for sample in range(samples):
        stream = generator(objective.seed, "hutchinson", sample)
        vector = [
            torch.randint(2, w.shape, generator=stream).mul_(2).sub_(1).to(w.device, w.dtype)
            for w in objective.weights
        ]
        values.append(dot(vector, hessian.product(vector)))
    return Estimate.mean(torch.stack(values))


def _hessian(objective: Objective) -> Hessian:
    return Hessian(objective.unfolded, objective.names, objective.inputs, objective.y, objective.batch_size)
