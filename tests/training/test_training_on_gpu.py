"""Training on a GPU; skipped elsewhere."""

import pytest
import torch

from robust_flatness.checkpoints import load_checkpoint
from robust_flatness.runtime.devices import start
from robust_flatness.training import train
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


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"model": {"dropout": 0.2}},
        {"objective": "trades", "objective_weight": 6},
        {"weight_perturbation": 0.01},
        {"optimizer": "entropy-sgd", "momentum": 0, "langevin_steps": 2},
        {"stop_after_flip": 1},
    ],
)
def test_what_is_replayed_is_what_is_computed(settings, dataset, make_job):
    """Also after a resumption, which records anew."""
    device = start("cuda:0", 1)
    job = make_job(batch_size=8, **settings)
    replayed, plain = (Training(job, dataset, device) for _ in range(2))
    plain.graphs.most = 0
    plain.inference.graphs = plain.evaluator.graphs = None
    first = [run.epoch(0) for run in (replayed, plain)]
    state = {name: tensor.clone() for name, tensor in replayed.state().items()}
    assert first[0]["train_loss"] == pytest.approx(first[1]["train_loss"], rel=1e-3)
    resumed = Training(job, dataset, device)
    resumed.restore(state)
    assert replayed.epoch(1) == resumed.epoch(1)
    for (name, a), b in zip(replayed.state().items(), resumed.state().values(), strict=True):
        assert torch.equal(a, b), name
