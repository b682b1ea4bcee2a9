"""Relative flatness of the last linear layer."""

import torch
from torch import Tensor, nn

from robust_flatness.errors import UndefinedError
from robust_flatness.measures.objective import Estimate, Objective, of_objective


@of_objective
def relative_flatness(objective: Objective) -> Estimate:
    r"""Relative flatness (Petzka et al., NeurIPS 2021) of the last linear layer z = V phi + b.

    .. math:: \sum_{s, s'} \langle v_s, v_{s'} \rangle\, \mathrm{Tr}(H_{s, s'}),\quad
              H_{s, s'} = \partial^2 L / \partial v_s \partial v_{s'}

    with the rows v_s of V. For the cross-entropy the Hessian in this layer is known:
    :math:`\mathrm{Tr} H_{s,s'}` is the mean over examples of
    :math:`\|\phi\|^2 (p_s [s = s'] - p_s p_{s'})`, so that an example contributes
    :math:`\|\phi\|^2 (\sum_s p_s \|v_s\|^2 - \|\sum_s p_s v_s\|^2)`. Invariant to scaling the features by c
    and V by 1 / c. Robust loss: at adversarial examples found at w. The standard error is over examples.

    Raises
    ------
    UndefinedError
        If the network's logits are not the output of a linear layer.
    """
    module, values = objective.net.module, []
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []
    handles = [
        layer.register_forward_hook(lambda layer, args, out: calls.append((layer, args[0], out)))
        for layer in module.modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        for part in objective.parts:
            calls.clear()
            with torch.no_grad():
                logits = module(objective.inputs[part].clone())
            last = next((call for call in reversed(calls) if call[2].shape == logits.shape), None)
            if last is None or not torch.equal(last[2], logits):
                raise UndefinedError(
                    "model: its logits are not the output of an nn.Linear; "
                    "relative flatness is defined for a last linear layer"
                )
            layer, features, _ = last
            p, v = torch.softmax(logits.double(), dim=1), layer.weight.detach().double()
            variance = p @ (v * v).sum(1) - (p @ v).square().sum(1)
            values.append(features.double().square().sum(1) * variance)
    finally:
        for handle in handles:
            handle.remove()
    return Estimate.mean(torch.cat(values))
