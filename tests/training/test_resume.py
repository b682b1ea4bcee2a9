"""Interrupted trainings go on to the bit-identical result."""

import contextlib
import errno
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from robust_flatness.errors import TrainingError
from robust_flatness.resumable import UnfinishedTraining
from robust_flatness.training import train
from robust_flatness.training.loop import Training

PSEUDO = torch.arange(12) % 3
EPOCHS = 5

CASES = {
    "at": {},
    "cyclic": {"schedule": "cyclic", "cycles": 2},
    "adam": {"optimizer": "adam", "learning_rate": 0.001},
    "entropy-sgd": {"optimizer": "entropy-sgd", "momentum": 0, "langevin_steps": 2},
    "averaging": {
        "weight_averaging": 0.9,
        "augmentation": {"crop": 1, "flip": True, "cutout": 2},
        "model": {"dropout": 0.2},
    },
    "awp": {"weight_perturbation": 0.01},
    "clipping": {"weight_clipping": 0.1},
    "dropout": {"model": {"dropout": 0.2}},
    "noise": {"label_noise": 0.5},
    "self-supervision": {
        "objective": "self-supervision", "objective_weight": 1, "adversarial_fraction": 0.5,
    },
    "trades": {"objective": "trades", "objective_weight": 6},
    "unlabeled": {"unlabeled_fraction": 0.5},
}  # fmt: skip


class Interruption(BaseException):
    pass


def quiet(_):
    pass


def content(directory: Path) -> dict[str, bytes]:
    paths = [*directory.glob("checkpoints/*"), directory / "history.csv"]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def interrupt_after(epochs):
    def progress(done, total, row):
        if done == epochs:
            raise Interruption

    return progress


@pytest.mark.parametrize("name", CASES)
def test_resumed_training_is_bit_identical(name, tmp_path, dataset, make_job):
    job = make_job(epochs=EPOCHS, snapshots=3, **CASES[name])
    train(job, dataset, tmp_path / "whole", pseudo_labels=PSEUDO)
    directory = tmp_path / "interrupted"
    stops = sorted(random.Random(name).sample(range(1, EPOCHS), 2))
    for stop in stops:
        with pytest.raises(Interruption):
            train(job, dataset, directory, pseudo_labels=PSEUDO, progress=interrupt_after(stop), report=quiet)
        # declared outputs appear only at the end
        assert [path.name for path in directory.iterdir()] == [".resume"]
    messages = []
    train(job, dataset, directory, pseudo_labels=PSEUDO, report=messages.append)
    assert f"resumed after epoch {stops[-1] - 1}" in messages[0]
    assert content(directory) == content(tmp_path / "whole")


def test_interruption_within_an_epoch_loses_that_epoch_only(tmp_path, dataset, make_job, monkeypatch):
    job = make_job(epochs=EPOCHS)
    train(job, dataset, tmp_path / "whole")
    original, started = Training.epoch, []

    def breaking(self, epoch):
        started.append(epoch)
        row = original(self, epoch)
        if started.count(epoch) == 1 and epoch in (0, 2, 3):
            raise Interruption
        return row

    monkeypatch.setattr(Training, "epoch", breaking)
    for _ in range(3):
        with pytest.raises(Interruption):
            train(job, dataset, tmp_path / "run", report=quiet)
    train(job, dataset, tmp_path / "run", report=quiet)
    assert started == [0, 0, 1, 2, 2, 3, 3, 4]
    assert content(tmp_path / "run") == content(tmp_path / "whole")


@pytest.mark.parametrize("where", ["publish", "finish"])
def test_interruption_while_publishing(where, tmp_path, dataset, make_job, monkeypatch):
    """Declared outputs may then be deleted, as a workflow does."""
    job = make_job()
    train(job, dataset, tmp_path / "whole")
    directory = tmp_path / "run"
    original = getattr(UnfinishedTraining, where)

    def breaking(self, *arguments):
        if where == "publish":
            original(self, *arguments)
        raise Interruption

    monkeypatch.setattr(UnfinishedTraining, where, breaking)
    with pytest.raises(Interruption):
        train(job, dataset, directory, report=quiet)
    for path in (directory / "checkpoints").iterdir():
        path.unlink()
    (directory / "history.csv").unlink(missing_ok=True)
    monkeypatch.setattr(UnfinishedTraining, where, original)
    monkeypatch.setattr(Training, "epoch", None)  # nothing is trained again
    train(job, dataset, directory, report=quiet)
    assert content(directory) == content(tmp_path / "whole")


