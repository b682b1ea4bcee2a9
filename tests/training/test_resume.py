"""Interrupted trainings resume to bit-identical results."""

import errno
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robust_flatness.data import save_dataset
from robust_flatness.errors import TrainingError
from robust_flatness.run.train import train
from robust_flatness.training.loop import Training

PSEUDO = torch.arange(12) % 3
EPOCHS = 5

CASES = {
    "at": {},
    "adam": {"optimizer": "adam", "learning_rate": 0.001},
    "entropy-sgd": {"optimizer": "entropy-sgd", "momentum": 0, "langevin_steps": 2},
    "averaging": {"weight_averaging": 0.9, "augmentation": {"crop": 1, "autoaugment": True, "cutout": 2},
                  "model": {"dropout": 0.2}},
    "awp": {"weight_perturbation": 0.01, "weight_clipping": 0.1, "schedule": "cyclic", "cycles": 2},
    "self-supervision": {"objective": "self-supervision", "objective_weight": 1, "adversarial_fraction": 0.5},
    "trades": {"objective": "trades", "objective_weight": 6, "unlabeled_fraction": 0.5, "label_noise": 0.5},
}  # fmt: skip


class Interruption(BaseException):
    pass


def content(directory: Path) -> dict[str, bytes]:
    paths = [*directory.glob("checkpoints/*"), directory / "history.csv"]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def delete_outputs(directory: Path) -> None:
    """As a workflow does before it runs a job again."""
    for name in ("history.csv", "checkpoints/last.safetensors", "checkpoints/best.safetensors"):
        (directory / name).unlink(missing_ok=True)


@pytest.mark.parametrize("name", CASES)
def test_resumed_training_is_bit_identical(name, tmp_path, dataset, make_job):
    job = make_job(epochs=EPOCHS, snapshots=3, **CASES[name])
    train(job, dataset, tmp_path / "whole", pseudo_labels=PSEUDO)
    directory = tmp_path / "interrupted"
    stops = sorted(random.Random(name).sample(range(1, EPOCHS), 2))
    for stop in stops:
        train(job, dataset, directory, until=stop, pseudo_labels=PSEUDO)
        # outputs that a workflow declares appear only at the end
        assert not (directory / "history.csv").exists()
        assert all(path.name.startswith("epoch-") for path in directory.glob("checkpoints/*"))
    messages = []
    train(job, dataset, directory, pseudo_labels=PSEUDO, report=messages.append)
    assert f"resumed after epoch {stops[-1] - 1}" in messages[0]
    assert content(directory) == content(tmp_path / "whole")


@pytest.mark.parametrize("all_snapshots", [True, False])
def test_an_interruption_or_a_full_disk_at_any_write(all_snapshots, tmp_path, dataset, make_job, monkeypatch):
    job = make_job()
    options = {"all_snapshots": all_snapshots}
    train(job, dataset, tmp_path / "whole", **options)
    original, write, messages = Path.replace, 0, []
    while True:
        write += 1
        directory, writes = tmp_path / f"write-{write}", []

        def failing(temporary, path, writes=writes, last=write):
            writes.append(path)
            if len(writes) == last:
                if last % 2:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                raise Interruption
            return original(temporary, path)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", failing)
            try:
                train(job, dataset, directory, **options)
                break
            except (TrainingError, Interruption) as stop:
                messages.append(str(stop))
        assert not list(directory.rglob("*.tmp"))
        delete_outputs(directory)
        train(job, dataset, directory, **options)
        assert content(directory) == content(tmp_path / "whole")
    assert write > 8
    assert all("No space left" in message and "kept in" in message for message in messages[::2])


@pytest.mark.parametrize("all_snapshots", [True, False])
def test_a_finished_training_is_not_repeated(all_snapshots, tmp_path, dataset, make_job, monkeypatch):
    """A workflow that died before its job ended deletes the outputs and runs the job again."""
    options = {"all_snapshots": all_snapshots}
    train(make_job(), dataset, tmp_path, **options)
    before = content(tmp_path)
    weights = (tmp_path / "checkpoints/last.safetensors").stat().st_size
    assert (tmp_path / ".resume/state").stat().st_size < weights
    delete_outputs(tmp_path)
    messages = []
    monkeypatch.setattr(Training, "epoch", None)
    train(make_job(), dataset, tmp_path, report=messages.append, **options)
    assert content(tmp_path) == before
    assert "already trained" in messages[0]


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("what", ["settings", "data", "code"])
def test_another_trainings_state_is_replaced(what, finished, tmp_path, make_dataset, make_job, monkeypatch):
    settings = {"unlabeled_fraction": 0.5}
    job, dataset, labels, messages = make_job(**settings), make_dataset(), PSEUDO, []
    train(job, dataset, tmp_path / "run", pseudo_labels=labels, until=None if finished else 2)
    if what == "settings":
        job = make_job(learning_rate=0.04, **settings)
    elif what == "data":
        dataset = make_dataset(seed=3)
    else:
        monkeypatch.setattr("robust_flatness.training.loop.package_digest", lambda: "other")
    train(job, dataset, tmp_path / "run", pseudo_labels=labels, report=messages.append)
    train(job, dataset, tmp_path / "whole", pseudo_labels=labels)
    assert f"written with other {what};" in messages[0]
    assert content(tmp_path / "run") == content(tmp_path / "whole")


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("file", [".resume/state", "checkpoints/epoch-001.safetensors"])
@pytest.mark.parametrize("damage", ["bit", "truncated", "missing"])
def test_damaged_state_is_replaced(damage, file, finished, tmp_path, dataset, make_job):
    job, messages = make_job(), []
    train(job, dataset, tmp_path / "whole")
    train(job, dataset, tmp_path / "run", until=None if finished else 2)
    path = tmp_path / "run" / file
    data = bytearray(path.read_bytes())
    data[-20] ^= damage == "bit"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if damage == "truncated" else data)
    train(job, dataset, tmp_path / "run", report=messages.append)
    told = [] if (file, damage) == (".resume/state", "missing") else [True]
    assert ["the training starts from the beginning" in message for message in messages] == told
    assert content(tmp_path / "run") == content(tmp_path / "whole")


KILLED = """
import sys
from pathlib import Path
import torch
from robust_flatness.config import TrainJob
from robust_flatness.data import load_dataset
from robust_flatness.run.train import TrainingStore, train

torch.set_num_threads(1)
save = TrainingStore.save
TrainingStore.save = lambda store, state: save(store, state) or print("epoch", flush=True)
folder = Path(sys.argv[1])
job = TrainJob.model_validate_json((folder / "job.json").read_text())
train(job, load_dataset(folder / "data.safetensors"), folder / "killed")
"""


def test_killed_processes(tmp_path, dataset, make_job):
    """SIGKILL and SIGTERM during training, then to the end: the same bytes."""
    job = make_job(epochs=8, snapshots=4)
    save_dataset(tmp_path / "data.safetensors", dataset.arrays)
    (tmp_path / "job.json").write_text(job.json_text())
    call = {"args": [sys.executable, "-c", KILLED, tmp_path], "stdout": subprocess.PIPE, "text": True}
    for epochs, number in ((2, signal.SIGKILL), (4, signal.SIGTERM)):
        with subprocess.Popen(**call) as process:
            for _ in range(epochs):
                process.stdout.readline()
            process.send_signal(number)
            assert process.wait(30) == -number
    done = subprocess.run(**call, check=True)
    assert "resumed after epoch" in done.stdout
    assert done.stdout.count("epoch\n") < 8 + 1  # and one when it is published
    train(job, dataset, tmp_path / "whole")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
