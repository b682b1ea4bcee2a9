"""A network in evaluation mode, for attacks on its inputs and measures on its weights."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from robust_flatness.errors import ConfigError, UndefinedError
from robust_flatness.inputs import check_classes
from robust_flatness.models.agreement import aliased, equal, equal_gradients, similar_gradients
from robust_flatness.models.convolution import channels_last_strides
from robust_flatness.models.copying import (
    Borrowed,
    evaluation_copy,
    named_tensors,
    outcome,
    outcome_at,
    unwrapped,
)
from robust_flatness.models.first_use import (
    agrees,
    check_gradient,
    check_single,
    examples_at_once,
    first_logits,
    warn,
    warn_of_probabilities,
)
from robust_flatness.models.folding import Folded, lowered, pairs_of
from robust_flatness.models.layout import keep_channels_last
from robust_flatness.models.neighbours import NormalisationParameters, perturbed_names
from robust_flatness.models.unperturbed import what_stays
from robust_flatness.runtime.devices import keep_freed_memory
from robust_flatness.runtime.graphs import Graphs
from robust_flatness.runtime.isolation import isolated


class InferenceModel(nn.Module):
    r"""The function of a classifier in evaluation mode, at weights of its own.

    A user's module runs as it is: a frozen copy, or, where a copy is not the same function of its
    weights (closures over the module, attributes that cannot be copied), the module itself, called
    at our tensors by `torch.func.functional_call`. The module given is never changed, and nothing of
    it is shared. Images are laid out channels-last where the outputs are the same.

    The networks of this kit have their batch norms folded into convolutions (see `Folded`).

    Parameters
    ----------
    model
        Any module from inputs [n, ...] to logits [n, K].
    example
        A few inputs on which the function is checked; without them, the first inputs seen are used.

    `graphs` may be set for the kit's own networks: attacks are then replayed as CUDA graphs on a GPU,
    for which the network must neither wait for the device nor choose by values.

    Attributes
    ----------
    at_once
        How many examples should pass together, by the size of their activations; None for any number.

    Raises
    ------
    ConfigError
        On first use, if the model fails, or its output is not of shape [n, K] or not finite.
    """

    def __init__(self, model: nn.Module, example: Tensor | None = None):
        super().__init__()
        if not isinstance(model, nn.Module):
            raise ConfigError(f"model: {type(model).__name__} given; expected a torch.nn.Module")
        keep_freed_memory()
        model = unwrapped(model)
        self._source = (model,)  # in a tuple, or the user's model would become a submodule
        self._handles: tuple[nn.Module | None, list] = (None, [])
        self.graphs: Graphs | None = None
        self.classes: int | None = None
        self.random = False
        self._channels_last = False
        self.at_once: int | None = None
        self._tested: Tensor | None = None
        self._exact = False
        self.perturbed = perturbed_names(model)
        self._normalising: set[int] = set()
        self._unperturbed: list[str] | None = None
        self._folded: Folded | None = None
        try:
            network = evaluation_copy(model)
        except ConfigError:
            raise
        except Exception:  # whatever copying an attribute of a user's module raises
            self._use(Borrowed(model, self.perturbed))
        else:
            self._use(network)
            pairs = pairs_of(network)
            if pairs:
                self._lay_out(channels_last=True)
                self._folded = Folded(network, pairs)
                self._functions["float32"] = self._folded.module
        self._find_leaves()
        if example is not None:
            self.check(example)

    def _use(self, function: nn.Module | Borrowed) -> None:
        self.network = function if isinstance(function, nn.Module) else None
        self._functions = {"float32": function}  # in a dict, or they would become submodules
        self._own = {
            name: tensor
            for name, tensor in (
                named_tensors(function) if isinstance(function, nn.Module) else function.tensors
            ).items()
            if tensor.is_floating_point() or tensor.is_complex()
        }

    def _find_leaves(self) -> None:
        self._low_is_current = False
        self._leaves = dict(self._own)
        if self._folded is not None:
            self._leaves |= dict(self._folded.module.named_parameters())

    @classmethod
    def of(cls, model: nn.Module, example: Tensor | None = None) -> "InferenceModel":
        """`model` itself if it is an `InferenceModel`, else a new one made from it."""
        if not isinstance(model, cls):
            return cls(model, example)
        if example is not None:
            model.check(example)
        return model

    @classmethod
    @contextlib.contextmanager
    def lent(cls, model: nn.Module, example: Tensor | None = None) -> Iterator["InferenceModel"]:
        """As `of`, to perturb: an `InferenceModel` that was given gets its weights back at the end."""
        net = cls.of(model, example)
        before = None if net is not model else net.read(list(net._own))
        try:
            yield net
        finally:
            if before is not None:
                net.refresh(dict(zip(net._own, before, strict=True)))

    @property
    def folded(self) -> bool:
        """Whether batch norms are folded: in networks of the kit."""
        return self._folded is not None

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x)

    def logits(self, x: Tensor, precision: str = "float32") -> Tensor:
        """Logits [n, K] of inputs [n, ...], in the dtype of `x`.

        With `precision="bfloat16"`, convolutions and linear layers compute in bfloat16.
        """
        if self.classes is None:
            self.check(x)
        if precision == "float32":
            return self._call_plain(x)
        if self._folded is not None:
            return self._call(self.computing("bfloat16"), x).to(x.dtype)
        with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
            return self._call_plain(x).to(x.dtype)

    def logits_at(self, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Logits of the unfolded network with `weights` in place of its own of these names, differentiable by
        weights and inputs; nothing is changed."""
        if isinstance(self._functions["float32"], Borrowed):
            function = partial(self._functions["float32"].at, weights)
        else:
            network = self.network
            if isinstance(network, torch.jit.ScriptModule):
                raise UndefinedError("model: it is scripted, and torch.func cannot exchange its weights")
            function = lambda inputs: functional_call(network, dict(weights), (inputs,))  # noqa: E731
        return self._call(function, x)

    def prepare(self, precision: str) -> None:
        """Bring what `logits` computes from in this precision up to date with the weights."""
        if precision == "bfloat16" and self._folded is not None:
            self.computing(precision)

    def _call(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The module may change its input in place: it gets a copy."""
        if self._folded is not None:
            return function(x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x)
        layout = torch.channels_last if self._channels_last and x.ndim == 4 else torch.contiguous_format
        logits = function(x.clone(memory_format=layout))
        # a module that squeezes drops the batch of one
        return logits[None] if len(x) == 1 and logits.shape == (self.classes,) else logits

    def _call_plain(self, x: Tensor) -> Tensor:
        logits = self._call(self._functions["float32"], x)
        if self._channels_last and self._folded is None:
            keep_channels_last(logits)
        return logits

    @torch.no_grad()
    def refresh(self, source: nn.Module | Mapping[str, Tensor] | None = None) -> None:
        """Re-read weights and statistics.

        Parameters
        ----------
        source
            A model of the same architecture, or tensors by name (those not named stay as they
            are), or None for the model this copy was made from.

        Raises
        ------
        KeyError
            If a name is none of the model's floating-point parameters and buffers.
        """
        if source is None:
            source = self._source[0]
        if isinstance(source, nn.Module):
            torch._foreach_copy_(
                list(self._own.values()), [holder[key] for holder, key in self._read_from(unwrapped(source))]
            )
            changed = None
        else:
            if source:
                torch._foreach_copy_([self._own[name] for name in source], list(source.values()))
            changed = source
        self._low_is_current = False
        if self._folded is not None:
            self._folded.fold(changed)

    def _read_from(self, model: nn.Module) -> list:
        """Where `model` keeps each tensor: walking its modules costs more than reading them."""
        if self._handles[0] is not model:
            holders = {
                f"{prefix}.{key}" if prefix else key: (holder, key)
                for prefix, module in model.named_modules()
                for holder in (module._parameters, module._buffers)
                for key in holder
            }
            self._handles = (model, [holders[name] for name in self._own])
        return self._handles[1]

    def shapes(self) -> dict[str, torch.Size]:
        """Shapes of the floating-point (and complex) parameters and buffers by name."""
        return {name: tensor.shape for name, tensor in self._own.items()}

    def read(self, names: Sequence[str]) -> list[Tensor]:
        """Copies of the tensors `names` as they are now (parameters, not folded weights)."""
        return [self._own[name].detach().clone() for name in names]

    def leaves(self, names: Sequence[str], precision: str = "float32") -> list[Tensor]:
        """The tensors that stand for the parameters `names` in the computation of `logits`.

        For a folded convolution they are the folded weight and bias. They require gradients from
        here until `release`; `pull_back` turns gradients with respect to them into gradients
        with respect to the parameters.
        """
        tensors = self._leaves
        if precision == "bfloat16" and self._folded is not None:
            tensors = tensors | dict(self.computing("bfloat16").named_parameters())
        found = [tensors[name] for name in names]
        for leaf in found:
            leaf.requires_grad_(True)
        return found

    def release(self) -> None:
        """Freeze what `leaves` made to require gradients."""
        low = self._functions["bfloat16"].parameters() if "bfloat16" in self._functions else ()
        for tensor in (*self._leaves.values(), *low):
            tensor.requires_grad_(False)

    def pull_back(self, names: Sequence[str], gradients: Sequence[Tensor]) -> list[Tensor]:
        """dL/dW from the gradients with respect to the `leaves` of `names`: a_c dL/dW'_c for the
        weights and biases of folded convolutions."""
        factors = {} if self._folded is None else self._folded.factor
        gradients = [g.to(self._own[n].dtype) for n, g in zip(names, gradients, strict=True)]
        return [
            gradient * factors[name] if name in factors else gradient
            for name, gradient in zip(names, gradients, strict=True)
        ]

    def computing(self, precision: str = "float32") -> nn.Module:
        """For networks of the kit: the folded network, whose weights change with `refresh`."""
        full = self._folded.module
        if precision == "float32":
            return full
        if "bfloat16" not in self._functions:
            self._functions["bfloat16"] = lowered(full)
        elif not self._low_is_current:
            ours, theirs = named_tensors(self._functions["bfloat16"]), named_tensors(full)
            with torch.no_grad():
                torch._foreach_copy_(list(ours.values()), [theirs[name] for name in ours])
        self._low_is_current = True
        return self._functions["bfloat16"]

    def _lay_out(self, channels_last: bool) -> None:
        """Lay out images, and the weights of convolutions, from which outputs take their layout.

        Strides are written out: those of weights with one input channel or of size 1 x 1 fit both
        layouts, and torch would leave them and take the slow one.
        """
        self._channels_last = channels_last
        for module in self.network.modules() if self.network is not None else ():
            if isinstance(module, nn.Conv2d) and "weight" in module._parameters:
                weight = module.weight.detach()
                strides = channels_last_strides(weight.shape)
                laid_out = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
                if channels_last:
                    laid_out = torch.empty_strided(
                        weight.shape, strides, dtype=weight.dtype, device=weight.device
                    )
                module.weight.data = laid_out.copy_(weight)

    @torch.no_grad()
    def check(self, x: Tensor) -> None:
        """Run the first inputs through the model, once: is its output what the kit can measure?

        Chooses the memory layout, and warns (`MeasurementWarning`) where the model is random, where
        an example's logits depend on the others of its batch, and where they are probabilities.
        """
        if self.classes is not None:
            return
        x = x.detach()[:2]
        run = self._call_plain
        expected = first_logits(self._watched if self._folded is None else self._unfolded, x)
        self.classes = expected.shape[1]
        self._tested = x
        self.at_once = examples_at_once(run, x)
        if not agrees(run, x, expected):
            self.random = True
            warn("the model is random: equal inputs give different logits, so its numbers are one draw's")
        elif self._folded is None and x.ndim == 4 and self._has_convolutions():
            self._lay_out(channels_last=True)
            if not agrees(run, x, expected):
                self._lay_out(channels_last=False)
        if not self.random and len(x) > 1:
            check_single(run, x, expected)
        warn_of_probabilities(expected)
        if self.network is None:
            self.require_exact()

    def _has_convolutions(self) -> bool:
        return self.network is not None and any(isinstance(m, nn.Conv2d) for m in self.network.modules())

    def _unfolded(self, x: Tensor) -> Tensor:
        return self.network(x.clone(memory_format=torch.contiguous_format))

    def _watched(self, x: Tensor) -> Tensor:
        """The output; parameters with which a function normalises leave the neighbourhood."""
        with torch.enable_grad(), NormalisationParameters() as watched:
            try:
                for name in self.perturbed:
                    self._own[name].requires_grad_(True)
                output = self._functions["float32"](x.clone(memory_format=torch.contiguous_format))
            finally:
                self.release()
        self._normalising = watched.found
        self.perturbed = [name for name in self.perturbed if id(self._own[name]) not in watched.found]
        return output.detach() if isinstance(output, Tensor) else output

    def require_gradients(self) -> None:
        """Raise `ConfigError` unless gradients by the inputs seen first can be computed, again and again."""
        with isolated(seed=0):
            check_gradient(self._call_plain, self._tested)

    def require_perturbable(self) -> None:
        """Raise `ConfigError` unless there are weights to perturb, and they can be exchanged; warn of those
        that stay as they are."""
        self.require_exact()
        if self._unperturbed is None:
            told = self._tested if self._folded is None else None
            held = self._source[0], self.network
            self._unperturbed = [
                *what_stays(held, self._own, self.perturbed, self._normalising, self._call_plain, told)
            ]
        if not self.perturbed:
            nothing = "no parameters besides those of normalisation layers; nothing can be perturbed"
            raise ConfigError("; ".join([f"model: {nothing}", *self._unperturbed]))
        for words in self._unperturbed:
            warn(words)

    def require_labels(self, y: Tensor) -> None:
        """Raise `ConfigError` unless the labels are classes of the model."""
        if self.classes is not None:
            check_classes(y, self.classes)

    def require_exact(self) -> None:
        """Check, once, that this is the model's function of its weights, not only at the given ones.

        The module itself is the judge, for a moment with other numbers in its parameters. Where a copy
        differs, the module itself is used from here on.

        Raises
        ------
        ConfigError
            If neither equals it.
        """
        if self._exact or self._folded is not None or self._tested is None:
            return
        self._exact = True
        model, x = self._source[0], self._tested
        names = [name for name, p in model.named_parameters() if name in self._own]
        before = {name: tensor.detach().clone() for name, tensor in self._own.items()}
        g = torch.Generator().manual_seed(0)
        moved = {name: before[name] * (0.9 + 0.2 * torch.rand((), generator=g).item()) for name in names}
        moved = aliased(model, moved)
        with isolated(seed=0):
            expected = outcome_at(model, before | moved, x)
        for attempt in range(2):
            self.refresh(moved)
            same, near = self._compared(expected, x)
            if not same and self._channels_last:
                # another layout rounds otherwise, which deep networks amplify; it is no other function
                self._lay_out(channels_last=False)
                same, _ = self._compared(expected, x)
                self._lay_out(channels_last=same and near)
            if same:
                break
            if attempt == 0 and self.network is not None:
                self._channels_last = False
                self._use(Borrowed(model, self.perturbed))
                self._find_leaves()
        else:
            raise ConfigError(
                "model: its weights cannot be exchanged: neither a copy of the module nor "
                "torch.func.functional_call gives what the module itself gives with other numbers in its "
                "parameters"
            )
        self.refresh(before)
        if attempt:  # another function, which holds other tensors
            with isolated(seed=0):
                self._watched(x)

    def _compared(self, expected: tuple[Tensor, Tensor | None], x: Tensor) -> tuple[bool, bool]:
        """Whether logits and the gradient by the inputs are those expected; and whether the gradient is
        similar at least."""
        try:
            with isolated(seed=0):
                logits, gradient = outcome(self._call_plain, x, expected[1] is not None)
        except Exception:  # functional_call of a module that does not suit it
            return False, False
        same = equal(logits, expected[0])
        return (
            same and equal_gradients(gradient, expected[1]),
            same and similar_gradients(gradient, expected[1]),
        )
