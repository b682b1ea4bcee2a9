"""Rescaling of weights that preserves the function, to test which measures are invariant."""

import copy
import itertools
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from robust_flatness.checkpoints import load_checkpoint, save_checkpoint
from robust_flatness.errors import ConfigError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def scale_convolutions(model: nn.Module, s: float) -> nn.Module:
    r"""Return a copy of `model` with weights and biases of all convolutions multiplied by `s`.

    The running means of the batch norms are multiplied by s and their running variances by s squared. Outputs
    are unchanged up to the effect of :math:`\epsilon` in :math:`(s a - s\mu) / \sqrt{s^2\sigma^2 +
    \epsilon}`, and so is flatness relative to each layer's norm, while the eigenvalues of the Hessian change
    by about :math:`1 / s^2` (Stutz et al. 2021, Sec. 3.4 and Tab. 2). `s` is positive. Raises `ConfigError`
    if a convolution is not followed by a batch norm, in the order of layers in the module.
    """
    layers = [pair for pair in model.named_modules() if isinstance(pair[1], (*CONVOLUTIONS, _BatchNorm))]
    for (name, layer), (_, following) in itertools.zip_longest(layers, layers[1:], fillvalue=("", None)):
        if isinstance(layer, CONVOLUTIONS) and not isinstance(following, _BatchNorm):
            raise ConfigError(f"model: no batch norm after the convolution {name}; its outputs would change")
    scaled = copy.deepcopy(model)
    convolutions = [module for module in scaled.modules() if isinstance(module, CONVOLUTIONS)]
    with torch.no_grad():
        # a set, since convolutions may share a parameter
        for parameter in {p for module in convolutions for p in module.parameters(recurse=False)}:
            parameter.mul_(s)
        for module in scaled.modules():
            if isinstance(module, _BatchNorm):
                module.running_mean.mul_(s)
                module.running_var.mul_(s * s)
    return scaled


def scale_checkpoint(source: Path, target: Path, s: float, variant: str) -> None:
    """Scale the network of checkpoint `source` by `s` and save it to `target` as variant `variant`."""
    checkpoint = load_checkpoint(source)
    scaled = scale_convolutions(checkpoint.model, s)
    save_checkpoint(target, scaled, replace(checkpoint.metadata, variant=variant))
