"""A snapshot's row of the series: the measures' own values, with RLoss(w) found once."""

from dataclasses import replace

import pytest

from robust_flatness.architectures import build_model
from robust_flatness.attacks import PGD
from robust_flatness.checkpoints import Metadata, load_checkpoint, save_checkpoint
from robust_flatness.config import DataSpec, ModelSpec, SeriesSpec
from robust_flatness.data import load_dataset, make_splits, save_dataset
from robust_flatness.flatness import average_flatness, worst_flatness
from robust_flatness.measuring import series
from robust_flatness.measuring.registry import MEASURES
from robust_flatness.measuring.run import measure_checkpoints
from robust_flatness.seeding import derive_seed, generator
from robust_flatness.tables.collect import read_epochs
from robust_flatness.tables.rows import write_rows

ATTACK = {"epsilon": 0.1, "step_size": 0.05, "steps": 2}


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """A network with random weights, and data."""
    folder = tmp_path_factory.mktemp("series")
    save_dataset(
        folder / "data.npz", make_splits(DataSpec(name="digits", train=20, early_stopping=20, test=30), 0)
    )
    dataset, spec = load_dataset(folder / "data.npz"), ModelSpec(name="small-resnet", width=2)
    model = build_model(spec, 10, dataset.mean, dataset.std, generator(0, "test"))
    described = Metadata(spec.model_dump(), 10, dataset.mean, dataset.std, "at", 0, 0)
    save_checkpoint(folder / "epoch-000.safetensors", model, described)
    return load_checkpoint(folder / "epoch-000.safetensors"), dataset


def test_the_tables_have_all_snapshots_and_their_examples(snapshot, tmp_path):
    checkpoint, dataset = snapshot
    save_dataset(tmp_path / "data.npz", dataset.arrays)
    for epoch in (0, 3):
        path = tmp_path / f"run/checkpoints/epoch-{epoch:03d}.safetensors"
        save_checkpoint(path, checkpoint.model, replace(checkpoint.metadata, epoch=epoch))
    write_rows(tmp_path / "run/history.csv", [{"epoch": epoch, "test_rloss": 1} for epoch in (0, 3)])
    spec = SeriesSpec(
        attack=ATTACK, average={"xi": [0.5], "samples": 1}, worst={"xi": [0.003], "steps": 1, "restarts": 1},
        test_examples=4, train_examples=3,
    )  # fmt: skip
    last, data = tmp_path / "run/checkpoints/last.safetensors", tmp_path / "data.npz"
    measure_checkpoints(MEASURES["series"], [last], spec, data, tmp_path / "run", 0, "cpu", 1)
    rows = read_epochs(tmp_path / "run/series.csv")
    assert [row["epoch"] for row in rows] == ["0", "3"]
    examples = read_epochs(tmp_path / "run/series-examples.csv")
    assert [row["checkpoint"] for row in examples] == ["epoch-000"] * 7 + ["epoch-003"] * 7
    assert [row["split"] for row in examples[:7]] == ["test"] * 4 + ["train"] * 3
    losses = [float(row["rloss"]) for row in examples[:4]]
    assert sum(losses) / 4 == pytest.approx(float(rows[0]["test_rloss_pgd"]), rel=1e-5)


@pytest.mark.parametrize("restarts", [1, 2])
def test_a_row_holds_the_measures(snapshot, restarts):
    checkpoint, dataset = snapshot
    spec = SeriesSpec(
        attack=ATTACK | {"restarts": restarts},
        average={"xi": [0.5], "samples": 2, "scope": "batch", "batch_size": 8},
        worst={"xi": [0.003, 0.001], "steps": 2, "restarts": 1},
        test_examples=30,
        train_examples=20,
    )
    measured = series.snapshot(checkpoint, dataset, spec, seed=3)
    row, examples = measured.values, measured.details["examples"]
    for split, count in (("test", 30), ("train", 20)):
        losses, errors = examples[split]["rloss"], examples[split]["rerr_pgd"]
        assert len(losses) == len(errors) == count
        assert sum(losses) / count == pytest.approx(row[f"{split}_rloss_pgd"], rel=1e-5)
    assert 100 * sum(examples["test"]["rerr_pgd"]) / 30 == pytest.approx(row["test_rerr_pgd"])
    x, y, attack = dataset.images("test"), dataset.labels("test"), PGD(**ATTACK, restarts=restarts)
    common = {"attack": attack, "reference": row["test_rloss_pgd"]}
    average = average_flatness(
        checkpoint.model, x, y, xi=0.5, samples=2, scope="batch", batch_size=8,
        seed=derive_seed(3, "flatness", "average"), **common,
    )  # fmt: skip
    assert row["avg_flatness_rloss"] == pytest.approx(average.value, abs=1e-5)
    for xi, column in ((0.003, "worst_flatness_rloss"), (0.001, "worst_flatness_rloss_0.001")):
        worst = worst_flatness(
            checkpoint.model, x, y, xi=xi, steps=2, restarts=1,
            seed=derive_seed(3, "flatness", "worst"), **common,
        )  # fmt: skip
        assert row[column] == pytest.approx(worst.value, abs=1e-5)
    alone = attack(checkpoint.model, x, y, None, generator(derive_seed(3, "robustness", "test"), "pgd"))
    assert row["test_rloss_pgd"] == pytest.approx(alone.loss.mean().item(), abs=1e-5)


def test_rloss_is_found_once(snapshot, monkeypatch):
    checkpoint, dataset = snapshot
    calls, attack = [], PGD.__call__

    def counted(self, model, x, *arguments):
        calls.append(len(x))
        return attack(self, model, x, *arguments)

    monkeypatch.setattr(PGD, "__call__", counted)
    spec = SeriesSpec(
        attack=ATTACK, average={"xi": [0.5], "samples": 1}, worst={"xi": [0.003], "steps": 1, "restarts": 1},
        test_examples=30, train_examples=20,
    )  # fmt: skip
    series.snapshot(checkpoint, dataset, spec, seed=0)
    assert sorted(calls) == [20, 30]  # each split once, in the measure of robustness
