import pytest
import torch
from torch import nn

from robust_flatness.architectures import build_model
from robust_flatness.config import ModelSpec


@pytest.fixture(params=["resnet", "plain"])
def model(request):
    """A small ResNet, whose batch norms are folded, or a network of torch's layers; in float64."""
    stream = torch.Generator().manual_seed(0)
    if request.param == "resnet":
        spec = ModelSpec(name="small-resnet", width=2)
        network = build_model(spec, 4, [0.3], [0.4], stream).double().eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 2, generator=stream)
                module.running_mean.normal_(generator=stream)
        return network
    torch.manual_seed(0)
    features = nn.Conv2d(1, 3, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten()
    return nn.Sequential(*features, nn.Linear(27, 6), nn.Tanh(), nn.Linear(6, 4)).double()


@pytest.fixture(scope="session")
def data():
    stream = torch.Generator().manual_seed(1)
    x = torch.rand(12, 1, 8, 8, dtype=torch.float64, generator=stream)
    return x, torch.randint(4, (12,), generator=stream)
