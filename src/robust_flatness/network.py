"""A classifier as attacks and measures use it: frozen, in evaluation mode, at weights of choice."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from robust_flatness import boundary
from robust_flatness.architectures.convolution import channels_last, inside_transform, keep_channels_last
from robust_flatness.architectures.folding import Folding, foldable_pairs
from robust_flatness.architectures.stateless import Places, Stateless, tensor_places
from robust_flatness.boundary import Trial
from robust_flatness.errors import ConfigError
from robust_flatness.perturbable import perturbable_parameters
from robust_flatness.runtime.devices import keep_freed_memory
from robust_flatness.runtime.graphs import Graphs
from robust_flatness.runtime.isolation import isolated

#: The largest activation of the examples that pass a network together on a CPU, for each thread.
PASS_BYTES = 2**22
#: Smallest pass: with fewer examples, the overhead of calls dominates.
LEAST_AT_ONCE = 32
#: Frozen parameters of up to so many numbers are constants such as mean and std of images.
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
    """A frozen evaluation copy of a classifier; nothing of the module given changes.

    `net.at(weights)` is the same network at other weights. Batch norms of the kit's residual networks are
    folded into convolutions (see `Folding`).

    Parameters
    ----------
    model
        Any module from inputs [n, ...] in [0, 1] to logits [n, K].
    example
        Inputs on which it is tried (see `boundary`); without them, the first inputs seen are used.

    Attributes
    ----------
    module
        The copy, unfolded.
    graphs
        May be set for the kit's own networks: attacks are then replayed as CUDA graphs on a GPU.

    Raises
    ------
    ConfigError
        If the model cannot be measured: on construction, or with the first inputs.
    """

    @isolated()
    def __init__(self, model: nn.Module, example: Tensor | None = None):
        keep_freed_memory()
        original = boundary.unwrapped(model)
        self.module = boundary.evaluation_copy(original)
        self.graphs: Graphs | None = None
        self._function = Stateless(self.module)
        self._shared = _Shared(
            original,
            *perturbable_parameters(original),
            boundary.followers(dict(original.named_parameters())),
            boundary.convolution_weights(self.module),
        )
        self._tensors: dict[str, Tensor] = {}
        self.folding: Folding | None = None
        if pairs := foldable_pairs(self.module):
            for name in self._shared.convolutions:
                weight = self._function.own[name]
                weight.data = channels_last(weight.data)
            self.folding = Folding(self.module, pairs)
        self._values = {name: t for name, t in self._function.own.items() if t.is_floating_point()}
        if self.folding is not None:
            self._factors = self.folding.factors(self._values)
            self._tensors = self.folding.fold(self._values, self._factors)
        self._low: dict[str, Tensor] | None = None
        if example is not None:
            self._try(example)

    @classmethod
    def of(cls, model: "nn.Module | Network", example: Tensor | None = None) -> "Network":
        """Return `model` itself if it is a `Network`, else a new one."""
        return model if isinstance(model, cls) else cls(model, example)

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
        """Names of the parameters that are perturbed (see `perturbable_parameters`), in the model's order.

        Warns of frozen parameters that influence the logits; raises `ConfigError` if nothing is left.
        """
        shared, trial = self._shared, self._shared.trial or Trial(0, None)
        names = [name for name in shared.perturbable if name not in trial.normalising]
        if not names:
            raise ConfigError(
                "model: no trainable parameters besides those of normalisation layers to perturb"
            )
        constant = trial.normalising | trial.unused
        frozen = [n for n in shared.frozen if n not in constant and self._values[n].numel() > CONSTANTS]
        if frozen:
            boundary.warn(
                f"{len(frozen)} frozen parameters (requires_grad=False) are not perturbed, {len(names)} others are: "
                f"{', '.join(frozen[:3])}{', ...' if len(frozen) > 3 else ''}; freeze all or none to perturb all"
            )
        return names

    def weights(self, names: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Return copies of the values of parameters and buffers by name (default: of `layers`)."""
        return {
            name: self._values[name].detach().clone() for name in (self.layers if names is None else names)
        }

    def at(self, weights: Mapping[str, Tensor] | nn.Module) -> "Network":
        """Return the same network with `weights` in place of its own values of these names.

        Nothing is copied or changed: all views share one module, into which a call puts their tensors. Logits
        are differentiable by `weights`; one backward pass for each view, unless its graph is retained.

        Parameters
        ----------
        weights
            Tensors by name, or a module of the same architecture, whose values are taken without their graph.
        """
        shared = self._shared
        if isinstance(weights, nn.Module):
            if shared.source[0] is not weights:
                shared.source = weights, tensor_places(boundary.unwrapped(weights))
            places = shared.source[1]
            weights = {name: table[key].detach() for name in self._values for table, key in places[name][:1]}
        else:
            weights = dict(weights)
            for follower, (leader, shape, stride) in shared.followers.items():
                if leader in weights:
                    weights[follower] = weights[leader].as_strided(shape, stride)
        view = copy.copy(self)
        view._values, view._low = self._values | weights, None
        if self.folding is not None:
            view._factors = self.folding.factors(view._values, weights, self._factors)
            view._tensors = self.folding.fold(view._values, view._factors)
        else:
            if shared.trial is not None and shared.trial.channels_last:
                weights |= {n: channels_last(weights[n]) for n in shared.convolutions if n in weights}
            view._tensors = self._tensors | weights
        return view

    def __call__(self, x: Tensor) -> Tensor:
        return self.logits(x)

    def logits(self, x: Tensor, precision: str = "float32") -> Tensor:
        """Logits [n, K] of inputs [n, ...].

        With `precision="bfloat16"`, convolutions and linear layers compute in bfloat16.
        """
        if self._shared.trial is None:
            self._try(x)
        return self.apply(self.tensors(precision), x, precision)

    def tensors(self, precision: str = "float32") -> dict[str, Tensor]:
        """Return the tensors, by name, that `logits` computes from: folded, in this precision."""
        if precision == "float32" or self.folding is None:
            return self._tensors
        low = self._low or self.folding.lowered(self._tensors)
        if not any(tensor.requires_grad for tensor in low.values()):
            self._low = low
        return low

    def apply(self, tensors: Mapping[str, Tensor], x: Tensor, precision: str = "float32") -> Tensor:
        """Logits of `x` computed from `tensors`, which are those that `tensors(precision)` returns."""
        images = x.ndim == 4 and not inside_transform()
        if self.folding is not None:
            images = x.contiguous(memory_format=torch.channels_last) if images else x
            return self.folding.function(tensors, images).to(x.dtype)
        wide = images and self._shared.trial.channels_last
        layout = torch.channels_last if wide else torch.contiguous_format
        low = torch.autocast(
            x.device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False
        )
        with low:
            logits = self._function(
                tensors, x.clone(memory_format=layout)
            )  # the module may change it in place
        if len(x) == 1 and logits.shape == (self.classes,):
            logits = logits[None]  # a module that squeezes
        if wide and precision == "float32":
            keep_channels_last(logits)
        return logits if precision == "float32" else logits.to(x.dtype)

    @isolated()
    def _try(self, x: Tensor) -> None:
        """Try the network on its first inputs."""
        shared, x = self._shared, x.detach()[:2]
        if self.folding is None:
            shared.trial = boundary.try_model(
                shared.original, self._function, [*shared.perturbable, *shared.frozen], x
            )
        else:
            run = partial(self.apply, self._tensors)
            classes = boundary.outcome(run, x).logits.shape[1]
            shared.trial = Trial(classes, boundary.largest_activation(run, x))
        shared.original = None
