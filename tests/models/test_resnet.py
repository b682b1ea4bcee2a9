import math

import pytest
import torch
from torch import nn

from robust_flatness.architectures import build_model
from robust_flatness.architectures.layers import CenteredBatchNorm2d, SafeConv2d
from robust_flatness.config import ModelSpec
from robust_flatness.seeding import generator


def network(name, width):
    """A network of images with three channels."""
    spec = ModelSpec(name=name, width=width)
    return build_model(spec, 10, (0.4,) * 3, (0.2,) * 3, generator(0, "test"))


def test_centered_batch_norm_is_batch_norm_with_scale_one_plus_w():
    ours, theirs = CenteredBatchNorm2d(5).double(), nn.BatchNorm2d(5).double()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        ours.weight.copy_(torch.randn(5, generator=rng, dtype=torch.float64))
        ours.bias.copy_(torch.randn(5, generator=rng, dtype=torch.float64))
        theirs.weight.copy_(1 + ours.weight)
        theirs.bias.copy_(ours.bias)
    for _ in range(3):
        x = torch.randn(6, 5, 3, 4, generator=rng, dtype=torch.float64)
        assert torch.equal(ours(x), theirs(x))
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    ours.eval(), theirs.eval()
    before = ours.running_mean.clone()
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_mean, before)


def test_initial_weights_have_kaiming_spread():
    """Standard deviation sqrt(2 / fan) within five of its own standard errors, 1 / sqrt(2 n); biases 0."""
    model = network("resnet18", width=32)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan = module.out_channels * math.prod(module.kernel_size)
        elif isinstance(module, nn.Linear):
            fan = module.in_features
        else:
            continue
        expected, n = math.sqrt(2 / fan), module.weight.numel()
        assert abs(module.weight.std().item() / expected - 1) < 5 / math.sqrt(2 * n)
        assert abs(module.weight.mean().item()) < 5 * expected / math.sqrt(n)
        assert module.bias is None or not module.bias.any()


@pytest.mark.parametrize("channels", [(2, 4), (8, 16), (15, 16)])
def test_weight_gradients_of_narrow_strided_shortcuts_leave_the_memory_alone(channels):
    """Torch's own layer writes past its workspace here and crashes: from 8 channels on with AVX-512 alone."""
    inputs, outputs = channels
    layer = SafeConv2d(inputs, outputs, 1, 2, padding_mode="reflect")
    x = torch.rand(4, inputs, 8, 8).contiguous(memory_format=torch.channels_last)
    expected = nn.Conv2d(inputs, outputs, 1, 2).double()
    expected.load_state_dict(layer.state_dict())
    (by_weight,) = torch.autograd.grad(expected(x.double()).square().sum(), [expected.weight])
    neighbours = [torch.full((inputs * 64,), 7.0) for _ in range(50)]
    for _ in range(50):
        (gradient,) = torch.autograd.grad(layer(x).square().sum(), [layer.weight])
        torch.testing.assert_close(gradient.double(), by_weight, rtol=1e-4, atol=1e-4)
    assert all(bool((neighbour == 7).all()) for neighbour in neighbours)


@pytest.mark.parametrize("name", ["preact-resnet18", "wide-resnet-28"])
def test_preactivation_networks_fit_the_kit(name):
    """Features before a linear classifier; the input counts from 0 to 1 alone."""
    model = network(name, width=4).double()
    x = torch.rand(6, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model.train()
    model(x)
    model.eval()
    logits = model(x)
    assert logits.shape == (6, 10)
    assert model.features(x).shape == (6, model.feature_size)
    torch.testing.assert_close(model.classifier(model.features(x)), logits)
    torch.testing.assert_close(model(2 * x - 0.5), model((2 * x - 0.5).clamp(0, 1)))
