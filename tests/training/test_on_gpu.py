"""What only a GPU can show; skipped elsewhere."""

import copy

import pytest
import torch

from robust_flatness.architectures import build_model
from robust_flatness.attacks import PGD
from robust_flatness.checkpoints import load_checkpoint
from robust_flatness.config import ModelSpec
from robust_flatness.network import Network
from robust_flatness.run.train import train
from robust_flatness.runtime.devices import start
from robust_flatness.runtime.graphs import Graphs
from robust_flatness.training.loop import Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def test_every_variant_trains(experiment, dataset, tmp_path):
    device = start("cuda:0", 1)
    for slug in experiment.train_jobs:
        job = experiment.train_job(slug, 0)
        training = job.training.model_copy(update={"precision": "auto"})
        job = job.model_copy(update={"training": training})
        train(job, dataset, tmp_path / slug, device=device, pseudo_labels=torch.arange(12) % 3)
        metadata = load_checkpoint(tmp_path / slug / "checkpoints" / "last.safetensors").metadata
        assert metadata.precision == "bfloat16", slug


REPLAYED = [
    {}, {"model": {"dropout": 0.2}}, {"objective": "trades", "objective_weight": 6}, {"stop_after_flip": 1},
    {"weight_perturbation": 0.01}, {"adversarial_fraction": 0, "sam_rho": 0.05},
    {"optimizer": "entropy-sgd", "momentum": 0, "langevin_steps": 2},
]  # fmt: skip


@pytest.mark.parametrize("settings", REPLAYED, ids=str)
def test_what_is_replayed_is_what_is_computed(settings, dataset, make_job):
    """Also after a resumption, which records anew."""
    device = start("cuda:0", 1)
    job = make_job(batch_size=8, **settings)
    replayed, plain = (Training(job, dataset, device) for _ in range(2))
    plain.graphs.most = 0
    plain.inference.graphs = plain.evaluator.graphs = None
    first = [run.epoch(0) for run in (replayed, plain)]
    state = copy.deepcopy(replayed.state())
    assert first[0]["train_loss"] == pytest.approx(first[1]["train_loss"], rel=1e-3)
    resumed = Training(job, dataset, device)
    resumed.restore(state)
    assert replayed.epoch(1) == resumed.epoch(1)
    first, second = (run.network.state_dict() for run in (replayed, resumed))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def network(seed=0):
    stream = torch.Generator().manual_seed(seed)
    spec = ModelSpec(name="resnet18", width=8)
    return build_model(spec, 10, [0.5] * 3, [0.3] * 3, stream).cuda().eval()


def images(count=32):
    stream = torch.Generator().manual_seed(1)
    x = torch.rand(count, 3, 16, 16, generator=stream)
    return x.cuda(), torch.randint(10, (count,), generator=stream).cuda()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_replayed_attacks_are_the_plain_ones(precision):
    x, y = images()
    model = network()
    plain, replayed = Network(model, x[:2]), Network(model, x[:2])
    replayed.graphs = Graphs()
    attack = PGD(8 / 255, 2 / 255, 5, 2, precision=precision)
    for seed in range(3):
        views = (net.at(network(seed)) for net in (plain, replayed))
        first, second = (attack(net, x, y, 16, torch.Generator().manual_seed(0)) for net in views)
        torch.testing.assert_close(first.loss, second.loss, rtol=1e-4, atol=1e-5)
        assert (first.error == second.error).all()


def test_a_replay_puts_back_what_the_warm_up_changed():
    count = torch.zeros((), device="cuda")

    def function(x):
        count.add_(1)
        return [x + count]

    graphs = Graphs(most=1)
    for turn in range(1, 4):
        (out,) = graphs("count", function, (torch.full((2,), float(turn), device="cuda"),), [count])
        assert out.tolist() == [2.0 * turn] * 2
    # another shape than the one recorded is computed as it comes
    (out,) = graphs("count", function, (torch.zeros(3, device="cuda"),), [count])
    assert out.tolist() == [4.0] * 3


def test_the_processor_and_the_gpu_agree():
    x, y = images()
    model = network()
    attack = PGD(8 / 255, 2 / 255, 5, 2)
    on_gpu = attack(model, x, y, 16, torch.Generator().manual_seed(0))
    on_cpu = attack(model.cpu(), x.cpu(), y.cpu(), 16, torch.Generator().manual_seed(0))
    assert on_gpu.loss.mean().item() == pytest.approx(on_cpu.loss.mean().item(), rel=1e-2)
