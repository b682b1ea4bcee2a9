"""A frozen evaluation copy of a network, for attacks on its inputs and measures on its weights."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from robust_flatness.models.layers import CenteredBatchNorm2d
from robust_flatness.models.tracing import Fold, Trace, evaluation_copy, trace


class InferenceModel(nn.Module):
    r"""Evaluation-mode copy of a classifier, with batch norms folded into convolutions.

    A batch norm with scale :math:`\gamma`, shift :math:`\beta` and running statistics
    :math:`\mu, \sigma^2` after a convolution :math:`(W, b)` in evaluation mode makes, with it,
    one convolution: :math:`W'_c = a_c W_c`, :math:`b'_c = a_c (b_c - \mu_c) + \beta_c` with
    :math:`a_c = \gamma_c / \sqrt{\sigma_c^2 + \epsilon}`. It is folded where nothing else uses
    the convolution's output.

    The network is traced once; `refresh` re-reads weights and statistics. A model that cannot be
    traced, or whose folded output differs, is used as a plain copy instead (`folded` is then
    False): same results, slower. The model given is never changed, and nothing of it is shared.

    Parameters
    ----------
    model
        Any module from inputs [n, ...] to logits [n, K].
    example
        A few inputs on which the copy is checked against the model; without them, the first
        inputs seen are used.

    Raises
    ------
    ValueError
        On first use, if the output is not of shape [n, K].
    """

    def __init__(self, model: nn.Module, example: Tensor | None = None):
        super().__init__()
        self.network = evaluation_copy(model)
        self._source = (model,)  # in a tuple, or the user's model would become a submodule
        self._handles: tuple[nn.Module | None, list] = (None, [])
        self._checked = False
        self._prepare(trace(self.network), channels_last=True)
        if example is not None:
            self._check(example)

    @classmethod
    def of(cls, model: nn.Module, example: Tensor | None = None) -> "InferenceModel":
        """`model` itself if it is an `InferenceModel`, else a new one made from it."""
        if not isinstance(model, cls):
            return cls(model, example)
        if example is not None and not model._checked:
            model._check(example)
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
    def trace(self) -> Trace | None:
        """The traced function in use, None for the plain copy."""
        return self._trace

    @property
    def weights(self) -> list[Tensor]:
        """The current weights of the traced function, folded, in the order of its inputs."""
        return self._weights

    @property
    def folded(self) -> bool:
        """Whether the traced function is used (True) or the plain copy (False)."""
        return self._trace is not None

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x)

    def logits(self, x: Tensor, precision: str = "float32") -> Tensor:
        """Logits [n, K] of inputs [n, ...], in the dtype of `x`.

        With `precision="bfloat16"`, convolutions and linear layers compute in bfloat16.
        """
        if not self._checked:
            self._check(x)
        if precision == "float32":
            return self._forward(x, self._weights)
        if self._computes_low:
            return self._forward(x, self._low_weights()).to(x.dtype)
        with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
            return self._forward(x, self._weights).to(x.dtype)

    def prepare(self, precision: str) -> None:
        """Bring what `logits` computes from in this precision up to date with the weights."""
        if precision == "bfloat16" and self._computes_low:
            self._low_weights()

    def _forward(self, x: Tensor, weights: list[Tensor]) -> Tensor:
        if self._channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.network(x) if self._trace is None else self._trace.run(x, *weights)

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
            values = [holder[key] for holder, key in self._read_from(source)]
            torch._foreach_copy_(self._targets, values)
            self._fold(statistics=True)
        elif source:
            torch._foreach_copy_([self._own[name] for name in source], list(source.values()))
            self._fold(statistics=not self._of_norms.isdisjoint(source))

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

    def read(self, names: Sequence[str]) -> list[Tensor]:
        """Copies of the tensors `names` as they are now (parameters, not folded weights)."""
        return [self._own[name].detach().clone() for name in names]

    def leaves(self, names: Sequence[str], precision: str = "float32") -> list[Tensor]:
        """The tensors that stand for the parameters `names` in the computation of `logits`.

        For a folded convolution they are the folded weight and bias. They require gradients from
        here until `release`; `pull_back` turns gradients with respect to them into gradients
        with respect to the parameters.
        """
        low = precision == "bfloat16" and self._computes_low
        weights = self._low_weights() if low else self._weights
        found = [weights[self._position[n]] if n in self._position else self._own[n] for n in names]
        for leaf in found:
            leaf.requires_grad_(True)
        return found

    def release(self) -> None:
        """Freeze what `leaves` made to require gradients."""
        for tensor in (*self._own.values(), *self._weights, *self._low):
            tensor.requires_grad_(False)

    def pull_back(self, names: Sequence[str], gradients: Sequence[Tensor]) -> list[Tensor]:
        """dL/dW from the gradients with respect to the `leaves` of `names`: a_c dL/dW'_c for the
        weights and biases of folded convolutions."""
        gradients = [g.to(self._own[n].dtype) for n, g in zip(names, gradients, strict=True)]
        return [
            gradient * self._factor[name] if name in self._factor else gradient
            for name, gradient in zip(names, gradients, strict=True)
        ]

    def _prepare(self, traced: Trace | None, channels_last: bool) -> None:
        """Lay out the copy's tensors for the traced function, or for the plain copy if None."""
        self._trace, self._channels_last = traced, channels_last
        self._computes_low = traced is not None and traced.complete
        network = self.network
        _set_layout(network, channels_last)
        folded = self._lay_out(traced.folds if traced is not None else [])
        self._own = {
            name: tensor
            for name, tensor in (*network.named_parameters(), *network.named_buffers())
            if tensor.is_floating_point()
        }
        self._targets = list(self._own.values())
        self._weights: list[Tensor] = []
        self._low: list[Tensor] = []
        self._low_is_current = False
        self._position: dict[str, int] = {}
        self._factor: dict[str, Tensor] = {}
        for position, source in enumerate(traced.inputs if traced is not None else ()):
            if isinstance(source, str):
                name, tensor = source, self._own[source]
            else:
                fold, key = source
                name = f"{fold.conv}.{key}"
                tensor, self._factor[name] = folded[source]
            self._position[name] = position
            self._weights.append(tensor)
        self._fold(statistics=True)

    def _lay_out(self, folds: list[Fold]) -> dict[tuple[Fold, str], tuple[Tensor, Tensor]]:
        """Put the statistics of all folded batch norms side by side in one buffer each, so that
        folding takes a few operations for all of them and one for each convolution.

        Returns the folded weight or bias and the factor a_c of each.
        """
        get = self.network.get_submodule
        self._of_norms = {
            f"{fold.norm}.{key}"
            for fold in folds
            for key in ("weight", "bias", "running_mean", "running_var")
        }
        self._products: list[tuple[Tensor, Tensor, Tensor]] = []
        if not folds:
            return {}
        norms = [get(fold.norm) for fold in folds]
        sizes = [norm.num_features for norm in norms]
        self._statistics = norms[0].running_mean.new_zeros(10, sum(sizes)).unbind()
        mean, var, gamma, beta, conv_bias, eps, one, scale, _, folded_bias = self._statistics
        result, start = {}, 0
        for fold, norm, size in zip(folds, norms, sizes, strict=True):
            conv, part = get(fold.conv), slice(start, start + size)
            start += size
            for buffer, module, key in (
                (mean, norm, "running_mean"),
                (var, norm, "running_var"),
                (gamma, norm, "weight"),
                (beta, norm, "bias"),
                (conv_bias, conv, "bias"),
            ):
                tensor = getattr(module, key)
                if tensor is not None:
                    buffer[part] = tensor.detach()
                    tensor.data = buffer[part]
            eps[part] = norm.eps
            # a centred batch norm scales by 1 + weight, one without weights by 1
            one[part] = float(isinstance(norm, CenteredBatchNorm2d) or norm.weight is None)
            factor = scale[part].view(-1, 1, 1, 1)
            weight = torch.empty_like(conv.weight)
            self._products.append((conv.weight.detach(), factor, weight))
            result[fold, "weight"] = (weight, factor)
            # detached, or making one bias require gradients would make the whole buffer
            result[fold, "bias"] = (folded_bias[part].detach(), scale[part])
        return result

    @torch.no_grad()
    def _fold(self, statistics: bool) -> None:
        self._low_is_current = False
        if not self._products:
            return
        mean, var, gamma, beta, conv_bias, eps, one, scale, shift, folded_bias = self._statistics
        if statistics:
            torch.add(var, eps, out=scale).rsqrt_().mul_(gamma + one)
            torch.addcmul(beta, mean, scale, value=-1, out=shift)
        torch.addcmul(shift, conv_bias, scale, out=folded_bias)
        for weight, factor, out in self._products:
            torch.mul(weight, factor, out=out)

    def _low_weights(self) -> list[Tensor]:
        if not self._low:
            self._low = [tensor.detach().to(torch.bfloat16) for tensor in self._weights]
            self._low_is_current = True
        if not self._low_is_current:
            with torch.no_grad():
                torch._foreach_copy_(self._low, self._weights)
            self._low_is_current = True
        return self._low

    @torch.no_grad()
    def _check(self, x: Tensor) -> None:
        """Compare the traced function with the plain copy; where it differs or its memory layout
        does not suit the model's own code, do without."""
        traced = self._trace
        self._prepare(None, channels_last=False)
        expected = self._forward(x, [])
        if not isinstance(expected, Tensor) or expected.ndim != 2 or len(expected) != len(x):
            got = tuple(expected.shape) if isinstance(expected, Tensor) else type(expected).__name__
            raise ValueError(f"model: output {got} for inputs {tuple(x.shape)}; it must be logits [n, K]")
        tolerance = 1e3 * torch.finfo(expected.dtype).eps * expected.abs().amax().clamp(min=1)
        for candidate, channels_last in ((traced, True), (traced, False), (None, True)):
            try:
                self._prepare(candidate, channels_last)
                if bool((self._forward(x, self._weights) - expected).abs().amax() <= tolerance):
                    break
            except RuntimeError:  # .view() of a tensor whose layout it did not expect
                continue
        else:
            self._prepare(None, channels_last=False)
        self._checked = True


def _set_layout(network: nn.Module, channels_last: bool) -> None:
    """Lay out the weights of convolutions, from which their outputs take their layout.

    Strides are written out: those of weights with one input channel or of size 1 x 1 fit both
    layouts, and torch would leave them and take the slow one.
    """
    network.to(memory_format=torch.contiguous_format)
    for module in network.modules():
        if channels_last and isinstance(module, nn.Conv2d):
            weight = module.weight.detach()
            strides = channels_last_strides(weight.shape)
            laid_out = torch.empty_strided(weight.shape, strides, dtype=weight.dtype, device=weight.device)
            module.weight.data = laid_out.copy_(weight)


def channels_last_strides(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Strides of a channels-last tensor of four dimensions."""
    _, channels, height, width = shape
    return channels * height * width, 1, channels * width, channels