def test_finished_training_keeps_no_state(tmp_path, dataset, make_job):
    train(make_job(), dataset, tmp_path)
    assert sorted(p.name for p in (tmp_path / ".resume").iterdir()) == ["finished", "lock"]


def test_a_training_that_was_finished_unseen_is_not_done_again(tmp_path, dataset, make_job, monkeypatch):
    """Snakemake dies, its job ends well, the next Snakemake deletes the outputs and starts it anew."""
    train(make_job(), dataset, tmp_path)
    before = content(tmp_path)
    for name in ("history.csv", "checkpoints/last.safetensors", "checkpoints/best.safetensors"):
        (tmp_path / name).unlink()
    messages = []
    with monkeypatch.context() as patch:
        patch.setattr(Training, "epoch", None)  # nothing is trained
        train(make_job(), dataset, tmp_path, report=messages.append)
    assert content(tmp_path) == before
    assert "has been finished" in messages[0]


@pytest.mark.parametrize("change", ["settings", "source", "damage", "exchange", "deletion"])
def test_a_finished_training_is_made_anew_if_it_is_another_or_not_whole(
    change, tmp_path, dataset, make_job, monkeypatch
):
    train(make_job(), dataset, tmp_path)
    snapshot = sorted((tmp_path / "checkpoints").glob("epoch-*"))[0]
    before = content(tmp_path)
    if change == "source":
        monkeypatch.setattr("robust_flatness.training.loop.source_digest", lambda: "other")
    elif change == "damage":
        data = bytearray(snapshot.read_bytes())
        data[-5] ^= 1
        snapshot.unlink()  # may be linked to another file
        snapshot.write_bytes(data)
    elif change == "exchange":  # a whole snapshot, but of another training
        train(make_job(learning_rate=0.01), dataset, tmp_path / "other")
        snapshot.unlink()
        shutil.copy(tmp_path / "other/checkpoints" / snapshot.name, snapshot)
        shutil.rmtree(tmp_path / "other")
    elif change == "deletion":
        snapshot.unlink()
    epochs = []
    settings = {"learning_rate": 0.01} if change == "settings" else {}
    train(make_job(**settings), dataset, tmp_path, progress=lambda done, *_: epochs.append(done))
    assert epochs == [1, 2, 3]
    assert (content(tmp_path) == before) is (change != "settings")


def test_stale_snapshots_are_removed(tmp_path, dataset, make_job):
    train(make_job(epochs=6, snapshots=6), dataset, tmp_path)
    train(make_job(epochs=3, snapshots=1), dataset, tmp_path)
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"epoch-000.safetensors", "epoch-002.safetensors", "best.safetensors", "last.safetensors"}


def interrupted(tmp_path, dataset, job, after=2, **arguments):
    with pytest.raises(Interruption):
        train(job, dataset, tmp_path, progress=interrupt_after(after), report=quiet, **arguments)


@pytest.mark.parametrize("damage", ["bit", "truncated", "empty", "snapshot", "missing snapshot"])
def test_damaged_state_is_discarded_with_a_message(damage, tmp_path, dataset, make_job):
    job = make_job()
    train(job, dataset, tmp_path / "whole")
    directory = tmp_path / "run"
    interrupted(directory, dataset, job)
    path = directory / ".resume" / ("checkpoints/epoch-001.safetensors" if "snapshot" in damage else "state")
    data = bytearray(path.read_bytes())
    if damage in ("bit", "snapshot"):
        data[-20] ^= 1
        path.write_bytes(data)
    elif damage == "missing snapshot":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2 if damage == "truncated" else 0])
    messages = []
    train(job, dataset, directory, report=messages.append)
    assert len(messages) == 1
    assert "training starts from the beginning" in messages[0]
    assert content(directory) == content(tmp_path / "whole")


