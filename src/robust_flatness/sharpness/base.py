"""What the measures of sharpness share: a result, and a network's loss as a function of its weights."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from robust_flatness.attacks.pgd import PGD, batches, cross_entropy, random_start
from robust_flatness.flatness.neighborhood import real_parts
from robust_flatness.inputs import check_classes, checked_inputs
from robust_flatness.network import Network
from robust_flatness.seeding import generator

#: "ce" is the clean loss; a PGD makes it the robust loss under this attack.
Loss = Literal["ce"] | PGD


@dataclass(frozen=True)
class SharpnessResult:
    """A measure and its standard error: over examples, samples or parts of the data, as each measure
    says; None where the measure is not a mean."""

    value: float
    standard_error: float | None = None

    @classmethod
    def mean(cls, values: Tensor) -> "SharpnessResult":
        """The mean of `values` [n] and its standard error std / sqrt(n), None for a single value."""
        values = values.double()
        error = values.std().item() / len(values) ** 0.5 if len(values) > 1 else None
        return cls(values.mean().item(), error)


class Objective:
    r"""The loss of a network as a function of the weights w that the neighbourhood holds.

    .. math:: L(w) = \tfrac1n \sum_i L_i(w), \quad
              L_i(w) = \ell(f(x_i; w), y_i) \text{ or }
              \max_{\|\delta\|_\infty\le\epsilon} \ell(f(x_i+\delta; w), y_i)

    In evaluation mode. Tensors of the neighbourhood are those that flatness perturbs (see
    `flatness.perturbed_parameters`); all others keep their values. The network given is not changed.

    Parameters
    ----------
    model
        Inputs [n, ...] in [0, 1] to logits [n, K].
    x, y
        Inputs and labels.
    loss
        "ce", or the attack of the robust loss.
    batch_size
        Examples per pass.
    seed
        Source of the attack's starts.

    Raises
    ------
    ValueError
        If inputs and labels do not fit, `loss` is something else, or nothing can be perturbed.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss = "ce", batch_size: int = 128, seed: int = 0
    ):
        x, y = checked_inputs(x, y)
        if loss != "ce" and not isinstance(loss, PGD):
            raise ValueError(f"loss: {loss!r} given; allowed are 'ce' and a PGD attack")
        self.x, self.y, self.seed = x, y, seed
        self.attack = None if loss == "ce" else loss
        self.parts = list(batches(len(x), batch_size))
        self._net = Network.of(model, x[:2])
        check_classes(y, self._net.classes)
        own = self._net.weights()
        self.names, own = list(own), list(own.values())
        self._complex = [weight.is_complex() for weight in own]
        self.weights = real_parts(own)

    @property
    def module(self) -> nn.Module:
        """The network in evaluation mode, frozen.

        Raises
        ------
        UndefinedError
            If the model cannot be copied, so that its layers cannot be watched.
        """
        return self._net.module

    @cached_property
    def inputs(self) -> Tensor:
        """The inputs [n, ...] at which curvature and gradients are taken: `x`, or the adversarial examples
        found at w with all restarts of the attack, kept fixed."""
        if self.attack is None:
            return self.x
        size = self.parts[0].stop
        with torch.enable_grad():
            found = self.attack(self._net, self.x, self.y, size, generator(self.seed, "sharpness"))
        return found.x_adv

    def restricted(self, part: slice) -> "Objective":
        """The objective of the examples in `part` alone; the network is shared."""
        local = copy.copy(self)
        local.x, local.y = self.x[part], self.y[part]
        local.inputs = self.inputs[part]
        local.parts = list(batches(len(local.x), self.parts[0].stop))
        return local

    def logits(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Logits [n, K] at `weights`; differentiable by both."""
        values = (torch.view_as_complex(w) if c else w for w, c in zip(weights, self._complex, strict=True))
        return self._net.at(dict(zip(self.names, values, strict=True))).logits(x)

    def fixed(self, weights: Sequence[Tensor], part: slice) -> Tensor:
        """Losses of the examples in `part` at `weights`, on the fixed `inputs`; differentiable."""
        return cross_entropy(self.logits(weights, self.inputs[part]), self.y[part])

    def gradient(self, weights: Sequence[Tensor] | None = None) -> list[Tensor]:
        """The gradient of the mean loss on the fixed inputs at `weights` (None: w), a tensor a layer."""
        leaves = [w.detach().requires_grad_(True) for w in (weights or self.weights)]
        total = [torch.zeros_like(w) for w in self.weights]
        with torch.enable_grad():
            for part in self.parts:
                loss = self.fixed(leaves, part).sum() / len(self.x)
                found = torch.autograd.grad(loss, leaves, materialize_grads=True)
                torch._foreach_add_(total, found)
        return total

    def losses(
        self,
        weights: Sequence[Tensor] | None = None,
        head: Callable[[Tensor], Tensor] | None = None,
        sample: int = 0,
    ) -> Tensor:
        """Losses [n] at `weights` (None: w), adversarial examples found anew there from one start.

        `head` is applied to the logits before the cross-entropy; `sample` numbers the start.
        """
        here = list(weights) if weights is not None else self.weights
        network = _At(self, here, head)
        start = None
        if self.attack is not None:
            start = random_start(self.x, self.attack.epsilon, generator(self.seed, "starts", sample))
        found = []
        for part in self.parts:
            x, y = self.x[part], self.y[part]
            if start is None:
                with torch.no_grad():
                    found.append(cross_entropy(network.logits(x), y))
            else:
                found.append(self.attack.losses(network, x, y, start[part]))
        return torch.cat(found)


@dataclass(frozen=True)
class _At:
    """The network at given weights, as an attack sees it."""

    objective: Objective
    weights: list[Tensor]
    head: Callable[[Tensor], Tensor] | None

    def logits(self, x: Tensor, precision: str = "float32") -> Tensor:
        """Logits [n, K] of inputs [n, ...]."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = self.objective.logits(self.weights, x).to(x.dtype)
        return logits if self.head is None else self.head(logits)


def dot(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """The inner product of two lists of tensors, as one vector each."""
    return sum((a * b).sum() for a, b in zip(first, second, strict=True))


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of a list of tensors as one vector."""
    return torch.stack(torch._foreach_norm(list(tensors))).norm()


def draw(weights: Sequence[Tensor], stream: torch.Generator) -> list[Tensor]:
    """A standard Gaussian vector in the shape of `weights`, drawn on the generator's device."""
    return [
        torch.randn(w.shape, dtype=w.dtype, device=stream.device, generator=stream).to(w.device)
        for w in weights
    ]
