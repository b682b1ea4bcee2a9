"""Weight perturbations nu at which updates take their gradient: AT-AWP and sharpness-aware minimisation."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from robust_flatness.perturbable import perturbable_parameters


def perturbed_weights(network: nn.Module, biases: bool) -> dict[str, nn.Parameter]:
    """Return the weights that are perturbed by name: with `biases` those whose flatness is measured, all but
    the parameters of normalisation layers; else those of convolutions and linear layers."""
    weights = {name: network.get_parameter(name) for name in perturbable_parameters(network)[0]}
    return {name: weight for name, weight in weights.items() if biases or weight.ndim > 1}


def awp(gradients: Sequence[Tensor], weights: Sequence[Tensor], xi: float) -> list[Tensor]:
    r"""Return nu of adversarial weight perturbation (Wu et al., NeurIPS 2020) with one ascent step:
    nu^(l) = xi ||w^(l)||_2 g^(l) / ||g^(l)||_2 for each layer l; zero where the gradient g is."""
    norms, sizes = torch._foreach_norm(gradients), torch._foreach_norm(weights)
    torch._foreach_mul_(sizes, xi)
    # 0 / tiny = 0: a layer whose gradient is zero is not perturbed
    torch._foreach_clamp_min_(norms, torch.finfo(norms[0].dtype).tiny)
    torch._foreach_div_(sizes, norms)
    return list(torch._foreach_mul(gradients, sizes))


def sam(gradients: Sequence[Tensor], rho: float) -> list[Tensor]:
    r"""Return nu of sharpness-aware minimisation (Foret et al., ICLR 2021, equation 2 with p = 2),
    nu = rho g / ||g||_2, the norm taken of all layers together; zero if the gradient g is."""
    norm = torch.nn.utils.get_total_norm(gradients)
    return list(torch._foreach_mul(gradients, rho / norm.clamp_min(torch.finfo(norm.dtype).tiny)))


@contextlib.contextmanager
def perturbed(network: nn.Module, nu: Sequence[Tensor], weights: Sequence[Tensor]) -> Iterator[None]:
    """Add nu to the weights in place; afterwards restore them, and the network's buffers (the running
    statistics of batch norms), bit for bit."""
    tensors = [*weights, *network.buffers()]
    saved = [tensor.detach().clone() for tensor in tensors]
    try:
        with torch.no_grad():
            torch._foreach_add_(weights, nu)
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(tensors, saved)
