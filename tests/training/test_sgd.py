import pytest
import torch

from robust_flatness.training.optimizers.sgd import SGD


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_equals_torch_with_changing_rates(momentum):
    generator = torch.Generator().manual_seed(0)

    def tensors():
        return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 2), (4,))]

    start = tensors()
    ours, theirs = ([w.clone().requires_grad_(True) for w in start] for _ in range(2))
    sgd = SGD(ours, lr=0.1, momentum=momentum, weight_decay=0.01)
    reference = torch.optim.SGD(theirs, 0.1, momentum, weight_decay=0.01, nesterov=momentum > 0)
    for step in range(6):
        for group in (*sgd.param_groups, *reference.param_groups):
            group["lr"] = 0.1 / (1 + step)
            group["momentum"] = momentum * (1 - 0.02 * step)
        for a, b, gradient in zip(ours, theirs, tensors(), strict=True):
            a.grad, b.grad = gradient, gradient.clone()
        sgd.step()
        reference.step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)


def test_gradients_stay_as_they_are():
    w = torch.ones(3, requires_grad=True)
    w.grad = torch.full((3,), 2.0)
    SGD([w], 0.1, 0.9, 0.5).step()
    assert torch.equal(w.grad, torch.full((3,), 2.0))
