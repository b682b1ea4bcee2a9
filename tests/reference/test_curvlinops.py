"""Products with the Hessian against those of curvlinops."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from robust_flatness.config import ModelSpec
from robust_flatness.flatness.hessian import HessianProduct
from robust_flatness.models import build_model
from robust_flatness.models.inference import InferenceModel


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_same_products(activation):
    g = torch.Generator().manual_seed(0)
    spec = ModelSpec(name="small-resnet", width=2, activation=activation)
    model = build_model(spec, 4, [0.5], [0.3], g).double()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.uniform_(0.2, 2, generator=g)
            layer.weight.data.normal_(0, 0.3, generator=g)
    x = torch.rand(10, 1, 8, 8, dtype=torch.float64, generator=g)
    y = torch.randint(0, 4, (10,), generator=g)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from curvlinops import HessianLinearOperator

        network = copy.deepcopy(model).eval()
        parameters = [p for p in network.parameters() if p.ndim > 1]
        batches = list(zip(x.split(4), y.split(4), strict=True))
        theirs = HessianLinearOperator(network, nn.CrossEntropyLoss(), parameters, batches).to_scipy()
        ours = HessianProduct(InferenceModel(model, x), x, y, batch_size=4)
        vector = np.random.default_rng(0).standard_normal(ours.size)
        np.testing.assert_allclose(ours(vector), theirs @ vector, rtol=1e-8, atol=1e-10)
