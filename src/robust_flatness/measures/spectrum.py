"""The Hessian of the mean loss as a linear operator, its extreme eigenvalues, and Lanczos quadrature."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from robust_flatness.attacks.pgd import Loss, batches, checked, cross_entropy
from robust_flatness.errors import ConfigError, NonFiniteError, warn
from robust_flatness.inputs import require_finite
from robust_flatness.measures.hessian import DEFAULTS
from robust_flatness.network import Network
from robust_flatness.runtime.isolation import isolated
from robust_flatness.seeding import derive_seed

#: Maximum size in bytes of gradient graphs that are kept and reused for all products.
KEPT_BYTES = 2**31
#: Relative asymmetry of the products above which a warning is issued.
ASYMMETRIC = 0.01
#: Restarts of Lanczos' method, each about 16 products, before the tolerance is relaxed.
RESTARTS = 100
#: Off-diagonal elements below this share of the largest element end Lanczos' method: the space is invariant.
INVARIANT = 1e-10


class _WeightNorm(TorchFunctionMode):
    """Mode in which weight norm, g v / ||v||, is computed by elementary operations."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch._weight_norm:
            v, g, dim = (*args, *(kwargs or {}).values())
            return v * (g / torch.norm_except_dim(v, 2, dim))
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Use implementations of attention, recurrent layers and weight norm with correct second derivatives:
    fused attention and cuDNN have none, those of torch's fused weight norm are wrong (torch 2.14)."""
    with sdpa_kernel(SDPBackend.MATH), torch.backends.cudnn.flags(enabled=False), _WeightNorm():
        yield


