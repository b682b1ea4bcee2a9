import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from robust_flatness.network import Network
from robust_flatness.training.awp import WeightPerturbation
from robust_flatness.training.loop import Training


@pytest.fixture
def run(dataset, make_job):
    """A network after one epoch, so that nothing is at its initial value."""
    run = Training(make_job(weight_perturbation=0.01, learning_rate=0.02), dataset)
    run.epoch(0)
    return run


def test_each_layer_moves_along_its_gradient_by_xi_times_its_norm(run, dataset):
    network = run.network.double()
    x, y = dataset.images("train", 8).double(), dataset.labels("train", 8)
    perturbation = WeightPerturbation(network, 0.01)
    nu = perturbation.ascent(Network(network, x), lambda forward: nn.functional.cross_entropy(forward(x), y))

    frozen = copy.deepcopy(network).eval()
    nn.functional.cross_entropy(frozen(x), y).backward()
    gradients = {name: p.grad for name, p in frozen.named_parameters()}
    weights = dict(network.named_parameters())
    expected = [name for name in weights if weights[name].ndim > 1]
    assert perturbation.names == expected
    assert not any("norm" in name or "bias" in name for name in expected)
    assert len(expected) == sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules())
    for name, change in zip(expected, nu, strict=True):
        assert change.norm().item() == pytest.approx(0.01 * weights[name].norm().item(), rel=1e-10)
        direction = gradients[name] / gradients[name].norm()
        torch.testing.assert_close(change / change.norm(), direction, rtol=1e-6, atol=1e-8)


def test_weights_come_back_bit_for_bit(run):
    network = run.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    perturbation = WeightPerturbation(network, 0.01)
    nu = [torch.randn_like(w) / 3 for w in perturbation.weights]
    with perturbation.applied(nu):
        for name, weight, change in zip(perturbation.names, perturbation.weights, nu, strict=True):
            assert torch.equal(weight, before[name] + change)
    with pytest.raises(KeyboardInterrupt), perturbation.applied(nu):
        raise KeyboardInterrupt
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_update_takes_the_gradient_at_the_perturbed_weights_in_training_mode(run):
    """And batch norm's running statistics at the unperturbed ones, counted once."""
    run.spec = run.spec.model_copy(update={"gradient_clamp": None})
    view, batch = run.inference.at(run.network), next(run._batches(1))
    batch = replace(batch, x_adv=batch.x)
    twin = copy.deepcopy(run.network)
    loss = nn.functional.cross_entropy
    nu = run.perturbation.ascent(view, lambda forward: loss(forward(batch.x_adv), batch.y))
    run.optimizer.zero_grad()
    run._perturbed_gradient(batch, view)

    with torch.no_grad():
        twin(batch.x_adv)
    for name, buffer in twin.named_buffers():
        assert torch.equal(run.network.get_buffer(name), buffer), name
    with torch.no_grad():
        for name, change in zip(run.perturbation.names, nu, strict=True):
            twin.get_parameter(name).add_(change)
    twin.zero_grad()
    nn.functional.cross_entropy(twin(batch.x_adv), batch.y).backward()
    for name, parameter in run.network.named_parameters():
        torch.testing.assert_close(parameter.grad, twin.get_parameter(name).grad, rtol=1e-4, atol=1e-6)


def test_size_zero_is_adversarial_training_step_for_step(dataset, make_job):
    plain, perturbed = (Training(make_job(gradient_clamp=None), dataset) for _ in range(2))
    perturbed.perturbation = WeightPerturbation(perturbed.network, 0.0)
    for epoch in range(2):
        assert plain.epoch(epoch) == perturbed.epoch(epoch)
    states = (run.network.state_dict().values() for run in (plain, perturbed))
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
