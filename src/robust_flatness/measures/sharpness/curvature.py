"""Curvature of the loss: of single layers, weighted by their norms, and the density of the whole spectrum."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robust_flatness.measures import curvature, density
from robust_flatness.measures.objective import Estimate, Objective, of_objective
from robust_flatness.measures.sharpness.derivatives import quadratic_forms, rademacher
from robust_flatness.measures.spectrum import Hessian, lanczos
from robust_flatness.runtime.progress import track
from robust_flatness.seeding import generator


@dataclass(frozen=True)
class LayerCurvature:
    """Samples [S] of the trace of a layer's block of the Hessian, the block's largest eigenvalue (None: not
    computed), and the weights of the layer."""

    samples: Tensor
    eigenvalue: float | None
    weight: Tensor

    trace = property(lambda self: Estimate.mean(self.samples))


@of_objective
def layer_curvature(
    objective: Objective, samples: int = curvature.VECTORS, steps: int = curvature.STEPS
) -> dict[str, LayerCurvature]:
    r"""Compute trace and largest eigenvalue of each layer's Hessian block :math:`H_l = \nabla^2_{w_l} L(w)`.

    A layer is one perturbable parameter tensor. The trace is estimated by Hutchinson's method,
    :math:`\tfrac1S \sum_s v_s^\top H_l v_s` with `samples` Rademacher vectors of the layer's size. The
    largest eigenvalue is the largest Ritz value after `steps` steps of Lanczos' method: a lower bound, exact
    for layers of at most `steps` weights; None with 0 steps. The robust loss is taken at adversarial examples
    found at w and kept fixed. Where scaling a layer by s preserves the function, it divides the block by s
    squared. Parameters as in `Objective`.
    """
    found = {}
    for name, weight in track(list(zip(objective.names, objective.weights, strict=True)), "layer"):
        block = objective.hessian([name])
        streams = (generator(objective.seed, "hutchinson", name, sample) for sample in range(samples))
        forms, eigenvalue = quadratic_forms(block, streams), None
        if steps:
            eigenvalue = float(lanczos(block, _start(block, objective.seed, name), steps)[0].max())
        found[name] = LayerCurvature(forms.double().cpu(), eigenvalue, weight)
    return found


@of_objective
def weight_curvature_index(objective: Objective, samples: int = curvature.VECTORS) -> Estimate:
    r"""Compute a proxy of the weight-curvature index of Xu and Zhang (arXiv 2410.07719).

    .. math:: \sum_l \|W_l\|_F \sqrt{\max(\mathrm{Tr}\,H_l, 0)}

    over the perturbable tensors with more than one dimension, with traces as in `layer_curvature`. The
    authors build their index from these norms and traces, of the adversarial loss on training examples. This
    is a proxy: the square root makes each term invariant to the scale of its layer, but the formula has not
    been compared with theirs. The standard error, over the random vectors, is by linearisation.
    """
    return index_of(layer_curvature.of(objective, samples, steps=0))


def index_of(layers: Mapping[str, LayerCurvature]) -> Estimate:
    """Return the weight-curvature index, given the curvature of each layer."""
    matrices = [layer for layer in layers.values() if layer.weight.ndim > 1]
    norms = torch.stack([layer.weight.double().norm().cpu() for layer in matrices])
    samples = torch.stack([layer.samples for layer in matrices], dim=1)
    means = samples.mean(0)
    roots = means.clamp(min=0).sqrt()
    slopes = torch.where(roots > 0, norms / (2 * roots), 0)
    return Estimate.mean(norms @ roots + (samples - means) @ slopes)


@dataclass(frozen=True)
class SpectralDensity:
    """Spectral density as nodes and weights [k, m] of Gauss quadratures from k random vectors."""

    nodes: np.ndarray
    weights: np.ndarray

    def width(self, sigma: float) -> float:
        """Return the standard deviation of the Gaussians: `sigma` times the range of the nodes."""
        return sigma * (float(np.ptp(self.nodes)) or 1.0)

    def grid(self, sigma: float) -> np.ndarray:
        """Return a grid spaced by half a standard deviation, up to four beyond the outermost nodes."""
        reach = 4 * self.width(sigma)
        low, high = self.nodes.min() - reach, self.nodes.max() + reach
        return np.linspace(low, high, 1 + int(np.ceil(8 * (high - low) / reach)))

    def at(self, eigenvalues: np.ndarray, sigma: float) -> np.ndarray:
        """Return the density at each of the eigenvalues."""
        width = self.width(sigma)
        away = (eigenvalues[:, None, None] - self.nodes) / width
        gaussians = np.exp(-(away**2) / 2) / (width * np.sqrt(2 * np.pi))
        return (self.weights * gaussians).sum(2).mean(1)


@of_objective
def spectral_density(
    objective: Objective, steps: int = density.STEPS, vectors: int = density.VECTORS
) -> SpectralDensity:
    r"""Estimate the density of the eigenvalues of :math:`\nabla_w^2 L(w)` by stochastic Lanczos quadrature.

    (Ghorbani, Krishnan, Xiao, ICML 2019; Papyan, arXiv 1811.07062.)

    .. math:: \phi(t) = \tfrac1P \sum_i \delta(t - \lambda_i) \approx
              \tfrac1k \sum_i \sum_j \omega_{ij}\, \mathcal N(t; \theta_{ij}, \sigma^2)

    with nodes and weights of `steps` steps of Lanczos' method from each of k = `vectors` Rademacher vectors,
    fully reorthogonalised, which takes the memory of `steps` copies of the weights. The robust loss is taken
    at adversarial examples found at w and kept fixed. Parameters as in `Objective`.
    """
    hessian = objective.hessian()
    starts = (_start(hessian, objective.seed, vector) for vector in track(range(vectors), "vector"))
    found = [lanczos(hessian, start, steps) for start in starts]
    most = max(len(nodes) for nodes, _ in found)
    nodes = [np.pad(nodes, (0, most - len(nodes)), "edge") for nodes, _ in found]
    return SpectralDensity(np.stack(nodes), np.stack([np.pad(w, (0, most - len(w))) for _, w in found]))


def _start(hessian: Hessian, seed: int, stream: str | int) -> np.ndarray:
    """Return a Rademacher vector in the dtype of the weights."""
    vector = rademacher(hessian, generator(seed, "lanczos", stream))
    return torch.cat([piece.flatten() for piece in vector]).cpu().numpy()
