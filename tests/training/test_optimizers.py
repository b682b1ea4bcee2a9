import pytest
import torch

from robust_flatness.training.optimizers import make_optimizer


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_follows_its_formula_with_changing_rates(momentum, make_job):
    spec = make_job(momentum=momentum, weight_decay=0.01).training
    generator = torch.Generator().manual_seed(0)
    shapes = (3, 2), (4,)
    ours = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_(True) for s in shapes]
    optimizer = make_optimizer(spec, ours)
    expected, velocity = [w.detach().clone() for w in ours], [torch.zeros(s) for s in shapes]
    for step in range(6):
        m = momentum * (1 - 0.02 * step)
        for group in optimizer.param_groups:
            group["lr"], group["momentum"] = 0.1 / (1 + step), m
        for i, w in enumerate(ours):
            w.grad = torch.randn(w.shape, generator=generator, dtype=torch.float64)
            g = w.grad + 0.01 * expected[i]
            velocity[i] = m * velocity[i] + g
            expected[i] = expected[i] - 0.1 / (1 + step) * (g + m * velocity[i])
        optimizer.step()
        for w, wanted in zip(ours, expected, strict=True):
            torch.testing.assert_close(w.detach(), wanted, rtol=1e-13, atol=1e-15)
