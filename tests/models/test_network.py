import copy

import pytest
import torch
from cases import Call
from torch import nn
from torch.nn import functional as F

from robust_flatness.architectures import ResNet, build_model
from robust_flatness.architectures.layers import CenteredBatchNorm2d, FoldedConv2d
from robust_flatness.config import ModelSpec
from robust_flatness.network import Network
from robust_flatness.training.objectives.self_supervision import RotationNetwork


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def randomise(model, seed=1):
    """Statistics and parameters that no layer is the identity for."""
    g = generator(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            module.running_mean.normal_(generator=g)
            module.running_var.uniform_(0.3, 3, generator=g)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=g, dtype=parameter.dtype))
    return model


def resnet(name="small-resnet", **changes):
    spec = ModelSpec(name=name, width=4, **changes)
    return build_model(spec, 5, [0.3, 0.4], [0.2, 0.3], generator()).double()


class Viewing(nn.Module):
    """A view of activations, which fails in channels-last layout."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 36, 3)

    def forward(self, x, scale=None):
        out = self.norm(self.conv(x)).relu().view(x.size(0), -1)
        return self.out(out if scale is None else scale * out)


CASES = {
    "resnet": resnet,
    "resnet-gelu": lambda: resnet(activation="gelu"),
    "resnet-dropout": lambda: resnet(dropout=0.3),
    "rotations": lambda: RotationNetwork(resnet(), generator()),
    "preactivation": lambda: RotationNetwork(resnet(name="preact-resnet18"), generator()),
    "viewing": Viewing,
}
#: Networks of the kit, whose batch norms are folded.
FOLDED = ("resnet", "resnet-gelu", "resnet-dropout", "rotations")


@pytest.fixture(params=CASES)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    torch.manual_seed(0)
    return randomise(CASES[name]().double())


@pytest.fixture
def x():
    return torch.rand(6, 2, 8, 8, dtype=torch.float64, generator=generator())


def test_equals_the_model_in_evaluation_mode(name, model, x):
    net = Network(model.train(), x[:2])
    assert (net.folding is not None) is (name in FOLDED)
    if net.folding is not None:
        modules = net.folding.function.module.modules()
        assert not any(isinstance(module, CenteredBatchNorm2d) for module in modules)
    torch.testing.assert_close(net(x), copy.deepcopy(model).eval()(x), rtol=1e-10, atol=1e-10)


def test_input_gradients_equal_the_models(model, x):
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    for function, leaf in zip((Network(model, x[:2]), copy.deepcopy(model).eval()), inputs, strict=True):
        function(leaf).square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("way", ["autograd", "torch.func"])
def test_gradients_by_the_weights_of_a_view_equal_those_of_the_parameters(model, x, way):
    net, reference = Network(model, x[:2]), copy.deepcopy(model).eval()
    own = {name: p for name, p in reference.named_parameters() if name in net.layers}
    expected = torch.autograd.grad(reference(x).square().sum(), list(own.values()))
    leaves = {name: weight.requires_grad_() for name, weight in net.weights().items()}
    if way == "autograd":
        found = torch.autograd.grad(net.at(leaves)(x).square().sum(), list(leaves.values()))
    else:
        found = torch.func.grad(lambda w: net.at(w)(x).square().sum())(net.weights()).values()
    for name, ours, theirs in zip(leaves, found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def _subclass(model):
    class Own(ResNet):
        def forward(self, x):
            return 2 * super().forward(x)

    model.__class__ = Own


CHANGES = {
    "subclass": _subclass,
    "hook": lambda model: model.stem_norm.register_forward_hook(lambda module, inputs, output: 2 * output),
    "layer": lambda model: setattr(model, "stem_norm", nn.BatchNorm2d(4).double()),
    "parametrisation": lambda model: nn.utils.parametrizations.weight_norm(model.stem),
}


@pytest.mark.parametrize("change", CHANGES)
def test_networks_of_the_kit_that_were_changed_are_not_folded(change, x):
    model = randomise(resnet())
    CHANGES[change](model)
    net = Network(model, x)
    assert net.folding is None
    torch.testing.assert_close(net(x), copy.deepcopy(model).eval()(x))


def test_a_view_at_a_module_has_its_weights_and_statistics(model, x):
    net = Network(model, x[:2])
    before = net(x)
    other = randomise(copy.deepcopy(model), seed=3)
    view = net.at(other)
    torch.testing.assert_close(view(x), copy.deepcopy(other).eval()(x), rtol=1e-9, atol=1e-10)
    randomise(other, seed=4)
    view = net.at(other)
    torch.testing.assert_close(view(x), copy.deepcopy(other).eval()(x), rtol=1e-9, atol=1e-10)
    assert torch.equal(net(x), before)


def test_a_view_at_some_tensors_keeps_the_others(model, x):
    net, reference = Network(model, x[:2]), copy.deepcopy(model).eval()
    tensors = (*reference.named_parameters(), *reference.named_buffers())
    own = {name: tensor for name, tensor in tensors if tensor.is_floating_point()}
    for kind in ("weight", "bias", "running_mean", "running_var"):
        changed = {name: 1.2 * t.detach() + 0.1 for name, t in own.items() if name.endswith(kind)}
        for part in (dict(list(changed.items())[::2]), dict(list(changed.items())[1::2])):
            net = net.at(part)
            for name, value in part.items():
                own[name].data.copy_(value)
            torch.testing.assert_close(net(x), reference(x), rtol=1e-9, atol=1e-9, msg=kind)


def test_bfloat16_stays_close_and_returns_the_inputs_dtype(model, x):
    net, x = Network(model.float(), x[:2].float()), x.float()
    for view in (net, net.at({name: 2 * weight for name, weight in net.weights().items()})):
        low, full = view.logits(x, "bfloat16"), view(x)
        assert low.dtype == torch.float32
        assert not torch.equal(low, full)
        assert (low - full).abs().max() < 0.05 * full.abs().max()


def test_weights_that_require_gradients_are_differentiated_in_bfloat16_after_a_pass_without(x):
    net = Network(randomise(resnet()).float(), x[:2].float())
    leaves = {name: weight.requires_grad_() for name, weight in net.weights().items()}
    view = net.at(leaves)
    with torch.no_grad():
        view.logits(x.float(), "bfloat16")
    gradients = torch.autograd.grad(view.logits(x.float(), "bfloat16").sum(), list(leaves.values()))
    assert all(gradient.abs().max() > 0 for gradient in gradients[:2])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stride", [1, (2, 1)])
@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (3, 0), ((1, 3), (0, 1)), (1, 0)])
def test_gradient_of_a_convolution_of_images(channels, kernel, padding, stride):
    conv = FoldedConv2d(channels, 6, kernel, stride, padding, dtype=torch.float64)
    x = torch.rand(3, channels, 7, 8, dtype=torch.float64, generator=generator()).requires_grad_()
    tensors = [x, conv.weight, conv.bias]
    plain = F.conv2d(*tensors, conv.stride, conv.padding)
    found = torch.autograd.grad(conv(x).relu().square().sum(), tensors)
    expected = torch.autograd.grad(plain.relu().square().sum(), tensors)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("output", [lambda x: x, lambda x: x.sum(dim=(1, 2, 3)), lambda x: (x, x)])
def test_output_of_the_wrong_shape_is_named(output, x):
    with pytest.raises(ValueError, match=r"model: output .* \[n, K\]"):
        Network(Call(output))(x)


def test_layers_may_be_called_by_keyword():
    class ByKeyword(nn.Conv2d):
        """Not replaced; its inner convolution is, by one with another `forward`."""

        def __init__(self):
            super().__init__(1, 10, 8)
            self.inner = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return super().forward(input=self.inner(input=x)).flatten(1)

    model, images = ByKeyword(), torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(Network(model)(images), model(images))