@pytest.mark.parametrize("what", ["settings", "data", "pseudo-labels"])
def test_state_of_another_training_is_discarded(what, tmp_path, make_dataset, make_job):
    settings = {"unlabeled_fraction": 0.5}
    job, dataset, labels = make_job(**settings), make_dataset(), PSEUDO
    interrupted(tmp_path / "run", dataset, job, pseudo_labels=labels)
    if what == "settings":
        job = make_job(learning_rate=0.04, **settings)
    elif what == "data":
        dataset = make_dataset(seed=3)
    else:
        labels = (labels + 1) % 3
    messages = []
    train(job, dataset, tmp_path / "run", pseudo_labels=labels, report=messages.append)
    train(job, dataset, tmp_path / "whole", pseudo_labels=labels)
    assert "belongs to other settings, data" in messages[0]
    assert content(tmp_path / "run") == content(tmp_path / "whole")
    assert not (tmp_path / "run/.resume/aside").exists()


@pytest.mark.parametrize("cut", range(9))
@pytest.mark.parametrize("order", ["jjjoojjj", "jjjojojj"])
def test_state_put_aside_is_taken_up_once_all_is_as_it_was(
    order, cut, tmp_path, dataset, make_job, monkeypatch
):
    """An update of the package in the middle of a training, and back (an epoch of the job, then of another);
    also where a move is cut short."""
    job = make_job(epochs=EPOCHS)
    train(job, dataset, tmp_path / "whole", report=quiet)
    directory, moves = tmp_path / "run", []
    original = Path.replace

    def replace(path, target):
        moved = original(path, target)
        if path.name in ("state", "checkpoints"):
            moves.append(path)
            if len(moves) == cut:
                raise Interruption
        return moved

    monkeypatch.setattr(Path, "replace", replace)
    jobs = {"j": job, "o": make_job(epochs=EPOCHS, learning_rate=0.04)}
    epochs = [epoch for letter in order for epoch in an_epoch(jobs[letter], dataset, directory, letter)]
    of_job = [epoch for letter, epoch in epochs if letter == "j"]
    assert of_job == [1, 2, 3, 4, 5]
    assert content(directory) == content(tmp_path / "whole")


def an_epoch(job, dataset, directory, name="", report=quiet, **options):
    """Train for one epoch, unless that is interrupted before; (name, epoch) if it was not."""
    epochs = []

    def progress(done, of, row):
        epochs.append((name, done))
        if done < of:
            raise Interruption

    with contextlib.suppress(Interruption):
        train(job, dataset, directory, progress=progress, report=report, **options)
    return epochs


@pytest.mark.parametrize("cut", range(5))
@pytest.mark.parametrize("all_snapshots", [True, False])
def test_a_finished_training_is_not_done_again_because_another_was_begun(
    all_snapshots, cut, tmp_path, dataset, make_job, monkeypatch
):
    """Also where a workflow has deleted the outputs, and where a move is cut short."""
    job, other = make_job(epochs=EPOCHS), make_job(epochs=EPOCHS, learning_rate=0.04)
    directory, messages, moves = tmp_path / "run", [], []
    original = Path.replace

    def replace(path, target):
        moved = original(path, target)
        if path.name in ("state", "checkpoints", "finished"):
            moves.append(path)
            if len(moves) == cut:
                raise Interruption
        return moved

    options = {"all_snapshots": all_snapshots}
    train(job, dataset, directory, report=quiet, **options)
    whole = content(directory)
    monkeypatch.setattr(Path, "replace", replace)
    began = [epoch for _ in range(2) for epoch in an_epoch(other, dataset, directory, **options)]
    assert began[0] == ("", 1)
    for name in ("best", "last"):
        (directory / f"checkpoints/{name}.safetensors").unlink()
    done = [an_epoch(job, dataset, directory, report=messages.append, **options) for _ in range(2)]
    assert done == [[], []]
    assert "has been finished" in messages[-1]
    assert content(directory) == whole
    again = [epoch for _ in range(2) for epoch in an_epoch(other, dataset, directory, **options)]
    assert again[0] == ("", began[-1][1] + 1)


