"""Extreme eigenvalues of the Hessian of the clean loss."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn import functional as F

from robust_flatness.attacks.pgd import batches, check_inputs
from robust_flatness.models.inference import InferenceModel
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
    product = HessianProduct(InferenceModel(model, x[:2]), x, y, batch_size)
    if not 2 <= k < product.size:
        raise ValueError(f"k: {k} given; allowed are 2 to {product.size - 1}, below the number of weights")
    if not tolerance > 0:
        raise ValueError(f"tolerance: {tolerance} given, but it must be > 0")
    start = np.random.default_rng(derive_seed(seed, "lanczos")).standard_normal(product.size)
    operator = LinearOperator((product.size,) * 2, matvec=product, dtype=start.astype(product.dtype).dtype)
    values, vectors = eigsh(operator, k=k, which="BE", tol=tolerance, v0=start.astype(operator.dtype))
    order = np.argsort(values)
    return HessianResult(values[order].astype(float), product.by_name(vectors[:, order[-1]]))


class HessianProduct:
    r"""The product :math:`v \mapsto \nabla_w^2 \tfrac1n\sum_i L(f(x_i; w), y_i)\, v` by two backward passes.

    For the parameters with more than one dimension. The network computes with folded weights
    W' = a W (see `InferenceModel`), linear in W, so that its Hessian is a H' a.
    """

    def __init__(self, net: InferenceModel, x: Tensor, y: Tensor, batch_size: int):
        self.net, self.x, self.y = net, x, y
        self.parts = list(batches(len(x), batch_size))
        shapes = {name: p.shape for name, p in net.network.named_parameters() if p.ndim > 1}
        self.names, self.shapes = list(shapes), list(shapes.values())
        self.sizes = [shape.numel() for shape in self.shapes]
        self.size = sum(self.sizes)
        self.dtype = np.dtype(str(x.dtype).removeprefix("torch."))

    def by_name(self, vector: np.ndarray) -> dict[str, Tensor]:
        """A vector of length `size` cut into tensors of the parameters' shapes."""
        pieces = torch.from_numpy(vector.astype(self.dtype)).to(self.x.device).split(self.sizes)
        return {
            name: piece.view(shape)
            for name, piece, shape in zip(self.names, pieces, self.shapes, strict=True)
        }

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """The product with `vector`, of length `size`."""
        net = self.net
        scaled = net.pull_back(self.names, list(self.by_name(vector.ravel()).values()))
        total = [torch.zeros_like(v) for v in scaled]
        try:
            leaves = net.leaves(self.names)
            for part in self.parts:
                loss = F.cross_entropy(net(self.x[part]), self.y[part], reduction="sum")
                gradients = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
                products = torch.autograd.grad(gradients, leaves, scaled, materialize_grads=True)
                torch._foreach_add_(total, list(products))
        finally:
            net.release()
        result = net.pull_back(self.names, total)
        return torch.cat([t.reshape(-1) for t in result]).div(len(self.x)).cpu().numpy()
