"""Residual networks: ResNet-18 of any width and a small one, PreActResNet-18 and WideResNets."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robust_flatness.architectures import layers


class BasicBlock(nn.Module):
    """conv-norm-act-conv-(dropout)-norm plus the input, then act. Where shapes change, the input goes through
    a 1x1 convolution (with bias) and a batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: str, dropout: float):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = layers.CenteredBatchNorm2d(outputs)
        self.act1 = layers.ACTIVATIONS[activation]()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.norm2 = layers.CenteredBatchNorm2d(outputs)
        self.act2 = layers.ACTIVATIONS[activation]()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            shortcut = layers.SafeConv2d(inputs, outputs, 1, stride)
            self.shortcut = nn.Sequential(shortcut, layers.CenteredBatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.act1(self.norm1(self.conv1(x)))
        out = self.norm2(self.dropout(self.conv2(out)))
        return self.act2(out + self.shortcut(x))


class PreActivationBlock(nn.Module):
    """norm-act-conv-norm-act-(dropout)-conv plus the input (He et al. 2016) or, where shapes change, a 1x1
    convolution of the first activation."""

    def __init__(self, inputs: int, outputs: int, stride: int, activation: str, dropout: float):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.act1 = layers.ACTIVATIONS[activation]()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.act2 = layers.ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        changes = stride != 1 or inputs != outputs
        self.shortcut = layers.SafeConv2d(inputs, outputs, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.act1(self.norm1(x))
        out = self.conv2(self.dropout(self.act2(self.norm2(self.conv1(active)))))
        return out + (x if self.shortcut is None else self.shortcut(active))


def stack(block: type[nn.Module], blocks: Sequence[int], inputs: int, width: int, *settings) -> nn.Sequential:
    """Return `blocks` residual blocks a stage on `inputs` channels; stage i has `width * 2^i` channels, and
    all but the first halve the resolution. `settings` are activation and dropout."""
    stages = []
    for stage, count in enumerate(blocks):
        outputs = width * 2**stage
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            stages.append(block(inputs, outputs, stride, *settings))
            inputs = outputs
    return nn.Sequential(*stages)


class ResidualNetwork(nn.Module):
    """Images [n, C, H, W] in [0, 1] to logits [n, K]: a linear `classifier` of `features`, the globally
    averaged activations [n, `feature_size`] of the residual blocks."""

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw initial weights from `generator`: Kaiming normal (gain sqrt 2; fan-out for convolutions,
        fan-in for linear layers), biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


class ResNet(ResidualNetwork):
    """A convolution of `stem_stride`, batch norm and activation, then the residual blocks (see `stack`)."""

    foldable = True

    def __init__(
        self, blocks: Sequence[int], width: int, classes: int, mean: Sequence[float], std: Sequence[float],
        activation: str = "relu", dropout: float = 0.0, stem_stride: int = 1,
    ):  # fmt: skip
        super().__init__()
        self.whitening = layers.Whitening(mean, std)
        self.stem = nn.Conv2d(len(mean), width, 3, stem_stride, 1)
        self.stem_norm = layers.CenteredBatchNorm2d(width)
        self.stem_act = layers.ACTIVATIONS[activation]()
        self.stages = stack(BasicBlock, blocks, width, width, activation, dropout)
        self.pool = layers.SpatialMean()
        self.feature_size = width * 2 ** (len(blocks) - 1)
        self.classifier = nn.Linear(self.feature_size, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.pool(self.stages(self.stem_act(self.stem_norm(self.stem(self.whitening(x))))))


class PreActivationResNet(ResidualNetwork):
    """A convolution to `stem` channels (None: `width`), the residual blocks, a last norm and activation.
    Batch norms are torch's own, with a scale that weight decay pulls to 0."""

    def __init__(
        self, blocks: Sequence[int], width: int, classes: int, mean: Sequence[float], std: Sequence[float],
        activation: str = "relu", dropout: float = 0.0, stem: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.whitening = layers.Whitening(mean, std)
        self.stem = nn.Conv2d(len(mean), stem or width, 3, 1, 1, bias=False)
        self.stages = stack(PreActivationBlock, blocks, stem or width, width, activation, dropout)
        self.feature_size = width * 2 ** (len(blocks) - 1)
        self.norm = nn.BatchNorm2d(self.feature_size)
        self.act = layers.ACTIVATIONS[activation]()
        self.pool = layers.SpatialMean()
        self.classifier = nn.Linear(self.feature_size, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.pool(self.act(self.norm(self.stages(self.stem(self.whitening(x))))))
