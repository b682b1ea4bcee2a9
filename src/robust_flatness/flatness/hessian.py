"""Extreme eigenvalues of the Hessian of the clean loss."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robust_flatness.attacks.pgd import batches, cross_entropy
from robust_flatness.derivatives import twice_differentiable
from robust_flatness.errors import ConfigError, NonFiniteError, warn
from robust_flatness.flatness.neighborhood import real_parts
from robust_flatness.flatness.spectrum import extremes
from robust_flatness.inputs import check_classes, checked_inputs, require_finite, require_positive
from robust_flatness.network import Network
from robust_flatness.runtime.isolation import isolated
from robust_flatness.runtime.progress import counted
from robust_flatness.seeding import derive_seed

#: Up to so many units of rounding a loss is near 0.
NEAR_ZERO = 100
#: Graphs of the gradient are kept for all products if they take at most so many bytes.
KEPT_BYTES = 2**31


@dataclass(frozen=True)
class HessianResult:
    """Eigenvalues at both ends of the spectrum.

    Attributes
    ----------
    eigenvalues
        Those computed, ascending: half of them the smallest, half the largest.
    vector
        Eigenvector of the largest one, unit norm, by parameter name.
    residuals
        ||H v - lambda v|| of each, at most so far is the next eigenvalue of H.
    converged
        Whether each eigenvalue met the relative tolerance. Where one did not (an end of the spectrum
        at 0), its error is at most the tolerance times the largest eigenvalue.
    """

    eigenvalues: np.ndarray
    vector: dict[str, Tensor]
    residuals: np.ndarray
    converged: bool = True

    @property
    def largest(self) -> float:
        return float(self.eigenvalues[-1])

    @property
    def smallest(self) -> float:
        return float(self.eigenvalues[0])

    @property
    def convexity(self) -> float:
        """|lambda_min| / |lambda_max|: 0 in a convex region; 0 if both are."""
        return abs(self.smallest) / abs(self.largest) if self.smallest else 0.0


@isolated()
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

    In evaluation mode, with respect to the parameters of the neighbourhood with more than one
    dimension (Stutz et al. 2021, Sec. 3.4). Not invariant to a rescaling of layers: scaling all
    convolutions of a network with batch norm by s divides their block of the Hessian by s squared.

    Products with the Hessian are gradients of gradients, which all layers have. Small matrices
    (up to 256 weights) are computed as a whole.

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
    ConfigError
        If an argument is out of range, no parameter has more than one dimension, or the Hessian is
        not finite.
    """
    require_positive(batch_size=batch_size)
    x, y = checked_inputs(x, y)
    # all along: checkpointed layers are run again in the backward pass
    net = Network.of(model, x[:2])
    with twice_differentiable():
        check_classes(y, net.classes)
        product = HessianProduct(net, x, y, batch_size)
        if not 2 <= k < product.size:
            raise ConfigError(
                f"k: {k} given; allowed are 2 to {product.size - 1}, below the number of weights"
            )
        if not tolerance > 0:
            raise ConfigError(f"tolerance: {tolerance} given, but it must be > 0")
        if True:
            start = np.random.default_rng(derive_seed(seed, "lanczos")).standard_normal(product.size)
            values, vectors, converged = extremes(product, k, tolerance, start, product.rounded)
            residuals = [np.linalg.norm(product(v) - a * v) for a, v in zip(values, vectors.T, strict=True)]
    if not converged:
        _warn(values, tolerance)
    return HessianResult(values, product.by_name(vectors[:, -1]), np.array(residuals, float), converged)


