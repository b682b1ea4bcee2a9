import copy
import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from robust_flatness.attacks import PGD
from robust_flatness.checkpoints import load_checkpoint
from robust_flatness.config import load_variants
from robust_flatness.data import Dataset
from robust_flatness.errors import TrainingError
from robust_flatness.run.train import train
from robust_flatness.seeding import generator
from robust_flatness.training.history import HISTORY
from robust_flatness.training.loop import Training

VARIANTS = Path(__file__).parents[2] / "config" / "variants.yaml"
SLUGS = [slug for slug, variant in load_variants(VARIANTS).items() if variant.derived_from is None]


def history(directory):
    with open(directory / "history.csv") as file:
        return list(csv.DictReader(file))


IN_BFLOAT16 = ("at", "trades-6", "awp-0.01")


@pytest.mark.parametrize(
    ("slug", "precision"),
    [(slug, "float32") for slug in SLUGS] + [(slug, "bfloat16") for slug in IN_BFLOAT16],
)
def test_every_variant_trains(slug, precision, experiment, tmp_path, dataset):
    """For two updates or more, snapshots and their evaluation included."""
    job = experiment.train_job(slug, 0)
    job = job.model_copy(update={"training": job.training.model_copy(update={"precision": precision})})
    labels = torch.arange(12) % 3
    train(job, dataset, tmp_path, pseudo_labels=labels)
    rows = history(tmp_path)
    assert len(rows) == job.training.epochs
    assert math.isfinite(float(rows[-1]["train_loss"]))
    assert rows[-1]["early_stopping_rerr"] != ""
    metadata = load_checkpoint(tmp_path / "checkpoints" / "last.safetensors").metadata
    assert (metadata.variant, metadata.epoch) == (slug, job.training.epochs - 1)
    assert metadata.weight_bound == job.training.weight_clipping


def test_files_and_history(tmp_path, dataset, make_job):
    job = make_job(epochs=5, snapshots=2, objective="self-supervision", objective_weight=1)
    train(job, dataset, tmp_path)
    rows = history(tmp_path)
    assert tuple(rows[0]) == HISTORY
    assert [row["epoch"] for row in rows] == list("01234")
    assert [float(row["normalised_epoch"]) for row in rows] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert {(row["variant"], row["seed"], row["epochs"]) for row in rows} == {("tiny", "0", "5")}
    snapshots = job.training.snapshot_epochs()
    assert snapshots == [0, 2, 4]
    for row in rows:
        assert 0 <= float(row["train_rerr"]) <= 100
        assert (row["test_rloss"] != "") == (int(row["epoch"]) in snapshots)
    names = {path.stem for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"epoch-000", "epoch-002", "epoch-004", "last", "best"}
    for epoch in snapshots:
        path = tmp_path / "checkpoints" / f"epoch-00{epoch}.safetensors"
        assert load_checkpoint(path).metadata.epoch == epoch
    errors = [float(rows[e]["early_stopping_rerr"]) for e in snapshots]
    best, last = (load_checkpoint(tmp_path / f"checkpoints/{name}.safetensors") for name in ("best", "last"))
    assert best.metadata.epoch == snapshots[errors.index(min(errors))]
    assert last.model(torch.rand(2, 1, 8, 8)).shape == (2, 3)  # without the head for rotations


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_snapshot_values_are_those_of_the_checkpoint(norm, tmp_path, dataset, make_job):
    """RLoss and RErr again, from the file, with the starts that every snapshot is evaluated with."""
    evaluation = {"evaluation_epsilon": 0.15, "evaluation_step_size": 0.04, "evaluation_steps": 3}
    job = make_job(early_stopping_restarts=2, history_examples=7, norm=norm, **evaluation)
    train(job, dataset, tmp_path)
    row = history(tmp_path)[-1]
    model = load_checkpoint(tmp_path / "checkpoints" / "last.safetensors").model
    for split, count, restarts in (("test", 7, 1), ("early_stopping", 9, 2)):
        x, y = dataset.images(split, count), dataset.labels(split, count)
        attack = PGD(0.15, 0.04, 3, restarts, norm=norm)
        found = attack(model, x, y, generator=generator(0, "evaluation", split))
        assert float(row[f"{split}_rloss"]) == pytest.approx(found.loss.mean().item(), rel=1e-5)
        assert float(row[f"{split}_rerr"]) == pytest.approx(100 * found.error.float().mean().item())
        if split == "test":
            right = model(x).argmax(1) == y
            for name, part in (("correct", right), ("incorrect", ~right)):
                value = row[f"test_{name}_rloss"]
                if part.any():
                    assert float(value) == pytest.approx(found.loss[part].mean().item(), rel=1e-5)
                else:
                    assert value == ""


def test_early_stopping_never_reads_the_test_split(tmp_path, make_dataset, make_job):
    """Another test split changes the curves on it, and nothing else."""
    dataset = make_dataset()
    other = Dataset({**dataset.arrays, **{k: make_dataset(seed=7).arrays[k] for k in ("x_test", "y_test")}})
    train(make_job(), dataset, tmp_path / "a")
    train(make_job(), other, tmp_path / "b")
    for path in sorted((tmp_path / "a" / "checkpoints").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / "checkpoints" / path.name).read_bytes(), path.name
    for a, b in zip(history(tmp_path / "a"), history(tmp_path / "b"), strict=True):
        differing = {column for column in HISTORY if a[column] != b[column]}
        assert differing <= {"test_rloss", "test_rerr", "test_correct_rloss", "test_incorrect_rloss"}
    assert a["test_rloss"] != b["test_rloss"]


