"""The loss of a network as a function of its weights, and estimates of means, for measures of sharpness."""

import copy
import functools
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from robust_flatness.attacks.pgd import PGD, batches, checked, cross_entropy, losses_of
from robust_flatness.config.measures import BATCH_SIZE
from robust_flatness.measures.spectrum import Hessian
from robust_flatness.network import Network
from robust_flatness.runtime.isolation import isolated
from robust_flatness.seeding import generator

#: "ce" is the clean loss; a PGD makes it the robust loss under this attack.
Loss = Literal["ce"] | PGD


class Estimate(NamedTuple):
    """Value of a measure, and its standard error over examples, samples or parts of the data, if defined."""

    value: float
    standard_error: float | None = None

    @classmethod
    def mean(cls, values: Tensor) -> "Estimate":
        """Return the mean of `values` [n] and its standard error std / sqrt(n), None for a single value."""
        values = values.double()
        error = values.std().item() / len(values) ** 0.5 if len(values) > 1 else None
        return cls(values.mean().item(), error)


class Objective:
    r"""The loss of a network as a function of its perturbable weights w (`flatness.perturbed_parameters`).

    .. math:: L(w) = \tfrac1n \sum_i L_i(w), \quad
              L_i(w) = \ell(f(x_i; w), y_i) \text{ or }
              \max_{\|\delta\|\le\epsilon} \ell(f(x_i+\delta; w), y_i)

    The network is in evaluation mode and not modified. `loss` is "ce" for the clean loss or the attack that
    defines the robust loss, `batch_size` the number of examples per pass, `seed` the random seed of the
    starts. Raises `ValueError` if inputs and labels do not match, `loss` is invalid, or no parameter is
    perturbable.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss = "ce", batch_size: int = BATCH_SIZE,
        seed: int = 0,
    ):  # fmt: skip
        if loss != "ce" and not isinstance(loss, PGD):
            raise ValueError(f"loss: {loss!r} given; allowed are 'ce' and a PGD attack")
        self.net, self.x, self.y, _ = checked(model, x, y)
        self.unfolded = self.net.at({}, folded=False)
        self.batch_size, self.seed = batch_size, seed
        self.attack = None if loss == "ce" else loss
        self.loss = cross_entropy
        weights = self.net.weights()
        self.names, self.weights = list(weights), list(weights.values())
        self._reference: Tensor | None = None

    @property
    def parts(self) -> list[slice]:
        """Slices of the examples, one per batch."""
        return list(batches(len(self.x), self.batch_size))

    @cached_property
    def inputs(self) -> Tensor:
        """Inputs [n, ...] at which curvature and gradients are evaluated: `x`, or the adversarial examples
        found at w with all restarts, kept fixed."""
        if self.attack is None:
            return self.x
        stream = generator(self.seed, "sharpness")
        return self.attack(self.net, self.x, self.y, self.batch_size, stream).x_adv

    def reference(self) -> Tensor:
        """Return the losses [n] at w, computed once."""
        if self._reference is None:
            self._reference = self.losses(self.weights)
        return self._reference

    @property
    def normalised(self) -> "Objective":
        """The same objective on `normalised_logits`, at the same inputs."""
        return self._with(loss=lambda logits, y: cross_entropy(normalised_logits(logits), y))

    def restricted(self, part: slice) -> "Objective":
        """Return the objective of the examples in `part` alone."""
        return self._with(x=self.x[part], y=self.y[part], inputs=self.inputs[part])

    def _with(self, **changed: Any) -> "Objective":
        local = copy.copy(self)
        vars(local).update(changed, _reference=None)
        return local

    def at(self, weights: Sequence[Tensor]) -> Network:
        """Return the network at `weights`, tensors in the order of `names`; gradients flow to them."""
        return self.unfolded.at(dict(zip(self.names, weights, strict=True)))

    def leaves(self) -> list[Tensor]:
        """Return the weights w as tensors that require gradients."""
        return [w.detach().requires_grad_(True) for w in self.weights]

    def losses(self, weights: Sequence[Tensor], sample: int = 0) -> Tensor:
        """Return the losses [n] at `weights`; adversarial examples are recomputed, from start `sample`."""
        network, start = self.at(weights), self.x
        if self.attack is not None:
            start = self.attack.start(self.x, generator(self.seed, "starts", sample))
        pieces = ((self.x[part], self.y[part], self.attack, start[part]) for part in self.parts)
        return torch.cat([losses_of(network, *piece, self.loss) for piece in pieces])

    def hessian(self, names: Sequence[str] | None = None) -> Hessian:
        """Return the Hessian of the loss at `inputs`, by the layers `names` (None: all)."""
        names = self.names if names is None else names
        return Hessian(self.unfolded, names, self.inputs, self.y, self.batch_size)


def normalised_logits(logits: Tensor) -> Tensor:
    r"""Return logits z [n, K] divided by each example's :math:`\sqrt{\tfrac1K\sum_k (z_k - \bar z)^2}`."""
    spread = logits.std(dim=1, keepdim=True, correction=0)
    return logits / spread.clamp(min=torch.finfo(logits.dtype).tiny)


def of_objective(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of an `Objective` callable as `f(model, x, y, *, loss, batch_size, seed, **options)`;
    the original function is its attribute `of`."""

    @functools.wraps(function)
    def call(
        model: nn.Module, x: Tensor, y: Tensor, *, loss: Loss = "ce", batch_size: int = BATCH_SIZE,
        seed: int = 0, **options,
    ) -> Estimate:  # fmt: skip
        with isolated():
            return function(Objective(model, x, y, loss, batch_size, seed), **options)

    del call.__wrapped__  # whose signature is another
    call.of = function
    return call


def call_on(objective: Objective, function: Callable[..., Estimate]) -> Estimate:
    """Call a user-defined measure; one decorated with `of_objective` shares the adversarial examples."""
    if hasattr(function, "of"):
        return function.of(objective)
    module = copy.deepcopy(objective.net.module).requires_grad_(True)
    options = {"batch_size": objective.batch_size, "seed": objective.seed}
    return function(module, objective.x, objective.y, loss=objective.attack or "ce", **options)