@pytest.mark.parametrize("left", ["a first snapshot", "damaged state"])
def test_a_finished_training_outlives_what_another_left(left, tmp_path, dataset, make_job):
    job, other = make_job(epochs=EPOCHS), make_job(epochs=EPOCHS, learning_rate=0.04)
    directory = tmp_path / "run"
    train(job, dataset, directory, report=quiet)
    whole = content(directory)
    an_epoch(other, dataset, directory)
    state = directory / ".resume/state"
    state.write_bytes(state.read_bytes()[:-1])
    if left == "a first snapshot":
        state.unlink()
    assert an_epoch(job, dataset, directory) == []
    assert content(directory) == whole


def test_damaged_state_put_aside_is_discarded(tmp_path, dataset, make_job):
    job, other = make_job(epochs=EPOCHS), make_job(epochs=EPOCHS, learning_rate=0.04)
    directory, messages = tmp_path / "run", []
    an_epoch(job, dataset, directory)
    an_epoch(other, dataset, directory)
    (state,) = directory.glob(".resume/aside/*/state")
    state.write_bytes(state.read_bytes()[:-1])
    assert an_epoch(job, dataset, directory, report=messages.append) == [("", 1)]
    assert "training starts from the beginning" in messages[-1]
    assert an_epoch(other, dataset, directory) == [("", 2)]


def start_waiting(job, dataset, directory):
    messages = []
    thread = threading.Thread(
        target=train, args=(job, dataset, directory), kwargs={"report": messages.append}
    )
    thread.start()
    deadline = time.monotonic() + 20
    while not messages and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "another process is training here" in messages[0]
    return thread, messages