def dot(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Return the inner product of two lists of tensors, each flattened to one vector."""
    return sum((a * b).sum() for a, b in zip(first, second, strict=True))


class Hessian(LinearOperator):
    r"""The matrix :math:`\nabla_w^2 \tfrac1n\sum_i L(f(x_i; w), y_i)`, [P, P], as a linear operator.

    A product Hv is the gradient of :math:`\langle \nabla_w L, v \rangle`. P is the number of weights in the
    layers `names`. The graphs of the gradient are kept where they fit into memory. Raises `ConfigError` if
    the loss does not depend differentiably on the weights, `NonFiniteError` if it is NaN or infinite.
    """

    def __init__(
        self, net: Network, names: Sequence[str], x: Tensor, y: Tensor, batch_size: int,
        loss: Loss = cross_entropy,
    ):  # fmt: skip
        self.loss, self.net, self.x, self.y, self.names = loss, net, x, y, list(names)
        self.weights = {name: w.requires_grad_(True) for name, w in net.weights(self.names).items()}
        self.leaves = list(self.weights.values())
        self.parts = list(batches(len(x), batch_size))
        size = sum(leaf.numel() for leaf in self.leaves)
        super().__init__(np.float64, (size, size))
        self._kept: list[list[Tensor]] = []
        with torch.enable_grad(), _twice_differentiable():
            first, taken = self._measured_gradient()
            if taken * len(self.parts) <= KEPT_BYTES:
                self._kept = [first, *(self._gradient(part) for part in self.parts[1:])]

    def product(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """Return H v; v and the result are lists of tensors in the shapes of the layers."""
        total = [torch.zeros_like(leaf) for leaf in self.leaves]
        # the backward pass runs checkpointed layers again
        with torch.enable_grad(), _twice_differentiable():
            for gradient in self._kept or map(self._gradient, self.parts):
                inner = dot(gradient, vector)
                if not inner.requires_grad:  # for a loss linear in the weights
                    continue
                options = {"retain_graph": bool(self._kept), "materialize_grads": True}
                try:
                    torch._foreach_add_(total, torch.autograd.grad(inner, self.leaves, **options))
                except RuntimeError as error:
                    if "not implemented" not in str(error):
                        raise
                    raise ConfigError(f"loss or model: no second derivative ({error})") from error
        return total

    def by_name(self, vector: np.ndarray) -> dict[str, Tensor]:
        """Return a vector [P] as tensors in the shapes of the layers, by name."""
        flat = torch.from_numpy(np.ascontiguousarray(vector.ravel())).to(self.x.device)
        pieces = flat.split([leaf.numel() for leaf in self.leaves])
        layers = zip(self.names, pieces, self.leaves, strict=True)
        return {name: piece.view(leaf.shape).to(leaf.dtype) for name, piece, leaf in layers}

    def _matvec(self, vector: np.ndarray) -> np.ndarray:
        pieces = self.product(list(self.by_name(vector).values()))
        flat = torch.cat([piece.flatten() for piece in pieces]).cpu().double().numpy()
        if not np.isfinite(flat).all():
            raise NonFiniteError("model: the Hessian of its loss is NaN or infinite")
        return flat

    def _gradient(self, part: slice) -> list[Tensor]:
        logits = self.net.at(self.weights).logits(self.x[part])
        require_finite(logits, "where the Hessian is taken", part.start)
        loss = self.loss(logits, self.y[part]).sum() / len(self.x)
        if not loss.requires_grad:
            raise ConfigError("model: its loss does not depend differentiably on the weights")
        return list(torch.autograd.grad(loss, self.leaves, create_graph=True, materialize_grads=True))

    def _measured_gradient(self) -> tuple[list[Tensor], int]:
        """Return the gradient of the first batch, and the size of its graph in bytes."""
        taken: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            taken[tensor.data_ptr()] = tensor.nbytes
            return tensor

        try:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                return self._gradient(self.parts[0]), sum(taken.values())
        except RuntimeError:  # hooks are not allowed in a network that calls torch.func
            return self._gradient(self.parts[0]), KEPT_BYTES + 1


@dataclass(frozen=True)
class HessianResult:
    """Extreme Hessian eigenvalues, ascending, half from each end of the spectrum. `vector` is the unit
    eigenvector of the largest by name; `convexity` is |lambda_min| / |lambda_max|, 0 if lambda_min is 0."""

    eigenvalues: np.ndarray
    vector: dict[str, Tensor]

    largest = property(lambda self: float(self.eigenvalues[-1]))
    smallest = property(lambda self: float(self.eigenvalues[0]))
    convexity = property(lambda self: abs(self.smallest) / abs(self.largest) if self.smallest else 0.0)


@isolated()
def hessian_eigenvalues(
    model: nn.Module, x: Tensor, y: Tensor, k: int = DEFAULTS.eigenvalues,
    tolerance: float = DEFAULTS.tolerance, batch_size: int = DEFAULTS.batch_size, seed: int = 0,
    loss: Loss | None = None,
) -> HessianResult:  # fmt: skip
    r"""Compute extreme eigenvalues of :math:`\nabla_w^2 \tfrac1n\sum_i L(f(x_i; w), y_i)` by Lanczos' method.

    The network is in evaluation mode; w are the perturbable parameters with more than one dimension (Stutz et
    al. 2021, Sec. 3.4). Of the `k` eigenvalues, half are from each end of the spectrum. `tolerance` is their
    relative accuracy; a warning is issued if one near 0 misses it, whose error is then at most the tolerance
    times the largest eigenvalue. `seed` is that of the start vector, and `loss` twice differentiable. All
    other parameters are those of `average_flatness`.

    Not invariant to rescaling of layers: scaling all convolutions of a network with batch norm by s divides
    their block of the Hessian by s squared. Raises `ConfigError` if an argument is out of range, no parameter
    has more than one dimension, or the Hessian is not finite.
    """
    net, x, y, loss = checked(model, x, y, loss)
    names = [name for name, weight in net.weights().items() if weight.ndim > 1]
    if not names:
        raise ConfigError("model: no weights of more than one dimension, besides normalisation layers")
    hessian = Hessian(net, names, x, y, batch_size, loss)
    size = hessian.shape[0]
    if not 2 <= k < size:
        raise ConfigError(f"k: {k} given; allowed are 2 to {size - 1}, below the number of weights")
    start = np.random.default_rng(derive_seed(seed, "lanczos")).standard_normal(size)
    values, vectors = extreme_eigenvalues(hessian, k, tolerance, start)
    return HessianResult(values, hessian.by_name(vectors[:, -1]))


def extreme_eigenvalues(
    hessian: LinearOperator, k: int, tolerance: float, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k // 2 smallest and k - k // 2 largest eigenvalues, ascending, and their eigenvectors as
    columns [P, k]. Lanczos' method starts from the vector `start`. At an end of the spectrum near 0, which
    meets no relative tolerance, eigenvalues are accurate to the tolerance times the largest (warning)."""
    image = hessian @ start
    if not image.any():
        return np.zeros(k), np.eye(len(start), k)
    there, back = image @ image, start @ (hessian @ image)  # equal for a symmetric matrix
    if (share := abs(there - back) / max(abs(there), abs(back))) > ASYMMETRIC:
        warn(f"Hessian: its products are asymmetric by {100 * share:.0f} % (rounding, or a wrong gradient)")
    try:
        values, vectors = eigsh(hessian, k, which="BE", tol=tolerance, v0=start, maxiter=RESTARTS)
    except ArpackError:
        # shifted by more than the spectral radius, both ends become large positive eigenvalues
        (bound,), _ = eigsh(hessian, 1, which="LM", tol=tolerance, v0=start)
        shift, ends = 2 * abs(float(bound)), []
        for sign, count in ((-1, k // 2), (1, k - k // 2)):
            shifted = LinearOperator(
                hessian.shape, lambda v, sign=sign: sign * (hessian @ v) + shift * v, dtype=hessian.dtype
            )
            values, vectors = eigsh(shifted, count, which="LA", tol=tolerance / 10, v0=start)
            ends.append((sign * (values - shift), vectors))
        values, vectors = (np.concatenate(pair, axis=-1) for pair in zip(*ends, strict=True))
        largest = f"{tolerance:g} of the largest ({values.max():.3g})"
        warn(f"Hessian: eigenvalues near 0 are known to {largest} only")
    order = np.argsort(values)
    return values[order], vectors[:, order]


def lanczos(operator: LinearOperator, start: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Return nodes (Ritz values) and weights, [m] each, of Gauss quadrature for `start`'s spectral measure.

    For :math:`H = Q \Lambda Q^\top` and v = start / ||start||, :math:`v^\top f(H) v = \sum_i (Q^\top v)_i^2
    f(\lambda_i) \approx \sum_j \omega_j f(\theta_j)`, exact for polynomials f up to degree 2 m - 1 (Golub and
    Welsch 1969). The nodes are the eigenvalues of the tridiagonal matrix of m steps of Lanczos' method, the
    weights the squared first elements of its eigenvectors. All vectors are kept, in the dtype of `start`, and
    each new one is orthogonalised against them twice. m is `steps`, or less if the Krylov space becomes
    invariant; the quadrature is then exact.
    """
    basis = np.empty((min(steps, len(start)), len(start)), start.dtype)
    diagonal, off, vector = [], [], start / np.linalg.norm(start)
    for step in range(len(basis)):
        basis[step] = vector
        image = (operator @ vector).astype(start.dtype)
        diagonal.append(float(vector @ image))
        for _ in range(2):
            image -= (basis[: step + 1] @ image) @ basis[: step + 1]
        length = float(np.linalg.norm(image))
        if length <= INVARIANT * np.abs([*diagonal, *off]).max():
            break
        off.append(length)
        vector = image / length
    nodes, vectors = eigh_tridiagonal(diagonal, off[: len(diagonal) - 1])
    return nodes, vectors[0] ** 2
