"""Untrained networks in the folders of an experiment, for tests of jobs that measure."""

from pathlib import Path

import torch

from robust_flatness.architectures import build_model
from robust_flatness.checkpoints import Metadata, save_checkpoint
from robust_flatness.config import DataSpec, ModelSpec
from robust_flatness.data import load_dataset, make_splits, save_dataset
from robust_flatness.run.measuring import MeasuringJob, measure_network
from robust_flatness.seeding import generator
from robust_flatness.training.history import write_history

ATTACK = {"epsilon": 0.1, "step_size": 0.05, "steps": 2, "restarts": 1}
COUNTS = {"test_examples": 10, "train_examples": 10}
FLATNESS = {"attack": ATTACK, **COUNTS, "average": {"xi": [0.5], "samples": 2, "clean_samples": 2},
            "worst": {"xi": [0.003], "steps": 1, "restarts": 1}}  # fmt: skip
MEASURES = {
    "robustness": {"attack": ATTACK, "autoattack": None, **COUNTS, "clean_test_examples": 20,
                   "clean_train_examples": 20},
    "flatness": FLATNESS,
    "hessian": {"eigenvalues": 2},
}  # fmt: skip
SERIES = FLATNESS | {"hessian": None}


def write_data(root: Path, train: int = 20, seed: int = 0) -> Path:
    """Prepare a few digits below the folder of an experiment."""
    path = Path(root) / f"data/seed-{seed}.safetensors"
    save_dataset(path, make_splits(DataSpec(name="digits", train=train, early_stopping=20, test=20), seed))
    return path


def write_checkpoint(path: Path, data: Path, weights: int, epoch: int = 0, value: float | None = None):
    """Write a network with random weights drawn by the seed `weights`, or all equal to `value`."""
    dataset, spec = load_dataset(data), ModelSpec(name="small-resnet", width=2)
    model = build_model(spec, 10, dataset.mean, dataset.std, generator(weights, "test"))
    if value is not None:
        for parameter in model.parameters():
            torch.nn.init.constant_(parameter, value)
    described = Metadata(spec.model_dump(), 10, dataset.mean, dataset.std, "at", 0, epoch)
    save_checkpoint(path, model, described)


def write_network(root: Path, data: Path, variant: str = "at", snapshots: int = 0) -> Path:
    """Write the checkpoints `last` and `best`, snapshots, and the history, as a training does."""
    folder = Path(root) / variant / "seed-0"
    for number, name in enumerate(("last", "best", *(f"epoch-{epoch:03d}" for epoch in range(snapshots)))):
        write_checkpoint(folder / f"checkpoints/{name}.safetensors", data, number, max(0, number - 2))
    rows = [{"variant": variant, "seed": 0, "epoch": epoch, "test_rloss": 2.0} for epoch in range(snapshots)]
    write_history(folder / "history.csv", rows)
    return folder


def measure(folder: Path, data: Path, measures=MEASURES, variant: str = "at", **changed) -> list[str]:
    """Run the measuring job of a network; return its messages."""
    messages: list[str] = []
    job = MeasuringJob(variant=variant, measures=measures, **changed)
    measure_network(job, data, folder, seed=0, device="cpu", threads=1, report=messages.append)
    return messages
