"""Trainings from their state to their files: snapshots, early stopping, history and resumption."""

import math
from collections.abc import Callable
from pathlib import Path

from robust_flatness.config import TrainJob
from robust_flatness.data import Dataset
from robust_flatness.errors import TrainingError
from robust_flatness.resumable import State, UnfinishedTraining, snapshot_name
from robust_flatness.runtime.devices import out_of_memory
from robust_flatness.tables.history import Row, best_epoch, write_history
from robust_flatness.training.loop import Training

#: Called after every epoch with the epochs done, the epochs in all, and the epoch's row of history.
Progress = Callable[[int, int, Row], None]


def train(
    job: TrainJob,
    dataset: Dataset,
    directory: Path,
    *,
    device: str = "cpu",
    pseudo_labels=None,
    progress: Progress | None = None,
    report: Callable[[str], None] = print,
    all_snapshots: bool = True,
    until: int | None = None,
) -> None:
    """Train `job` on `dataset` and write what comes of it to `directory`.

    Written are `history.csv` and `checkpoints/{last,best,epoch-NNN}.safetensors`, all at the end:
    until then, state and snapshots are kept in `directory/.resume`, from which an interrupted
    training goes on to the bit-identical result. `best` is the first snapshot with the lowest RErr
    on the early-stopping images. `pseudo_labels` are int labels [n] of the `unlabeled` split,
    needed if `unlabeled_fraction` is set. `report` receives messages for the log. Without `all_snapshots`,
    only `last` and `best` are written, and no more than these are kept on the way. With `until`, the
    call ends once so many epochs are done; the next one goes on.

    A second process in the same directory waits for the first and then takes over. A training that
    has been finished is not done again: what is missing of its files is made from its snapshots.

    Raises
    ------
    ConfigError
        If settings exclude each other, or do not fit the data.
    TrainingError
        If the loss becomes NaN or infinite, or a file cannot be written. The last good epoch's state
        is kept.
    OutOfMemoryError
        If a GPU's memory does not suffice. The last epoch's state is kept.
    """
    kept = f"The next run with the same settings goes on from the last epoch finished in {directory}."
    with out_of_memory(job.training.batch_size, kept):
        run = Training(job, dataset, device, pseudo_labels)
        store = UnfinishedTraining(directory, run.fingerprint(dataset.checksum), report, all_snapshots)
        _run(run, store, progress, until)


def _run(run: Training, store: UnfinishedTraining, progress: Progress | None, until: int | None) -> None:
    directory = store.directory
    try:
        with store.locked():
            rows = store.finished()
            if rows is None:
                rows = _train(run, store, progress, until)
                if len(rows) < run.spec.epochs:
                    return
            else:
                store.report(
                    f"{directory}: this training has been finished; its files are made from its snapshots"
                )
            store.publish(run.spec.snapshot_epochs(), best_epoch(rows))
            write_history(directory / "history.csv", rows)
            store.finish(rows)
    except OSError as error:
        raise TrainingError(
            f"{error.filename or directory}: {error.strerror or error}; the epochs saved so far are kept in "
            f"{store.folder}, and the next run goes on from there"
        ) from error


def _train(
    run: Training, store: UnfinishedTraining, progress: Progress | None, until: int | None
) -> list[Row]:
    """Train from the stored state, or the beginning, until so many epochs are done (None: all); the rows of
    the history."""
    epochs, directory = run.spec.epochs, store.directory
    state = store.load()
    rows: list[Row] = []
    if state is not None:
        run.restore(state.tensors)
        rows = state.notes["rows"]
        store.report(f"{directory}: resumed after epoch {rows[-1]['epoch']}")
    snapshots = set(run.spec.snapshot_epochs())
    for epoch in range(len(rows), min(epochs, until or epochs)):
        row = run.epoch(epoch)
        _require_finite(run, row, rows, store, snapshots)
        if epoch in snapshots:
            row |= run.snapshot(epoch, store.snapshots / snapshot_name(epoch))
        rows.append(row)
        taken = sorted(snapshots & set(range(epoch + 1)))
        needed = taken if store.all_snapshots else sorted({best_epoch(rows), taken[-1]})
        store.save(State(run.state(), {"rows": rows}), needed)
        if progress:
            progress(epoch + 1, epochs, row)
    return rows


def _require_finite(
    run: Training, row: Row, rows: list[Row], store: UnfinishedTraining, snapshots: set
) -> None:
    if math.isfinite(row["train_loss"]) and run.finite():
        return
    taken = sorted(snapshots & set(range(len(rows))))
    kept = (
        f"the state after epoch {len(rows) - 1} and the snapshots up to epoch {taken[-1]} are kept in "
        f"{store.folder}"
        if taken
        else "no epoch was finished before"
    )
    raise TrainingError(
        f"variant {run.job.variant!r}, seed {run.job.seed}: the loss became NaN or infinite in epoch "
        f"{row['epoch']} of {run.spec.epochs} (learning rate {row['learning_rate']:g}); {kept}. "
        "A lower learning_rate usually helps (overrides in the experiment's YAML)"
    )
