import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from robust_flatness.training.loop import Training
from robust_flatness.training.weight_perturbation import awp, perturbed, perturbed_weights, sam

AWP, SAM = {"weight_perturbation": 0.01, "gradient_clamp": None}, {"sam_rho": 0.05}


@pytest.fixture
def run_with(dataset, make_job):
    """A training after one epoch, so that nothing is at its initial value."""

    def make(**settings):
        run = Training(make_job(learning_rate=0.02, **settings), dataset)
        run.epoch(0)
        return run

    return make


def test_a_gradient_of_zero_gives_no_direction():
    weights, zeros = [torch.ones(3, 4), torch.ones(2, 2)], [torch.zeros(3, 4), torch.zeros(2, 2)]
    assert not any(nu.any() for nu in [*awp(zeros, weights, 0.01), *sam(zeros, 0.05)])


def test_biases_are_perturbed_by_sam_alone_and_batch_norm_by_neither(run_with):
    network = run_with().network
    of_awp, of_sam = ([*perturbed_weights(network, biases=biases)] for biases in (False, True))
    assert of_awp == [name for name, weight in network.named_parameters() if weight.ndim > 1]
    assert {name.rpartition(".")[2] for name in {*of_sam} - {*of_awp}} == {"bias"}
    assert not any("norm" in name for name in of_sam)


def test_weights_and_statistics_come_back_bit_for_bit(run_with):
    network = run_with().network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights = perturbed_weights(network, biases=False)
    nu = [torch.randn_like(w) / 3 for w in weights.values()]
    with pytest.raises(KeyboardInterrupt), perturbed(network, nu, list(weights.values())):  # noqa: PT012
        for (name, weight), change in zip(weights.items(), nu, strict=True):
            assert torch.equal(weight, before[name] + change)
        network(torch.rand(4, 1, 8, 8))
        raise KeyboardInterrupt
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("settings", [AWP, SAM])
def test_update_takes_the_gradient_at_the_perturbed_weights_in_training_mode(run_with, settings):
    """As step by step in float64; running statistics are of the unperturbed weights, counted once."""
    run = run_with(**settings)
    network = run.network.double()
    batch = next(run._batches(1))
    batch = replace(batch, x=batch.x.double(), x_adv=batch.x.double())

    def gradients(model, names):
        parameters = [model.get_parameter(name) for name in names]
        return torch.autograd.grad(F.cross_entropy(model(batch.x), batch.y), parameters)

    twin, names = copy.deepcopy(network), [*run.perturbed]
    if settings is SAM:
        g = dict(zip(names, gradients(twin, names), strict=True))
        size = torch.cat([gradient.flatten() for gradient in g.values()]).norm()
        nu = {name: 0.05 * gradient / size for name, gradient in g.items()}
    else:
        g = dict(zip(names, gradients(copy.deepcopy(twin).eval(), names), strict=True))
        sizes = {name: twin.get_parameter(name).detach().norm() for name in names}
        nu = {name: 0.01 * sizes[name] * gradient / gradient.norm() for name, gradient in g.items()}
        twin(batch.x)
    statistics = {name: buffer.clone() for name, buffer in twin.named_buffers()}
    with torch.no_grad():
        for name in names:
            twin.get_parameter(name).add_(nu[name])
    everything = [name for name, _ in twin.named_parameters()]
    expected = dict(zip(everything, gradients(twin, everything), strict=True))

    run.optimizer.zero_grad()
    run._perturbed_gradient(batch, run.inference.at(network))
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-6, atol=1e-9)
    for name, buffer in network.named_buffers():
        torch.testing.assert_close(buffer, statistics[name])


def test_without_adversarial_examples_no_attack_influences_the_training(dataset, make_job):
    """Its curves on training examples, which are means over the attacked ones, are empty."""
    trainings = [Training(make_job(adversarial_fraction=0, steps=steps, **SAM), dataset) for steps in (1, 5)]
    rows = [run.epoch(0) for run in trainings]
    assert rows[0]["train_loss"] == rows[1]["train_loss"]
    assert rows[0]["train_rloss"] != rows[0]["train_rloss"]
    states = (run.network.state_dict().values() for run in trainings)
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
