"""The layout of gradients: as that of the activations, without touching what a network computes."""

import torch
from torch import Tensor

#: Operations that hand back gradients in the usual layout, whatever that of their inputs: means over pixels
#: and flattenings. The next gradient, a ReLU's say, then takes up to fifty times as long.
FORGETFUL = ("MeanBackward1", "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0")


def keep_channels_last(output: Tensor) -> None:
    """Have the gradients of images that reach the last convolutions from `output` laid out channels-last.

    Values stay the same to the bit; where they are laid out so already, nothing happens.
    """
    nodes, seen = [output.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen or node.name() == "ConvolutionBackward0":
            continue
        seen.add(node)
        if node.name() in FORGETFUL and len(node._saved_self_sym_sizes) == 4:
            node.register_hook(_laid_out)
        nodes += [following for following, _ in node.next_functions]


def _laid_out(
    gradients: tuple[Tensor | None, ...], _: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    return tuple(
        g if g is None or g.ndim != 4 else g.contiguous(memory_format=torch.channels_last) for g in gradients
    )
