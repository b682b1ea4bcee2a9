"""Rescaled networks that compute the same function, to show which measures notice."""

import copy
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from robust_flatness.checkpoints import load_checkpoint, save_checkpoint
from robust_flatness.errors import ConfigError
from robust_flatness.loading import without_normalisation

#: Layers that are rescaled.
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
#: Layers that may stand between a convolution and its batch norm.
INERT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def scale_convolutions(model: nn.Module, s: float) -> nn.Module:
    r"""A copy of `model` with weights and biases of all convolutions multiplied by `s`.

    The running means of the batch norms are multiplied by s and their running variances by
    s squared, so that outputs stay: :math:`(s a - s\mu) / \sqrt{s^2\sigma^2 + \epsilon}` differs
    from :math:`(a - \mu) / \sqrt{\sigma^2 + \epsilon}` only by what :math:`\epsilon` makes out.
    Flatness relative to each layer's norm stays as well, while the eigenvalues of the Hessian
    change by about :math:`1 / s^2` (Stutz et al. 2021, Sec. 3.4 and Tab. 2).

    Raises
    ------
    ValueError
        If `s` is not positive, or a convolution is not followed by a batch norm (in the order of the
        layers in the module), so that outputs would change.
    """
    if not s > 0:
        raise ValueError(f"s: {s} given, but it must be > 0")
    convolutions = [name for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS)]
    bare = sorted(set(convolutions) - _normalised(model))
    if bare:
        raise ConfigError(f"model: no batch norm after the convolution {bare[0]}; its outputs would change")
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        for name in convolutions:
            for parameter in scaled.get_submodule(name).parameters(recurse=False):
                parameter.mul_(s)
        for module in scaled.modules():
            if isinstance(module, _BatchNorm) and module.running_mean is not None:
                module.running_mean.mul_(s)
                module.running_var.mul_(s * s)
    return scaled


def scale_checkpoint(source: Path, target: Path, s: float, variant: str) -> None:
    """A checkpoint of the scaled network, of the derived model `variant`."""
    checkpoint = load_checkpoint(source)
    scaled = scale_convolutions(without_normalisation(checkpoint.model), s)
    save_checkpoint(target, scaled, replace(checkpoint.metadata, variant=variant))


def _normalised(model: nn.Module) -> set[str]:
    """Names of the convolutions that a batch norm with running statistics follows, in the order in
    which the layers stand in the module."""
    found, last = set(), None
    for name, layer in model.named_modules():
        if next(layer.children(), None) is not None or isinstance(layer, INERT):
            continue
        fits = last is not None and isinstance(layer, _BatchNorm) and layer.running_mean is not None
        if fits and layer.num_features == last[1].out_channels:
            found.add(last[0])
        last = (name, layer) if isinstance(layer, CONVOLUTIONS) else None
    return found
