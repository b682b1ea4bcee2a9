import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from robust_flatness.architectures import build_model
from robust_flatness.attacks import PGD
from robust_flatness.config import ModelSpec


@pytest.fixture(scope="session")
def digits():
    source = load_digits()
    x = torch.tensor(source.images, dtype=torch.float32)[:, None] / 16
    return x, torch.tensor(source.target)


@pytest.fixture(scope="session")
def trained(digits):
    """A small ResNet trained on digits for two seconds, with inputs moved by one signed step."""
    x, y = (tensor[:600] for tensor in digits)
    g = torch.Generator().manual_seed(0)
    model = build_model(ModelSpec(name="small-resnet", width=8), 10, [0.3], [0.37], g)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(8):
        for index in torch.randperm(len(x), generator=g).split(50):
            images = x[index].requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(images), y[index]), images)
            moved = (images.detach() + 0.1 * gradient.sign()).clamp(0, 1)
            optimizer.zero_grad()
            F.cross_entropy(model(moved), y[index]).backward()
            optimizer.step()
    optimizer.zero_grad()
    return model.eval()


@pytest.fixture(scope="session")
def held_out(digits):
    """60 images the network was not trained on."""
    return digits[0][600:660], digits[1][600:660]


@pytest.fixture
def attack():
    return PGD(epsilon=0.1, step_size=0.025, steps=6, restarts=3)
