"""Pre-activation residual networks: PreActResNet-18 (He et al. 2016), WideResNets (Zagoruyko et al. 2016)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robust_flatness.architectures.layers import ACTIVATIONS, SafeConv2d, SpatialMean, Whitening
from robust_flatness.architectures.resnet import draw_weights, stack


class PreActivationBlock(nn.Module):
    """norm-act-conv-norm-act-(dropout)-conv plus the input.

    Where shapes change, what is added is a 1x1 convolution of the first activation.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, activation: str, dropout: float):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.act1 = ACTIVATIONS[activation]()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.act2 = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        changes = stride != 1 or inputs != outputs
        self.shortcut = SafeConv2d(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.act1(self.norm1(x))
        out = self.conv2(self.dropout(self.act2(self.norm2(self.conv1(active)))))
        return out + (x if self.shortcut is None else self.shortcut(active))


class PreActivationResNet(nn.Module):
    """Images [n, C, H, W] in [0, 1] to logits [n, K].

    A convolution to `stem` channels (None: `width`), the residual blocks, a last norm and activation;
    otherwise as `ResNet`. Batch norms are torch's own, with a scale that weight decay pulls to 0.
    """

    def __init__(
        self, blocks: Sequence[int], width: int, classes: int, mean: Sequence[float], std: Sequence[float],
        activation: str = "relu", dropout: float = 0.0, stem: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.whitening = Whitening(mean, std)
        self.stem = nn.Conv2d(len(mean), stem or width, 3, 1, 1, bias=False)
        self.stages, outputs = stack(PreActivationBlock, blocks, stem or width, width, activation, dropout)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = ACTIVATIONS[activation]()
        self.pool = SpatialMean()
        self.feature_size = outputs
        self.classifier = nn.Linear(outputs, classes)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw initial weights from `generator`."""
        draw_weights(self, generator)

    def features(self, x: Tensor) -> Tensor:
        return self.pool(self.act(self.norm(self.stages(self.stem(self.whitening(x))))))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))
