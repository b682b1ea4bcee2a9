"""A classifier as attacks and measures use it: frozen, in evaluation mode, at weights of choice."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from robust_flatness import boundary
from robust_flatness.architectures.folding import Folding, foldable_pairs
from robust_flatness.architectures.layers import channels_last, inside_transform, keep_channels_last
from robust_flatness.architectures.stateless import Places, Stateless, followers, tensor_places
from robust_flatness.boundary import Trial
from robust_flatness.errors import ConfigError, warn
from robust_flatness.perturbable import perturbable_parameters
from robust_flatness.runtime.devices import keep_freed_memory
from robust_flatness.runtime.graphs import Graphs
from robust_flatness.runtime.isolation import isolated

#: The largest activation of the examples that pass a network together on a CPU, for each thread.
PASS_BYTES = 2**22
#: Smallest pass: with fewer examples, the overhead of calls dominates.
LEAST_AT_ONCE = 32
#: Frozen parameters of at most this size are constants such as mean and std of images.
CONSTANTS = 4


@dataclass
class _Shared:
    """What all views of a network share."""

    original: nn.Module | None  # until it has been compared with the copy
    perturbable: list[str]
    frozen: list[str]
    followers: dict[str, tuple[str, torch.Size, tuple[int, ...]]]
    convolutions: list[str]
    trial: Trial | None = None
    source: tuple[nn.Module | None, dict[str, Places]] = (None, {})


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
        self._function = Stateless(self.module)
        convolutions = boundary.convolution_weights(self.module)
        shared_memory = followers(dict(original.named_parameters()))
        self._shared = _Shared(original, *perturbable_parameters(original), shared_memory, convolutions)
        self._values = {name: t for name, t in self._function.own.items() if t.is_floating_point()}
        self._tensors: dict[str, Tensor] = {}
        self._low: dict[str, Tensor] | None = None
        self.folding: Folding | None = None
        if pairs := foldable_pairs(self.module):
            for name in convolutions:
                self._values[name].data = channels_last(self._values[name].data)
            self.folding = Folding(self.module, pairs)
            self._factors = self.folding.factors(self._values)
            self._tensors = self.folding.fold(self._values, self._factors)
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
        """K of the logits; None before the first inputs."""
        return self._shared.trial and self._shared.trial.classes

    @property
    def examples_at_once(self) -> int | None:
        """Number of examples whose activations stay in cache on a CPU, for all threads; None: any number."""
        size = self._shared.trial and self._shared.trial.bytes_per_example
        return max(LEAST_AT_ONCE, PASS_BYTES * torch.get_num_threads() // size) if size else None

    @property
    def layers(self) -> list[str]:
        """Names of the parameters that are perturbed (see `perturbable_parameters`), in the model's order;
        warns of frozen ones that influence the logits, and raises `ConfigError` if nothing is left."""
        shared, trial = self._shared, self._shared.trial or Trial(0, None)
        frozen = [name for name in shared.frozen if name not in trial.normalising | trial.unused]
        if any(self._values[name].numel() > CONSTANTS for name in frozen):
            some = ", ".join(frozen[:3]) + ", ..." * (len(frozen) > 3)
            warn(f"model: {len(frozen)} frozen parameters are not perturbed: {some}; freeze all or none")
        names = [name for name in shared.perturbable if name not in trial.normalising]
        if not names:
            raise ConfigError("model: no parameters to perturb besides those of normalisation layers")
        return names

    def weights(self, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Return copies of the values of parameters and buffers by name (default: of `layers`)."""
        names = self.layers if names is None else names
        return {name: self._values[name].detach().clone() for name in names}

    def at(self, weights: Mapping[str, Tensor] | nn.Module, folded: bool = True) -> "Network":
        """Return the same network with `weights` in place of its own values of these names.

        `weights` are tensors by name, by which logits are differentiable, or a module of equal architecture.
        Nothing is copied or changed: all views share one module, into which a call puts their tensors; one
        backward pass for each view, unless its graph is retained. Batch norms are folded unless not `folded`.
        """
        shared = self._shared
        weights = self._read(weights) if isinstance(weights, nn.Module) else dict(weights)
        for follower, (leader, shape, stride) in shared.followers.items():
            if leader in weights:
                weights[follower] = weights[leader].as_strided(shape, stride)
        view = copy.copy(self)
        view._values, view._low = self._values | weights, None
        if not folded and self.folding is not None:
            view.folding, view.graphs, view._tensors = None, None, weights
        elif self.folding is not None:
            view._factors = self.folding.factors(view._values, weights, self._factors)
            view._tensors = self.folding.fold(view._values, view._factors)
        else:
            if shared.trial is not None and shared.trial.channels_last:
                weights |= {n: channels_last(weights[n]) for n in shared.convolutions if n in weights}
            view._tensors = self._tensors | weights
        return view

    def _read(self, module: nn.Module) -> dict[str, Tensor]:
        """The values of a module; looking up their places takes longer than reading them."""
        if self._shared.source[0] is not module:
            self._shared.source = module, tensor_places(boundary.unwrapped(module))
        places = self._shared.source[1]
        return {name: table[key].detach() for name in self._values for table, key in places[name][:1]}

    def __call__(self, x: Tensor) -> Tensor:
        return self.logits(x)

    def logits(self, x: Tensor, precision: str = "float32") -> Tensor:
        """Logits [n, K] of inputs [n, ...]; in `bfloat16`, convolutions and linear layers compute in that."""
        if self._shared.trial is None:
            self._try(x)
        return self.apply(self.tensors(precision), x, precision)

    def tensors(self, precision: str = "float32") -> dict[str, Tensor]:
        """Return the tensors, by name, that `logits` computes from: folded, in this precision."""
        if precision == "float32" or self.folding is None:
            return self._tensors
        low = self._low or self.folding.lowered(self._tensors)
        if not any(tensor.requires_grad for tensor in self._tensors.values()):
            self._low = low
        return low

    def apply(self, tensors: Mapping[str, Tensor], x: Tensor, precision: str = "float32") -> Tensor:
        """Logits of `x` computed from `tensors`, which are those that `tensors(precision)` returns."""
        images = x.ndim == 4 and not inside_transform()
        if self.folding is not None:
            x_laid_out = x.contiguous(memory_format=torch.channels_last) if images else x
            return self.folding.function(tensors, x_laid_out).to(x.dtype)
        wide, low = images and self._shared.trial.channels_last, precision == "bfloat16"
        layout = torch.channels_last if wide else torch.contiguous_format
        with torch.autocast(x.device.type, torch.bfloat16, enabled=low, cache_enabled=False):
            logits = self._function(tensors, x.clone(memory_format=layout))  # it may change its input
        if len(x) == 1 and logits.shape == (self.classes,):
            logits = logits[None]  # squeezed by the module
        if wide and not low:
            keep_channels_last(logits)
        return logits.to(x.dtype) if low else logits

    @isolated()
    def _try(self, x: Tensor) -> None:
        shared, x = self._shared, x.detach()[:2]
        if self.folding is None:
            names = [*shared.perturbable, *shared.frozen]
            shared.trial = boundary.try_model(shared.original, self._function, names, x)
        else:
            run = partial(self.apply, self._tensors)
            classes = boundary.outcome(run, x).logits.shape[1]
            shared.trial = Trial(classes, boundary.largest_activation(run, x), channels_last=True)
        shared.original = None
