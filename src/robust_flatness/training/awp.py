"""Adversarial weight perturbation (Wu et al., NeurIPS 2020), one ascent step a batch."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robust_flatness.network import Network
from robust_flatness.training.objectives import Forward


class WeightPerturbation:
    r"""w + nu with nu^(l) = xi ||w^(l)||_2 g^(l) / ||g^(l)||_2, g the gradient in evaluation mode.

    The layers l are the weights of convolutions and linear layers (tensors of more than one dimension), so
    neither biases nor batch norm. nu is zero where the gradient is.
    """

    def __init__(self, network: nn.Module, xi: float):
        self.xi = xi
        weights = {name: p for name, p in network.named_parameters() if p.ndim > 1}
        self.names, self.weights = list(weights), list(weights.values())

    def ascent(
        self, network: Network, loss: Callable[[Forward], Tensor], precision: str = "float32"
    ) -> list[Tensor]:
        """Return nu of each layer, for the `loss` of `network`, which is in evaluation mode."""
        with torch.enable_grad():
            leaves = {name: w.requires_grad_(True) for name, w in network.weights(self.names).items()}
            view = network.at(leaves)
            gradients = torch.autograd.grad(loss(lambda x: view.logits(x, precision)), list(leaves.values()))
        with torch.no_grad():
            norms, sizes = torch._foreach_norm(gradients), torch._foreach_norm(self.weights)
            torch._foreach_mul_(sizes, self.xi)
            # 0 / tiny = 0: a layer whose gradient is zero is not perturbed
            torch._foreach_clamp_min_(norms, torch.finfo(norms[0].dtype).tiny)
            torch._foreach_div_(sizes, norms)
            return list(torch._foreach_mul(gradients, sizes))

    @contextlib.contextmanager
    def applied(self, nu: list[Tensor]) -> Iterator[None]:
        """Add nu to the weights of the network; restore them afterwards, bit for bit."""
        saved = [weight.detach().clone() for weight in self.weights]
        try:
            with torch.no_grad():
                torch._foreach_add_(self.weights, nu)
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.weights, saved)


@contextlib.contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Freeze the running statistics of batch norms; in training mode they still normalise by the batch."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    before = [(norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
