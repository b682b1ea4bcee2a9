import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robust_flatness.config import ModelSpec
from robust_flatness.models import CenteredBatchNorm2d, ResNet, build_model
from robust_flatness.models.convolution import image_conv2d
from robust_flatness.models.inference import InferenceModel
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


def resnet(**changes):
    spec = ModelSpec(name="small-resnet", width=4, **changes)
    return build_model(spec, 5, [0.3, 0.4], [0.2, 0.3], generator()).double()


class TwoUses(nn.Module):
    """The convolution's output is used beside its batch norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        a = self.conv(x)
        return self.out((self.norm(a) + a).relu().mean(dim=(2, 3)))


class Shared(nn.Module):
    """One convolution before two batch norms."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm1, self.norm2 = (
            nn.Conv2d(2, 2, 3, padding=1),
            nn.BatchNorm2d(2),
            nn.BatchNorm2d(2),
        )

    def forward(self, x):
        return self.norm2(self.conv(self.norm1(self.conv(x)).relu())).mean(dim=(2, 3))


class Branching(nn.Module):
    """Control flow that depends on the input."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x):
        out = self.norm(self.conv(x)).mean(dim=(2, 3))
        return out if out.sum() > 0 else 2 * out


class Viewing(nn.Module):
    """A view of activations, which fails in channels-last layout."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 36, 3)

    def forward(self, x, scale=None):
        out = self.norm(self.conv(x)).relu().view(x.size(0), -1)
        return self.out(out if scale is None else scale * out)


def plain_cnn():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, stride=2, bias=False), nn.BatchNorm2d(6, affine=False), nn.Dropout(0.5), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


def with_hook():
    model = plain_cnn()
    model[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


def parametrised():
    model = plain_cnn()
    nn.utils.parametrizations.weight_norm(model[0])
    return model


def no_statistics():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


CASES = {
    "resnet": resnet,
    "resnet-gelu": lambda: resnet(activation="gelu"),
    "resnet-dropout": lambda: resnet(dropout=0.3),
    "rotations": lambda: RotationNetwork(resnet(), generator()),
    "plain": plain_cnn,
    "two-uses": TwoUses,
    "shared": Shared,
    "viewing": Viewing,
    "no-statistics": no_statistics,
    "branching": Branching,
    "hook": with_hook,
    "parametrised": parametrised,
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
    net = InferenceModel(model.train(), x[:2])
    assert net.folded is (name in FOLDED)
    expected = copy.deepcopy(model).eval()(x)
    torch.testing.assert_close(net(x), expected, rtol=1e-10, atol=1e-10)


def test_input_gradients_equal_the_models(model, x):
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    net = InferenceModel(model, x[:2])
    for function, leaf in zip((net, copy.deepcopy(model).eval()), inputs, strict=True):
        function(leaf).square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-9, atol=1e-10)


def test_pulled_back_gradients_are_those_of_the_parameters(model, x):
    net = InferenceModel(model, x[:2])
    reference = copy.deepcopy(model).eval()
    names = [name for name, _ in reference.named_parameters()]
    names = [n for n in names if not any(n.startswith(prefix) for prefix in batch_norms(model))]
    expected = torch.autograd.grad(
        reference(x).square().sum(), [dict(reference.named_parameters())[n] for n in names]
    )
    leaves = net.leaves(names)
    found = net.pull_back(names, torch.autograd.grad(net(x).square().sum(), leaves))
    net.release()
    for name, ours, theirs in zip(names, found, expected, strict=True):
        torch.testing.assert_close(
            ours, theirs, rtol=1e-8, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}"
        )
    assert not any(leaf.requires_grad for leaf in leaves)


def batch_norms(model):
    return [
        f"{name}."
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._NormBase)
    ]


def test_folds_every_batch_norm_of_a_resnet(x):
    net = InferenceModel(randomise(resnet()), x)
    assert not any(isinstance(m, CenteredBatchNorm2d) for m in net.computing().modules())


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
    net = InferenceModel(model, x)
    assert not net.folded
    torch.testing.assert_close(net(x), copy.deepcopy(model).eval()(x))


def test_refresh_reads_weights_and_statistics_of_the_model(model, x):
    net = InferenceModel(model, x[:2])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3).add_(0.05)
    randomise(model, seed=2)
    expected = copy.deepcopy(model).eval()(x)
    assert not torch.allclose(net(x), expected)
    net.refresh()
    torch.testing.assert_close(net(x), expected, rtol=1e-9, atol=1e-10)
    other = randomise(copy.deepcopy(model), seed=3)
    net.refresh(other)
    torch.testing.assert_close(net(x), copy.deepcopy(other).eval()(x), rtol=1e-9, atol=1e-10)


def test_refresh_with_some_tensors_leaves_the_others(model, x):
    net = InferenceModel(model, x[:2])
    reference = copy.deepcopy(model).eval()
    tensors = dict((*reference.named_parameters(), *reference.named_buffers()))
    for kind in ("weight", "bias", "running_mean", "running_var"):
        changed = {n: 1.2 * t.detach() + 0.1 for n, t in tensors.items() if n.endswith(kind)}
        for part in (dict(list(changed.items())[::2]), dict(list(changed.items())[1::2])):
            net.refresh(part)
            for name, value in part.items():
                tensors[name].data.copy_(value)
            torch.testing.assert_close(net(x), reference(x), rtol=1e-9, atol=1e-9, msg=kind)


