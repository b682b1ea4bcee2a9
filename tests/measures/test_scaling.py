import copy

import pytest
import torch
from torch import nn

from robust_flatness.flatness import scale_convolutions


@pytest.mark.parametrize("s", [0.5, 2.0])
def test_outputs_stay_and_weights_scale(trained, held_out, s):
    scaled = scale_convolutions(trained, s)
    # the batch norms' eps of 1e-5 makes the difference
    torch.testing.assert_close(scaled(held_out[0]), trained(held_out[0]), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(scaled.stem.weight, s * trained.stem.weight)
    torch.testing.assert_close(scaled.stem.bias, s * trained.stem.bias)
    assert torch.equal(scaled.classifier.weight, trained.classifier.weight)
    assert torch.equal(scaled.stem_norm.weight, trained.stem_norm.weight)
    exact = copy.deepcopy(trained).double()
    for module in exact.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    x = held_out[0].double()
    torch.testing.assert_close(scale_convolutions(exact, s)(x), exact(x), rtol=1e-9, atol=1e-9)


def test_refuses_what_would_change_the_outputs():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3), nn.Flatten())
    with pytest.raises(ValueError, match="no batch norm after the convolution 2"):
        scale_convolutions(model, 2.0)
    with pytest.raises(ValueError, match="s: 0 given"):
        scale_convolutions(model, 0)
