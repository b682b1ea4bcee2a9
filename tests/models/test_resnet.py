"""The networks: what the paper's architecture has, counted and compared."""

import math

import pytest
import torch
from torch import nn

from robust_flatness.architectures import NETWORKS, CenteredBatchNorm2d, Whitening, build_model
from robust_flatness.architectures.layers import ACTIVATIONS, SafeConv2d
from robust_flatness.config import ModelSpec
from robust_flatness.config.catalogue import COSTS
from robust_flatness.seeding import generator


def network(name="small-resnet", width=4, channels=1, classes=10, **settings):
    spec = ModelSpec(name=name, width=width, **settings)
    return build_model(spec, classes, (0.4,) * channels, (0.2,) * channels, generator(0, "test"))


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
    assert torch.equal(ours.scale, theirs.weight)


def test_cumulative_statistics_average_all_batches():
    """momentum=None is how batch-norm statistics are recomputed for averaged weights."""
    norm = CenteredBatchNorm2d(2, momentum=None).double()
    batches = [torch.randn(8, 2, 3, 3, dtype=torch.float64) + shift for shift in range(4)]
    for batch in batches:
        norm(batch)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches])
    assert torch.allclose(norm.running_mean, means.mean(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 10), (3, 100)])
def test_resnet18_has_the_parameters_counted_by_hand(channels, classes):
    """Per block of c -> d channels: 9cd + 9dd convolution weights and four batch-norm vectors of d;
    a shortcut adds cd + d and two vectors; only stem, shortcuts and classifier have biases."""
    w = 64
    stem = channels * w * 9 + w + 2 * w
    total, inputs = stem, w
    for stage in range(4):
        d = w * 2**stage
        for block in range(2):
            total += 9 * inputs * d + 9 * d * d + 4 * d
            if stage > 0 and block == 0:
                total += inputs * d + d + 2 * d
            inputs = d
    total += 8 * w * classes + classes
    model = network("resnet18", width=w, channels=channels, classes=classes)
    assert sum(p.numel() for p in model.parameters()) == total
    assert len([m for m in model.modules() if isinstance(m, nn.Conv2d)]) == 1 + 16 + 3


def test_biases_where_the_paper_has_them():
    """The stem, the 1x1 convolutions of the shortcuts and the classifier; no other convolution."""
    model = network("resnet18", width=4, channels=3)
    with_bias = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None}
    shortcuts = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)}
    assert len(shortcuts) == 3
    assert with_bias == shortcuts | {"stem"}
    assert model.classifier.bias is not None


def test_initial_weights_have_kaiming_spread():
    """Standard deviation sqrt(2 / fan) within five of its own standard errors, 1 / sqrt(2 n); biases 0."""
    model = network("resnet18", width=32, channels=3)
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


def test_whitening_clamps_to_the_box_and_standardises():
    whiten = Whitening((0.5, 0.25), (0.5, 0.125))
    x = torch.tensor([-0.3, 0.0, 0.75, 1.0, 1.6]).view(1, 1, 1, 5).expand(1, 2, 1, 5)
    out = whiten(x)
    assert out[0, 0, 0].tolist() == [-1, -1, 0.5, 1, 1]
    assert out[0, 1, 0].tolist() == [-2, -2, 4, 6, 6]
    assert not list(whiten.parameters())


@pytest.mark.parametrize("name", ["small-resnet", "resnet18"])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation_gives_logits_through_the_features(name, activation):
    model = network(name, width=2, channels=3, activation=activation).eval()
    x = torch.rand(5, 3, 16, 16)
    features = model.features(x)
    assert features.shape == (5, model.feature_size)
    assert torch.equal(model(x), model.classifier(features))
    assert any(isinstance(module, ACTIVATIONS[activation]) for module in model.modules())
    if activation != "relu":
        assert not any(isinstance(module, nn.ReLU) for module in model.modules())


def test_stages_double_channels_and_halve_the_resolution():
    model = network("resnet18", width=4, channels=3).eval()
    shapes = []
    for stage in range(0, 8, 2):
        model.stages[stage + 1].register_forward_hook(lambda _, __, out: shapes.append(tuple(out.shape[1:])))
    model(torch.rand(1, 3, 32, 32))
    assert shapes == [(4, 32, 32), (8, 16, 16), (16, 8, 8), (32, 4, 4)]


def test_a_block_adds_its_input():
    """With the residual branch's last scale at 0 (w = -1) and shift 0, a block is its activation."""
    block = network().stages[0].eval()
    with torch.no_grad():
        block.norm2.weight.fill_(-1)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize("channels", [(2, 4), (4, 8), (6, 8), (8, 16), (12, 16), (15, 16)])
def test_weight_gradients_of_narrow_strided_shortcuts_leave_the_memory_alone(channels):
    """Torch's own layer writes past its workspace here and crashes: from 8 channels on with AVX-512 alone."""
    inputs, outputs = channels
    layer = SafeConv2d(inputs, outputs, 1, 2)
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
    model = network(name, width=4, channels=3).double()
    x = torch.rand(6, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model.train()
    model(x)
    model.eval()
    logits = model(x)
    assert logits.shape == (6, 10)
    assert model.features(x).shape == (6, model.feature_size)
    torch.testing.assert_close(model.classifier(model.features(x)), logits)
    torch.testing.assert_close(model(2 * x - 0.5), model((2 * x - 0.5).clamp(0, 1)))


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_state_the_size_of_each_network(name):
    """Among them those published for PreActResNet-18, WideResNet-28-10 and -34-10."""
    assert NETWORKS.keys() == COSTS.keys()
    channels = 1 if name == "small-resnet" else 3
    with torch.device("meta"):
        spec = ModelSpec(name=name, width=COSTS[name]["width"])
        model = build_model(spec, 10, (0.5,) * channels, (0.25,) * channels)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(COSTS[name]["parameters"], rel=0.002)