def test_refresh_does_not_know_other_names(x):
    with pytest.raises(KeyError, match=r"stem\.nothing"):
        InferenceModel(resnet(), x).refresh({"stem.nothing": torch.zeros(1)})


def test_shares_and_changes_nothing_of_the_model(model, x):
    model.train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    pointers = {t.data_ptr() for t in (*model.parameters(), *model.buffers())}
    net = InferenceModel(model, x[:2])
    net.refresh({name: torch.ones_like(p) for name, p in net.network.named_parameters()})
    net(x)
    assert pointers.isdisjoint(t.data_ptr() for t in (*net.parameters(), *net.buffers()))
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [name for name, _ in net.named_children()] == ["network"]


def test_bfloat16_stays_close_and_returns_the_inputs_dtype(model, x):
    net = InferenceModel(model.float(), x[:2].float())
    low, full = net.logits(x.float(), "bfloat16"), net(x.float())
    assert low.dtype == torch.float32
    assert not torch.equal(low, full)
    assert (low - full).abs().max() < 0.05 * full.abs().max()
    net.refresh({name: 2 * p for name, p in net.network.named_parameters()})
    full = net(x.float())
    assert (net.logits(x.float(), "bfloat16") - full).abs().max() < 0.05 * full.abs().max()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("stride", [1, 2, 3, (2, 1)])
@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (5, 2), (3, 0), ((1, 3), (0, 1)), (1, 0)])
def test_gradient_of_a_convolution_of_images(channels, kernel, padding, stride):
    conv = nn.Conv2d(channels, 6, kernel, stride, padding, dtype=torch.float64)
    x = torch.rand(3, channels, 7, 8, dtype=torch.float64, generator=generator()).requires_grad_()
    tensors = [x, conv.weight, conv.bias]
    ours = image_conv2d(*tensors, conv.stride, conv.padding)
    found = torch.autograd.grad(ours.relu().square().sum(), tensors)
    expected = torch.autograd.grad(conv(x).relu().square().sum(), tensors)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("channels", [1, 2, 4, 8, 15])
def test_weight_gradients_of_narrow_strided_shortcuts_leave_the_memory_alone(channels):
    """As for the layer itself (test_resnet): torch's own gradient writes past its workspace and crashes."""
    model = nn.Sequential(nn.Conv2d(channels, 16, 1, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = torch.rand(4, channels, 8, 8, generator=generator())
    net = InferenceModel(model, x)
    neighbours = [torch.full((channels * 64,), 7.0) for _ in range(50)]
    for _ in range(50):
        leaves = net.leaves(["0.weight"])
        torch.autograd.grad(net(x).square().sum(), leaves)
    assert all(bool((neighbour == 7).all()) for neighbour in neighbours)


@pytest.mark.parametrize("output", ["feature map", "vector", "tuple"])
def test_output_of_the_wrong_shape_is_named(output, x):
    class Wrong(nn.Module):
        def forward(self, x):
            return {"feature map": x, "vector": x.sum(dim=(1, 2, 3)), "tuple": (x, x)}[output]

    with pytest.raises(ValueError, match=r"model: output .* \[n, K\]"):
        InferenceModel(Wrong())(x)


def test_a_lent_network_gets_its_weights_back(x):
    model = randomise(resnet())
    net = InferenceModel(model)
    before = net(x).detach()
    with pytest.raises(ZeroDivisionError), InferenceModel.lent(net, x[:2]) as lent:  # noqa: PT012
        assert lent is net
        lent.refresh({"stem.weight": torch.zeros_like(model.stem.weight)})
        assert not torch.equal(lent(x), before)
        raise ZeroDivisionError
    assert torch.equal(net(x), before)
    with InferenceModel.lent(model, x[:2]) as lent:
        assert lent is not model


@pytest.mark.parametrize(
    "head",
    [
        lambda x: x.mean((2, 3)),
        lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        lambda x: x.flatten(1)[:, :6],
        lambda x: x.flatten(2).mean(2),
        lambda x: x.amax((2, 3)),
    ],
)
def test_gradients_keep_the_layout_of_the_activations(head):
    """In another layout each ReLU's takes many times as long; values are those of the module itself."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
            self.strides = []

        def forward(self, x):
            x = torch.relu(self.first(x))
            x = x + torch.relu(self.second(x))
            if x.requires_grad:
                x.register_hook(lambda gradient: self.strides.append(gradient.stride()))
            return head(x)

    torch.manual_seed(0)
    model, x = Net().eval(), torch.rand(4, 3, 8, 8)
    net = InferenceModel(model, x[:2])
    net.network.strides.clear()
    gradients = []
    for function in (model, net.logits):
        inputs = x.clone().requires_grad_()
        gradients += torch.autograd.grad(function(inputs).square().sum(), inputs)
    torch.testing.assert_close(gradients[1], gradients[0])
    assert net.network.strides == [(6 * 64, 1, 8 * 6, 6)]
