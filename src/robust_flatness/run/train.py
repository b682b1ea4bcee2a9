"""The training job: resume or start a training, and write its checkpoints and history."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robust_flatness.config import TrainJob
from robust_flatness.data import Dataset
from robust_flatness.errors import TrainingError
from robust_flatness.run.resume import Report, TrainingStore, locked
from robust_flatness.runtime.devices import out_of_memory
from robust_flatness.runtime.progress import track
from robust_flatness.training.history import write_history
from robust_flatness.training.loop import Training

#: Called after every epoch with the number of finished epochs, of all epochs, and the row of the history.
Progress = Callable[[int, int, dict[str, Any]], None]


def train(
    job: TrainJob, dataset: Dataset, directory: Path, *, device: str = "cpu", pseudo_labels=None,
    progress: Progress | None = None, report: Report = print, all_snapshots: bool = True,
    until: int | None = None,
) -> None:  # fmt: skip
    """Train `job` on `dataset`; write `history.csv` and `checkpoints/{last,best,epoch-NNN}.safetensors`.

    These appear at the end. Until then, state and snapshots are kept in `directory/.resume`, and the same
    call resumes an interrupted training to bit-identical results. Without `all_snapshots`, only the last
    and the best snapshot are written, the first one with the lowest RErr on the early-stopping images.
    After `until` epochs the training stops; the next call continues.
    """
    kept = f"The next run with the same settings resumes after the last epoch finished in {directory}."
    with out_of_memory(job.training.batch_size, kept):
        run = Training(job, dataset, device, pseudo_labels)
        components = run.components(dataset.checksum)
        store = TrainingStore(directory, components, run.spec.snapshot_epochs(), all_snapshots, report)
        try:
            with locked(store.folder, "another process is training here", report):
                rows = _train(run, store, progress, until)
                if len(rows) == run.spec.epochs:
                    write_history(store.directory / "history.csv", rows)
                    store.publish(rows)
        except OSError as error:
            reason = f"{error.filename or directory}: {error.strerror or error}"
            raise TrainingError(f"{reason}; finished epochs are kept in {store.folder}") from error


def _train(
    run: Training, store: TrainingStore, progress: Progress | None, until: int | None
) -> list[dict[str, Any]]:
    """Train from the stored state up to epoch `until` (None: all); return the rows of the history."""
    epochs, state = run.spec.epochs, store.load()
    rows = state["rows"]
    if len(rows) == epochs:
        store.report(f"{store.directory}: already trained; the files are written from its snapshots")
        return rows
    if rows:
        run.restore(state)
        store.report(f"{store.directory}: resumed after epoch {len(rows) - 1}")
    planned = range(len(rows), min(epochs, until or epochs))
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
        if progress:
            progress(epoch + 1, epochs, row)
    return rows