class HessianProduct:
    """v -> H v for vectors of `size` numbers, H the Hessian of the mean loss.

    `rounded` tells whether that is so near to 0 that its derivatives are hardly known.
    """

    def __init__(self, net: Network, x: Tensor, y: Tensor, batch_size: int):
        weights = {name: weight for name, weight in net.weights().items() if weight.ndim > 1}
        self.x, self.y, self.names = x, y, list(weights)
        if not self.names:
            raise ConfigError(
                "model: no parameters with more than one dimension, besides those of normalisation layers"
            )
        self.leaves = [weight.requires_grad_(True) for weight in weights.values()]
        self.net, self.values = net, weights
        self.parts = list(batches(len(x), batch_size))
        self.shapes = [p.shape for p in real_parts(self.leaves)]
        self.size = sum(shape.numel() for shape in self.shapes)
        self.dtype = np.float64 if self.leaves[0].dtype == torch.float64 else np.float32
        self.rounded = False
        self._kept: list[list[Tensor]] | None = None
        self._products = 0
        first, taken = self._measured_gradient()
        if taken * len(self.parts) <= KEPT_BYTES:
            self._kept = [first, *(self._gradient(part) for part in self.parts[1:])]

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        self._products += 1
        counted("product", self._products)
        pieces = self._split(vector)
        total = [torch.zeros_like(leaf) for leaf in self.leaves]
        for index, part in enumerate(self.parts):
            gradient = self._kept[index] if self._kept is not None else self._gradient(part)
            inner = sum((a * b).sum() for a, b in zip(real_parts(gradient), real_parts(pieces), strict=True))
            if inner.requires_grad:
                found = torch.autograd.grad(
                    inner, self.leaves, retain_graph=self._kept is not None, materialize_grads=True
                )
                torch._foreach_add_(total, found)
        total = real_parts(total)
        flat = torch.cat([t.detach().flatten() for t in total]).cpu().to(torch.float64).numpy()
        if not np.isfinite(flat).all():
            raise NonFiniteError("model: the Hessian of its clean loss is NaN or infinite")
        return flat.astype(self.dtype)

    def by_name(self, vector: np.ndarray) -> dict[str, Tensor]:
        """`vector` in the shapes of the parameters."""
        return dict(zip(self.names, self._split(vector), strict=True))

    def _split(self, vector: np.ndarray) -> list[Tensor]:
        flat = torch.from_numpy(np.ascontiguousarray(vector, self.dtype)).to(self.x.device)
        pieces = flat.split([shape.numel() for shape in self.shapes])
        shaped = [
            piece.view(shape).to(leaf.real.dtype)
            for piece, shape, leaf in zip(pieces, self.shapes, self.leaves, strict=True)
        ]
        return [
            torch.view_as_complex(piece.contiguous()) if leaf.is_complex() else piece
            for piece, leaf in zip(shaped, self.leaves, strict=True)
        ]

    def _gradient(self, part: slice) -> list[Tensor]:
        logits = self.net.at(self.values).logits(self.x[part])
        require_finite(logits, "on clean inputs", part.start)
        losses = cross_entropy(logits, self.y[part])
        if part.start == 0:
            self.rounded = losses.mean().item() < NEAR_ZERO * torch.finfo(losses.dtype).eps
        if not losses.requires_grad:
            raise ConfigError("model: no gradient comes to its weights; it has no Hessian")
        return list(
            torch.autograd.grad(
                losses.sum() / len(self.x), self.leaves, create_graph=True, materialize_grads=True
            )
        )

    def _measured_gradient(self) -> tuple[list[Tensor], int]:
        """The gradient of the first batch, and the bytes that its graph takes."""
        taken: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            taken[tensor.data_ptr()] = tensor.nbytes
            return tensor

        try:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                return self._gradient(self.parts[0]), sum(taken.values())
        except RuntimeError:  # a network that calls torch.func itself takes no hooks
            return self._gradient(self.parts[0]), KEPT_BYTES + 1


def _warn(values: np.ndarray, tolerance: float) -> None:
    warn(
        f"Hessian: eigenvalues near 0 are known to {tolerance:g} of the largest ({values[-1]:.3g}), not of "
        "themselves"
    )
