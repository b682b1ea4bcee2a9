"""Measuring checkpoints: one job of the workflow."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robust_flatness.checkpoints import Checkpoint, load_checkpoint
from robust_flatness.data import Dataset, load_dataset
from robust_flatness.errors import FileError, NonFiniteError, noted_warnings
from robust_flatness.files import portable, write_json
from robust_flatness.measuring.base import Measure, Measured
from robust_flatness.resumable import Unfinished
from robust_flatness.runtime.devices import out_of_memory, with_precision_on
from robust_flatness.runtime.progress import told
from robust_flatness.runtime.provenance import provenance
from robust_flatness.tables.collect import example_rows
from robust_flatness.tables.rows import read_rows, write_rows


def measure_checkpoints(
    measure: Measure,
    checkpoints: list[Path],
    spec: Any,
    data: Path,
    output: Path,
    seed: int,
    device: str,
    threads: int,
) -> None:
    """Apply a measure to each checkpoint and write `<output>/measures/<checkpoint>/<measure>.json`.

    A measure of snapshots takes those that lie beside the checkpoints and writes
    `<output>/<measure>.csv`, a row for each. Checkpoints with identical tensors (the last may be the
    early-stopped one) are measured once. A job that was interrupted goes on after the last
    checkpoint, or attack of AutoAttack, that it had finished.

    Raises
    ------
    FileError
        If a file is missing or damaged, or the data has fewer examples than asked for.
    """
    dataset, spec = load_dataset(data), with_precision_on(device, spec)
    if measure.of_snapshots:
        checkpoints = snapshots_beside(checkpoints[0])
    loaded = [load_checkpoint(path, device) for path in checkpoints]
    described = describe_job(measure, spec, seed, dataset, device, threads)
    if measure.of_snapshots:
        outputs, folder = [output / path for path in measure.outputs()], output
    else:
        folder = output / "measures"
        outputs = [folder / path.stem / f"{measure.name}.json" for path in checkpoints]
    identity = described | {"checkpoints": [checkpoint.metadata.sha256 for checkpoint in loaded]}
    unfinished = Unfinished(folder / ".resume" / measure.name, identity)
    with unfinished.locked(outputs) as needed:
        results = []
        for index, checkpoint in enumerate(told(loaded, measure.name) if needed else ()):
            results.append(
                unfinished.get(
                    checkpoint.metadata.sha256,
                    lambda checkpoint=checkpoint: measured(
                        measure, checkpoint, dataset, spec, seed, device, unfinished.parts
                    ),
                )
            )
            if not measure.of_snapshots:
                metadata = checkpoint.metadata
                source = {
                    name: getattr(metadata, name) for name in ("variant", "epoch", "precision", "sha256")
                }
                source["weights_sha256"] = checkpoint.weights_sha256
                write_json(outputs[index], portable(described | {"checkpoint": source, **results[index]}))
        if needed and measure.of_snapshots:
            write_series(outputs, [*zip(loaded, results, strict=True)])


def measured(
    measure: Measure, checkpoint: Checkpoint, dataset: Dataset, spec: Any, seed: int, device: str, state: Path
) -> dict[str, Any]:
    """The values and details of one measure of one checkpoint, and what makes them mislead (`warnings`).

    A network of the kit whose logits are no numbers has not learnt: its measure is NaN.
    """
    kept = "What is finished is kept, and the next run goes on from there."
    with out_of_memory(largest_batch(spec.model_dump()), kept), noted_warnings() as notes:
        try:
            found = measure.function(checkpoint, dataset, spec, seed, device, state)
        except NonFiniteError as error:
            notes.append(str(error))
            found = Measured({measure.columns[0].name() if measure.columns else "test_rloss_pgd": math.nan})
    return asdict(found) | ({"warnings": notes} if notes else {})


def largest_batch(settings: dict[str, Any]) -> int:
    """The largest `batch_size` among settings and their parts; results do not depend on it but for
    rounding."""
    own = [value for name, value in settings.items() if name == "batch_size"]
    parts = [largest_batch(value) for value in settings.values() if isinstance(value, dict)]
    return max([*own, *parts], default=1)


def write_series(outputs: list[Path], results: list[tuple[Checkpoint, dict]]) -> None:
    """The table of a measure of snapshots, and beside it, where asked for, that of single examples."""
    write_rows(
        outputs[0],
        [{"epoch": snapshot.metadata.epoch, **result["values"]} for snapshot, result in results],
    )
    for path in outputs[1:]:
        examples = [
            {"epoch": snapshot.metadata.epoch, "checkpoint": snapshot.name, **row}
            for snapshot, result in results
            for row in example_rows(result["details"]["examples"])
        ]
        write_rows(path, examples)


def describe_job(
    measure: Measure, spec: Any, seed: int, dataset: Dataset, device: str, threads: int
) -> dict[str, Any]:
    """What a result depends on besides the network."""
    return {
        "measure": measure.name,
        "spec": spec.model_dump(mode="json"),
        "seed": seed,
        "data_sha256": dataset.checksum,
        "classes": dataset.classes,
        "provenance": provenance(device, threads) | {"precision": getattr(spec, "precision", "float32")},
    }


def snapshots_beside(path: Path) -> list[Path]:
    """The snapshots `epoch-NNN.safetensors` in the folder of a checkpoint, by epoch.

    Raises
    ------
    FileError
        If there are none, or fewer than the training's history tells of.
    """
    folder = path.parent
    snapshots = sorted(folder.glob("epoch-*.safetensors"))
    if not snapshots:
        raise FileError(f"{folder}: no snapshots (epoch-NNN.safetensors); train the variant first")
    history = folder.parent / "history.csv"
    epochs = read_rows(history, need=["epoch", "test_rloss"]).rows
    taken = {int(row["epoch"]) for row in epochs if row["test_rloss"]}
    lacking = taken - {int(path.stem.removeprefix("epoch-")) for path in snapshots}
    if lacking:
        raise FileError(
            f"{folder}: snapshots of epochs {', '.join(map(str, sorted(lacking)))} are missing, but "
            f"{history} has them; delete {history} and run snakemake again to retrain"
        )
    return snapshots
