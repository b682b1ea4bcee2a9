"""The loss of a network as a function of its weights, and estimates of means, for measures of sharpness."""

import copy
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robust_flatness.attacks.pgd import PGD, batches, losses_of, random_start
from robust_flatness.measures.examples import BATCH_SIZE
from robust_flatness.measures.result import checked
from robust_flatness.network import Network
from robust_flatness.runtime.isolation import isolated
from robust_flatness.seeding import generator

#: "ce" is the clean loss; a PGD makes it the robust loss under this attack.
Loss = Literal["ce"] | PGD
Head = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Estimate:
    """A measure and its standard error (over examples, samples or parts of the data); None where it is no
    mean."""

    value: float
    standard_error: float | None = None

    @classmethod
    def mean(cls, values: Tensor) -> "Estimate":
        """The mean of `values` [n] and its standard error std / sqrt(n), None for a single value."""
        values = values.double()
        error = values.std().item() / len(values) ** 0.5 if len(values) > 1 else None
        return cls(values.mean().item(), error)


class Objective:
    r"""The loss of a network as a function of the weights w in the neighbourhood.

    .. math:: L(w) = \tfrac1n \sum_i L_i(w), \quad
              L_i(w) = \ell(f(x_i; w), y_i) \text{ or }
              \max_{\|\delta\|_\infty\le\epsilon} \ell(f(x_i+\delta; w), y_i)

    In evaluation mode. w are the tensors that flatness perturbs (`flatness.perturbed_parameters`); all others
    keep their values. The network given is not changed. Adversarial inputs at w, and the losses there, are
    computed once.

    `loss` is "ce" or the attack of the robust loss, `batch_size` the number of examples per pass, `seed` the
    source of the attack's starts. Raises `ValueError` if inputs and labels do not fit, `loss` is something
    else, or nothing can be perturbed.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss = "ce", batch_size: int = BATCH_SIZE,
        seed: int = 0,
    ):  # fmt: skip
        if loss != "ce" and not isinstance(loss, PGD):
            raise ValueError(f"loss: {loss!r} given; allowed are 'ce' and a PGD attack")
        self.net, self.x, self.y = checked(model, x, y)
        self.unfolded = self.net.at({}, folded=False)
        self.batch_size, self.seed = batch_size, seed
        self.attack = None if loss == "ce" else loss
        weights = self.net.weights()
        self.names, self.weights = list(weights), list(weights.values())
        self._references: dict[Head | None, Tensor] = {}

    @property
    def parts(self) -> list[slice]:
        """The batches."""
        return list(batches(len(self.x), self.batch_size))

    @cached_property
    def inputs(self) -> Tensor:
        """The inputs [n, ...] at which curvature and gradients are taken: `x`, or the adversarial examples
        found at w with all restarts of the attack, kept fixed."""
        if self.attack is None:
            return self.x
        stream = generator(self.seed, "sharpness")
        return self.attack(self.net, self.x, self.y, self.batch_size, stream).x_adv

    def restricted(self, part: slice) -> "Objective":
        """The objective of the examples in `part` alone; the network is shared."""
        local = copy.copy(self)
        local.x, local.y, local.inputs = self.x[part], self.y[part], self.inputs[part]
        local._references = {}
        return local

    def at(self, weights: Sequence[Tensor]) -> Network:
        """The network at `weights`, tensors in the order of `names`; differentiable by them."""
        return self.unfolded.at(dict(zip(self.names, weights, strict=True)))

    def leaves(self) -> list[Tensor]:
        """The weights w as tensors that require gradients."""
        return [w.detach().requires_grad_(True) for w in self.weights]

    def losses(self, weights: Sequence[Tensor], head: Head | None = None, sample: int = 0) -> Tensor:
        """Losses [n] at `weights`, adversarial examples found anew there from start number `sample`; `head`
        is applied to the logits before the cross-entropy."""
        network = self.at(weights)
        if head is not None:
            network = _Headed(network, head)
        start = self.x
        if self.attack is not None:
            start = random_start(self.x, self.attack.epsilon, generator(self.seed, "starts", sample))
        pieces = ((self.x[part], self.y[part], self.attack, start[part]) for part in self.parts)
        return torch.cat([losses_of(network, *piece) for piece in pieces])

    def reference(self, head: Head | None = None) -> Tensor:
        """`losses` [n] at w."""
        if head not in self._references:
            self._references[head] = self.losses(self.weights, head)
        return self._references[head]


@dataclass(frozen=True)
class _Headed:
    """A network whose logits are transformed."""

    net: Network
    head: Head

    def logits(self, x: Tensor, precision: str = "float32") -> Tensor:
        return self.head(self.net.logits(x, precision))


def of_objective(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of an `Objective`, its attribute `of`, callable as `f(model, x, y, *, loss, batch_size,
    seed, **options)`."""

    @functools.wraps(function)
    def call(
        model: nn.Module, x: Tensor, y: Tensor, *, loss: Loss = "ce", batch_size: int = BATCH_SIZE,
        seed: int = 0, **options,
    ) -> Estimate:  # fmt: skip
        with isolated():
            return function(Objective(model, x, y, loss, batch_size, seed), **options)

    signature = inspect.signature(call, follow_wrapped=False)
    common = list(signature.parameters.values())[:-1]
    options = list(inspect.signature(function).parameters.values())[1:]
    options = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    call.__signature__ = signature.replace(parameters=common + options)
    call.of = function
    return call


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
