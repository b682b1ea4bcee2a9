"""Interface of attacks and measures to a classifier: a frozen copy, evaluated at any weights."""

import copy
from collections.abc import Iterable, Mapping
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from robust_flatness import boundary
from robust_flatness.architectures.folding import Folding, foldable_pairs
from robust_flatness.architectures.layers import channels_last, inside_transform, keep_channels_last
from robust_flatness.architectures.stateless import Stateless, followers
from robust_flatness.boundary import Trial
from robust_flatness.errors import ConfigError, warn
from robust_flatness.inputs import checked_logits
from robust_flatness.perturbable import perturbable_parameters
from robust_flatness.runtime.devices import keep_freed_memory
from robust_flatness.runtime.graphs import Graphs
from robust_flatness.runtime.isolation import isolated

#: Maximum bytes of an activation per pass and thread on a CPU, so that it stays in the cache.
PASS_BYTES = 2**22
#: Minimum number of examples per pass: with fewer, the overhead of calls dominates.
LEAST_AT_ONCE = 32
#: Number of elements up to which a frozen parameter is taken for a constant, such as an image mean.
CONSTANTS = 4


class Network:
    """A frozen evaluation copy of a classifier from inputs [n, ...] in [0, 1] to logits [n, K].

    Nothing of the module given changes. `net.at(weights)` is the same network at other weights. Batch norms
    of the kit's ResNets are folded into convolutions (see `Folding`); `module` is the unfolded copy. The
    model is tried on `example`, or else on the first inputs; `ConfigError` if it cannot be measured. `graphs`
    may be set for the kit's own networks, whose attacks are then replayed as CUDA graphs on a GPU.
    """

    @isolated()
    def __init__(self, model: nn.Module, example: Tensor | None = None):
        keep_freed_memory()
        original = boundary.unwrapped(model)
        self.module = boundary.evaluation_copy(original)
        self.graphs: Graphs | None = None
        self.folding: Folding | None = None
        self._function = Stateless(self.module)
        self._perturbable, self._frozen = perturbable_parameters(original)
        self._followers = followers(dict(original.named_parameters()))
        self._convolutions = boundary.convolution_weights(original)
        # shared by all views; `original` is dropped after its comparison with the copy
        self._shared = SimpleNamespace(original=original, trial=None)
        self._values = {name: t for name, t in self._function.own.items() if t.is_floating_point()}
        self._tensors: dict[str, Tensor] = {}
        self._low: dict[str, Tensor] | None = None
        if pairs := foldable_pairs(self.module):
            for name in self._convolutions:
                self._values[name].data = channels_last(self._values[name].data)
            self.folding = Folding(self.module, pairs)
            self._tensors = self.folding.fold(self._values)
        if example is not None:
            self._try(example)

    @classmethod
    def of(cls, model: "nn.Module | Network", example: Tensor | None = None) -> "Network":
        """Return `model` itself if it is a `Network`, else a new one; tried on `example`."""
        if not isinstance(model, cls):
            return cls(model, example)
        if example is not None and model.classes is None:
            model._try(example)
        return model

    @property
    def classes(self) -> int | None:
        """Number of classes K; None before the first inputs."""
        return self._shared.trial and self._shared.trial.classes

    @property
    def examples_at_once(self) -> int | None:
        """Number of examples whose activations stay in cache on a CPU, for all threads; None: any number."""
        size = self._shared.trial and self._shared.trial.bytes_per_example
        return max(LEAST_AT_ONCE, PASS_BYTES * torch.get_num_threads() // size) if size else None

    @property
    def layers(self) -> list[str]:
        """Names of the parameters that are perturbed (see `perturbable_parameters`), in the model's order.
        Warns of frozen ones and of those without gradient; raises `ConfigError` if nothing is left."""
        trial = self._shared.trial or Trial(0, None)
        frozen = [name for name in self._frozen if name not in trial.normalising | trial.unused]
        if any(self._values[name].numel() > CONSTANTS for name in frozen):
            some = ", ".join(frozen[:3]) + ", ..." * (len(frozen) > 3)
            warn(f"model: {len(frozen)} frozen parameters are not perturbed: {some}; freeze all or none")
        names = [name for name in self._perturbable if name not in trial.normalising]
        if unused := [name for name in names if name in trial.unused]:
            some = ", ".join(unused[:3]) + ", ..." * (len(unused) > 3)
            warn(f"model: no gradient reaches {some} (unused, or used under no_grad)")
        if not names:
            raise ConfigError("model: no parameters to perturb besides those of normalisation layers")
        return names

    def weights(self, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Return copies of the values of parameters and buffers by name (default: of `layers`)."""
        return {n: self._values[n].detach().clone() for n in (self.layers if names is None else names)}

    def at(self, weights: Mapping[str, Tensor] | nn.Module, folded: bool = True) -> "Network":
        """Return the same network with `weights` in place of its own values of these names.

        `weights` are tensors by name, to which gradients flow, or a module of equal architecture. Nothing is
        copied or changed: all views share one module, whose tensors are replaced in each call. A view allows
        one backward pass, unless its graph is retained. Batch norms are folded if `folded`.
        """
        if isinstance(weights, nn.Module):
            own = Stateless(boundary.unwrapped(weights)).own
            weights = {name: own[name].detach() for name in self._values}
        weights = dict(weights)
        for follower, (leader, shape, stride) in self._followers.items():
            if leader in weights:
                weights[follower] = weights[leader].as_strided(shape, stride)
        view = copy.copy(self)
        view._values, view._low = self._values | weights, None
        if not folded and self.folding is not None:
            view.folding, view.graphs, view._tensors = None, None, view._values
        elif self.folding is not None:
            view._tensors = self.folding.fold(view._values)
        else:
            if self._shared.trial is not None and self._shared.trial.channels_last:
                weights |= {n: channels_last(weights[n]) for n in self._convolutions if n in weights}
            view._tensors = self._tensors | weights
        return view

    def __call__(self, x: Tensor) -> Tensor:
        return self.logits(x)

    def logits(self, x: Tensor, precision: str = "float32") -> Tensor:
        """Return logits [n, K] of inputs [n, ...]; `bfloat16` is used in convolutions and linear layers."""
        if self._shared.trial is None:
            self._try(x)
        logits = self.apply(self.tensors(precision), x, precision)
        comparable = len(x) > 2 and precision == "float32" and not inside_transform()
        if comparable and self._shared.trial.independent:
            self._shared.trial = self._shared.trial._replace(independent=False)  # compared once
            with torch.no_grad():
                boundary.check_independent(logits, self.apply(self._tensors, x[:2]))
        return logits

    def tensors(self, precision: str = "float32") -> dict[str, Tensor]:
        """Return the tensors, by name, that `logits` uses: folded, in this precision."""
        if precision == "float32" or self.folding is None:
            return self._tensors
        low = self._low or self.folding.lowered(self._tensors)
        if not any(tensor.requires_grad for tensor in self._tensors.values()):
            self._low = low
        return low

    def apply(self, tensors: Mapping[str, Tensor], x: Tensor, precision: str = "float32") -> Tensor:
        """Return logits of `x` computed from `tensors`, as `tensors(precision)` returns them."""
        wide = x.ndim == 4 and not inside_transform()
        if self.folding is not None:
            laid_out = x.contiguous(memory_format=torch.channels_last) if wide else x
            return self.folding.function(tensors, laid_out).to(x.dtype)
        wide, low = wide and self._shared.trial.channels_last, precision == "bfloat16"
        layout = torch.channels_last if wide else torch.contiguous_format
        with torch.autocast(x.device.type, torch.bfloat16, enabled=low, cache_enabled=False):
            # a copy, for it may change its input
            logits = checked_logits(self._function(tensors, x.clone(memory_format=layout)), x)
        if wide and not low:
            keep_channels_last(logits)
        return logits.to(x.dtype) if low else logits

    @isolated()
    def _try(self, x: Tensor) -> None:
        x, run = x.detach()[:2], partial(self.apply, self._tensors)
        if self.folding is None:
            names = [*self._perturbable, *self._frozen]
            self._shared.trial = boundary.try_model(self._shared.original, self._function, names, x)
        else:
            classes = boundary.outcome(run, x).logits.shape[1]
            self._shared.trial = Trial(classes, boundary.largest_activation(run, x), channels_last=True)
        self._shared.original = None
