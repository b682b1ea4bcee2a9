"""Rescaled networks that compute the same function, to show which measures notice."""

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from robust_flatness.models.tracing import evaluation_copy, trace


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
        If `s` is not positive, or a convolution is not followed by a batch norm, so that outputs
        would change.
    """
    if not s > 0:
        raise ValueError(f"s: {s} given, but it must be > 0")
    convolutions = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    }
    traced = trace(evaluation_copy(model))
    if traced is not None:
        bare = sorted(convolutions.keys() - {fold.conv for fold in traced.folds})
        if bare:
            raise ValueError(
                f"model: no batch norm after the convolution {bare[0]}; its outputs would change"
            )
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
