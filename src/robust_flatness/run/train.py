"""The training job: start or resume a training, and write its checkpoints and history."""

import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from robust_flatness.checkpoints import load_checkpoint
from robust_flatness.config import TrainJob
from robust_flatness.data import Dataset
from robust_flatness.errors import FileError, TrainingError
from robust_flatness.files import atomic_path
from robust_flatness.run.resume import Report, locked
from robust_flatness.runtime.devices import out_of_memory
from robust_flatness.runtime.progress import track
from robust_flatness.runtime.state import StateFile
from robust_flatness.training.history import best_epoch, write_history
from robust_flatness.training.loop import Training


def train(
    job: TrainJob, dataset: Dataset, directory: Path, *, device: str = "cpu", pseudo_labels=None,
    report: Report = print, all_snapshots: bool = True, until: int | None = None,
) -> None:  # fmt: skip
    """Train `job` on `dataset`; write `history.csv` and `checkpoints/{last,best,epoch-NNN}.safetensors`.

    Snapshots (`epoch-NNN`) appear as they are taken, the others at the end. The state lies in
    `directory/.resume`, and the same call resumes an interrupted training to bit-identical results. Without
    `all_snapshots`, only the last and the best snapshot are kept, the first one with the lowest RErr on the
    early-stopping images. After `until` epochs the training stops; the next call continues.
    """
    kept = f"The next run with the same settings resumes after the last epoch finished in {directory}."
    with out_of_memory(job.training.batch_size, kept):
        run = Training(job, dataset, device, pseudo_labels)
        components = run.components(dataset.checksum)
        store = TrainingStore(directory, components, run.spec.snapshot_epochs(), all_snapshots, report)
        try:
            with locked(store.folder, "another process is training here", report):
                rows = _train(run, store, until or run.spec.epochs)
                if len(rows) == run.spec.epochs:
                    write_history(store.directory / "history.csv", rows)
                    store.publish(rows)
        except OSError as error:
            reason = f"{error.filename or directory}: {error.strerror or error}"
            raise TrainingError(f"{reason}; finished epochs are kept in {store.folder}") from error


def _train(run: Training, store: "TrainingStore", until: int) -> list[dict[str, Any]]:
    """Train from the stored state up to epoch `until`; return the rows of the history."""
    epochs, state = run.spec.epochs, store.load()
    rows = state["rows"]
    if len(rows) == epochs:
        store.report(f"{store.directory}: already trained; the files are written from its snapshots")
        return rows
    if rows:
        run.restore(state)
        store.report(f"{store.directory}: resumed after epoch {len(rows) - 1}")
    planned = range(len(rows), min(epochs, until))
    for epoch in track(planned, f"{run.job.variant}, seed {run.job.seed}"):
        row = run.epoch(epoch)
        if not (math.isfinite(row["train_loss"]) and run.finite()):
            kept = f"epochs up to {epoch - 1} are kept in {store.folder}" if rows else "no epoch was finished"
            where = f"epoch {epoch} of {epochs} (learning rate {row['learning_rate']:g})"
            raise TrainingError(
                f"variant {run.job.variant!r}, seed {run.job.seed}: the loss became NaN or infinite in "
                f"{where}; {kept}. A lower learning_rate usually helps (overrides in the experiment's YAML)"
            )
        if epoch in store.epochs:
            row |= run.snapshot(epoch, store.snapshot(epoch))
        rows.append(row)
        store.save({**run.state(), "rows": rows})
    return rows


class TrainingStore:
    """Resume state and checkpoints of the training in `directory`. Hold `locked(folder)` to use it.

    `.resume/state` holds weights, optimiser and history after the last finished epoch; after training,
    the history alone. Snapshots are taken at `epochs`; without `all_snapshots`, only the best and the
    last are kept.
    """

    def __init__(
        self, directory: Path, components: Mapping, epochs: Iterable, all_snapshots: bool, report: Report
    ):
        self.directory, self.folder = Path(directory), Path(directory) / ".resume"
        self.state = StateFile(self.folder / "state", components)
        self.checkpoints = self.directory / "checkpoints"
        self.epochs, self.all_snapshots, self.report = sorted(epochs), all_snapshots, report

    def snapshot(self, epoch: int) -> Path:
        """Return the path of the snapshot after `epoch`."""
        return self.checkpoints / f"epoch-{epoch:03d}.safetensors"

    def needed(self, rows: list[dict[str, Any]]) -> list[int]:
        """Return the epochs of the snapshots to keep, given the history's rows so far."""
        taken = [epoch for epoch in self.epochs if epoch < len(rows)]
        return taken if self.all_snapshots or not taken else sorted({best_epoch(rows), taken[-1]})

    def load(self) -> dict[str, Any]:
        """Return the state to resume from; without one, that of no epochs: `{"rows": []}`."""
        for path in self.directory.rglob(".*.tmp"):  # left by killed processes
            path.unlink()
        try:
            state = self.state.load() or {"rows": []}
            for epoch in self.needed(state["rows"]):
                load_checkpoint(self.snapshot(epoch))
            return state
        except FileError as problem:
            self.report(f"{self.state.path}: {problem}; the training starts from the beginning")
            self.state.path.unlink()
            return {"rows": []}

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the state, whose `rows` are the history, and remove snapshots that are no longer needed."""
        self.state.save(state)
        needed = [self.snapshot(epoch) for epoch in self.needed(state["rows"])]
        for path in self.checkpoints.glob("epoch-*.safetensors"):
            if path not in needed:
                path.unlink()

    def publish(self, rows: list[dict[str, Any]]) -> None:
        """Write the checkpoints `best` and `last`; reduce the state to the history."""
        for name, epoch in {"best": best_epoch(rows), "last": self.needed(rows)[-1]}.items():
            with atomic_path(self.checkpoints / f"{name}.safetensors") as temporary:
                shutil.copyfile(self.snapshot(epoch), temporary)
        self.save({"rows": rows})