def test_the_seed_alone_decides_and_the_global_random_state_is_left_alone(tmp_path, dataset, make_job):
    job = make_job(model={"dropout": 0.1}, augmentation={"autoaugment": True, "crop": 1})
    torch.manual_seed(1)
    state = torch.get_rng_state()
    train(job, dataset, tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    train(job, dataset, tmp_path / "b")
    train(job.model_copy(update={"seed": 1}), dataset, tmp_path / "c")
    last = Path("checkpoints") / "last.safetensors"
    assert (tmp_path / "a" / last).read_bytes() == (tmp_path / "b" / last).read_bytes()
    assert (tmp_path / "a/history.csv").read_bytes() == (tmp_path / "b/history.csv").read_bytes()
    assert (tmp_path / "a" / last).read_bytes() != (tmp_path / "c" / last).read_bytes()


def test_variants_share_initial_weights_and_order_of_examples(dataset, make_job):
    settings = [
        {}, {"objective": "trades", "objective_weight": 6}, {"weight_decay": 0.05},
        {"objective": "self-supervision", "adversarial_fraction": 0.5}, {"weight_perturbation": 0.01},
        {"optimizer": "entropy-sgd", "momentum": 0},
    ]  # fmt: skip
    runs = [Training(make_job(**changes), dataset) for changes in settings]
    first = runs[0]
    order = [next(run.plan.epoch(0)).tolist() for run in runs]
    assert all(indices == order[0] for indices in order)
    for run in runs[1:]:
        for a, b in zip(first.model.parameters(), run.model.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("bound", [None, 0.05])
def test_a_checkpoint_knows_the_weights_its_training_started_from(bound, dataset, make_job, tmp_path):
    job = make_job(weight_clipping=bound)
    train(job, dataset, tmp_path)
    initial = load_checkpoint(tmp_path / "checkpoints/last.safetensors").initial()
    for name, parameter in Training(job, dataset).model.named_parameters():
        assert torch.equal(initial[name], parameter)


def test_weights_are_clipped_after_every_step(dataset, make_job):
    bound = 0.05
    run = Training(make_job(weight_clipping=bound, learning_rate=0.5), dataset)
    largest, attack = [], run.attack

    def watched(*arguments):
        largest.append(max(p.abs().max().item() for p in run.network.parameters()))
        return attack(*arguments)

    run.attack = watched
    for epoch in range(2):
        run.epoch(epoch)
    assert len(largest) == 2 * run.plan.updates
    assert max(largest) <= np.float32(bound)


def test_the_average_is_saved_and_evaluated_and_does_not_touch_training(tmp_path, dataset, make_job):
    job = make_job(weight_averaging=0.9)
    run, plain = Training(job, dataset), Training(make_job(), dataset)
    recorded, update = [], run.average.update_parameters

    def recording(model):
        recorded.append(copy.deepcopy(model.state_dict()))
        update(model)

    run.average.update_parameters = recording
    expected = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    assert run.epoch(0) == plain.epoch(0)
    row = run.snapshot(0, tmp_path / "snapshot.safetensors")
    for weights in recorded:
        expected = {name: 0.9 * value + 0.1 * weights[name] for name, value in expected.items()}
    saved = load_checkpoint(tmp_path / "snapshot.safetensors").model
    for name, parameter in saved.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-5, atol=1e-6)
    assert run.evaluate(run.evaluator.at(saved)) == row
    # its batch norms have the means over one clean epoch, all images once
    batches = list(run._clean_batches(0))
    assert sum(map(len, batches)) == dataset.size("train")
    outputs = [saved.stem(saved.whitening(x)) for x in batches]
    mean = torch.stack([out.mean((0, 2, 3)) for out in outputs]).mean(0)
    torch.testing.assert_close(saved.stem_norm.running_mean, mean, rtol=1e-4, atol=1e-5)
    # a snapshot leaves the training's own weights and statistics alone
    states = (part.network.state_dict().values() for part in (run, plain))
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_every_update_is_made_at_the_scheduled_rate_and_momentum(dataset, make_job):
    """A triangle, momentum against it."""
    run = Training(make_job(epochs=2, schedule="cyclic"), dataset)
    used, step, group = [], run.optimizer.step, run.optimizer.param_groups[0]
    run.optimizer.step = lambda closure: used.append((group["lr"], group["momentum"])) or step(closure)
    for epoch in range(2):
        run.epoch(epoch)
    heights = (0, 1, 2, 3, 4, 5, 4, 3, 2, 1)
    np.testing.assert_allclose(used, [(0.01 * height, 0.9 - 0.02 * height) for height in heights], atol=1e-12)


def test_nan_stops_and_keeps_the_last_good_epoch(tmp_path, dataset, make_job, monkeypatch):
    job = make_job(epochs=6, snapshots=6)
    train(job, dataset, tmp_path / "reference")
    original = Training.epoch

    def poisoned(self, epoch):
        row = original(self, epoch)
        if epoch == 3:
            with torch.no_grad():
                self.parameters[0].mul_(math.nan)
        return row

    monkeypatch.setattr(Training, "epoch", poisoned)
    with pytest.raises(TrainingError, match=r"'tiny', seed 0.*NaN.*epoch 3 of 6.*up to 2 are kept"):
        train(job, dataset, tmp_path / "run")
    assert not (tmp_path / "run" / "history.csv").exists()
    kept = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [path.stem for path in kept] == [f"epoch-00{epoch}" for epoch in range(3)]
    for path in kept:
        assert all(t.isfinite().all() for t in load_checkpoint(path).model.state_dict().values())
    monkeypatch.setattr(Training, "epoch", original)
    train(job, dataset, tmp_path / "run")
    last = Path("checkpoints") / "last.safetensors"
    assert (tmp_path / "run" / last).read_bytes() == (tmp_path / "reference" / last).read_bytes()