def test_second_process_waits_and_goes_on(tmp_path, dataset, make_job):
    job = make_job()
    train(job, dataset, tmp_path / "whole")
    directory = tmp_path / "run"
    interrupted(directory, dataset, job)
    with open(directory / ".resume" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread, messages = start_waiting(job, dataset, directory)
        time.sleep(0.1)
        assert thread.is_alive()
        assert not (directory / "history.csv").exists()
    thread.join(60)
    assert "resumed after epoch 1" in messages[1]
    assert content(directory) == content(tmp_path / "whole")


def test_second_process_leaves_what_the_first_has_finished(tmp_path, dataset, make_job):
    job = make_job()
    train(job, dataset, tmp_path)
    before = content(tmp_path)
    with open(tmp_path / ".resume" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread, messages = start_waiting(job, dataset, tmp_path)
    thread.join(60)
    assert "has been finished" in messages[1]
    assert content(tmp_path) == before


KILLED = """
import sys
from pathlib import Path
import numpy as np
import torch
from robust_flatness.config import TrainJob
from robust_flatness.data import Dataset
from robust_flatness.training import train

torch.set_num_threads(1)
folder = Path(sys.argv[1])
arrays = dict(np.load(folder / "data.npz"))
job = TrainJob.model_validate_json((folder / "job.json").read_text())
train(job, Dataset(arrays), folder / sys.argv[2], progress=lambda *_: print("epoch", flush=True))
"""


def prepare_killing(tmp_path, dataset, job):
    """What `KILLED` reads, and the command that trains to `tmp_path / "killed"`."""
    np.savez(tmp_path / "data.npz", **dataset.arrays)
    (tmp_path / "job.json").write_text(job.json_text())
    command = [sys.executable, "-c", KILLED, str(tmp_path), "killed"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return {"args": command, "stdout": subprocess.PIPE, "text": True, "env": environment}


def test_killed_processes(tmp_path, dataset, make_job):
    """kill -9 and SIGTERM while it trains, then to the end: the same bytes."""
    job = make_job(epochs=8, snapshots=4)
    call = prepare_killing(tmp_path, dataset, job)
    for epochs, number in ((2, signal.SIGKILL), (4, signal.SIGTERM)):
        with subprocess.Popen(**call) as process:
            for _ in range(epochs):
                process.stdout.readline()
            process.send_signal(number)
            assert process.wait(30) == -number
    done = subprocess.run(**call, check=True)
    assert "resumed after epoch" in done.stdout
    assert done.stdout.count("epoch\n") < 8
    train(job, dataset, tmp_path / "whole")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


@pytest.mark.faults
def test_ten_kills_at_random_moments(tmp_path, dataset, make_job):
    """Moments spread over epochs and the writing of state, snapshots and outputs."""
    job = make_job(epochs=40, snapshots=20)
    train(job, dataset, tmp_path / "whole")
    call = prepare_killing(tmp_path, dataset, job)
    moments = random.Random(0)
    kills = 0
    while kills < 10:
        with subprocess.Popen(**call) as process:
            process.stdout.readline()
            time.sleep(moments.uniform(0, 0.4))
            process.kill()
            kills += process.wait(30) == -signal.SIGKILL
        for path in (tmp_path / "killed").glob("checkpoints/*"):
            path.unlink()  # as a workflow does with a failed job's outputs
        (tmp_path / "killed" / "history.csv").unlink(missing_ok=True)
    subprocess.run(**call, check=True)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


@pytest.mark.parametrize("write", [1, 4, 9, 14])
def test_a_full_disk_stops_with_a_message_and_can_be_resumed(write, tmp_path, dataset, make_job, monkeypatch):
    job = make_job(epochs=EPOCHS, snapshots=2)
    train(job, dataset, tmp_path / "whole")
    writes = []
    original = Path.replace

    def full(temporary, path):
        writes.append(path)
        if len(writes) == write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(temporary, path)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(TrainingError, match=r"No space left.*kept in .*\.resume"):
        train(job, dataset, tmp_path / "run", report=quiet)
    assert not list((tmp_path / "run").rglob("*.tmp"))
    train(job, dataset, tmp_path / "run", report=quiet)
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_best_and_last_alone_are_kept(tmp_path, dataset, make_job):
    """On the way, too. The two are those of a training that keeps all, and are made again from themselves."""
    job = make_job(epochs=EPOCHS, snapshots=EPOCHS)
    train(job, dataset, tmp_path / "whole")
    directory, kept = tmp_path / "run", []

    def look(done, total, row):
        kept.append(sorted(path.name for path in (directory / ".resume/checkpoints").iterdir()))
        if done == 3:
            raise Interruption

    with pytest.raises(Interruption):
        train(job, dataset, directory, progress=look, report=quiet, all_snapshots=False)
    assert max(map(len, kept)) <= 2
    assert kept[2][-1] == "epoch-002.safetensors"
    train(job, dataset, directory, report=quiet, all_snapshots=False)
    expected = {name: data for name, data in content(tmp_path / "whole").items() if "epoch-" not in str(name)}
    assert content(directory) == expected
    for path in (directory / "checkpoints").iterdir():
        path.unlink()
    messages = []
    train(job, dataset, directory, report=messages.append, all_snapshots=False)
    assert "has been finished" in messages[0]
    assert content(directory) == expected
    train(job, dataset, directory, report=quiet)
    assert content(directory) == content(tmp_path / "whole")
    train(job, dataset, directory, report=messages.append, all_snapshots=False)
    assert "has been finished" in messages[-1]
    assert content(directory) == expected


def test_a_training_cut_into_jobs_is_the_same(tmp_path, dataset, make_job):
    """Each ends after so many epochs, and only the last one leaves the declared outputs."""
    job = make_job(epochs=EPOCHS)
    train(job, dataset, tmp_path / "whole")
    directory, seen = tmp_path / "cut", []
    for until in (2, 2, 3):
        train(job, dataset, directory, until=until, progress=lambda done, *_: seen.append(done), report=quiet)
        assert [path.name for path in directory.iterdir()] == [".resume"]
    assert seen == [1, 2, 3]
    train(job, dataset, directory, report=quiet)
    assert content(directory) == content(tmp_path / "whole")
