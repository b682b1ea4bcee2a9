"""The measuring job: all measures of one network, at its checkpoints and snapshots."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_flatness.checkpoints import LOADED, Checkpoint, load_checkpoint
from robust_flatness.config.kinds import source_digest
from robust_flatness.config.values import Spec, meant, parse
from robust_flatness.config.variants import BASELINE
from robust_flatness.data import load_dataset
from robust_flatness.errors import ConfigError, FileError, NonFiniteError, noted_warnings
from robust_flatness.files import write_text
from robust_flatness.measures.base import CHECKPOINTS, Measure, Record
from robust_flatness.measures.examples import Examples
from robust_flatness.measures.registry import MEASURES
from robust_flatness.run.resume import Parts, Report, locked
from robust_flatness.runtime.devices import out_of_memory, with_precision_on
from robust_flatness.runtime.provenance import provenance
from robust_flatness.tables.collect import fingerprint
from robust_flatness.tables.records import write_network
from robust_flatness.tables.rows import csv_text, read_rows
from robust_flatness.tables.schema import EXAMPLES

if TYPE_CHECKING:
    from torch import nn


class MeasuringJob(Spec):
    """All measures of one network.

    `measures` holds the settings of each measure by name; `config` and `training` are fingerprints of the
    experiment and of the training, by which `collect` recognises the results that belong to it.
    """

    variant: str
    checkpoints: tuple[str, ...] = CHECKPOINTS
    measures: dict[str, dict[str, Any]]
    config: str = ""
    training: str = ""


def measure_network(
    job: MeasuringJob,
    data: Path,
    directory: Path,
    seed: int,
    device: str,
    threads: int,
    report: Report = print,
) -> None:
    """Apply all measures to the checkpoints below `directory`; write `records.csv` and `examples.csv` there.
    A measure of one checkpoint is a part, kept in `.resume/parts.jsonl` with fingerprints of its settings,
    data, weights and code. After an interruption or a change, the missing and changed parts are computed."""
    for name in job.measures:
        if name not in MEASURES:
            known = f"{meant(name, MEASURES)}; known are {', '.join(MEASURES)}"
            raise ConfigError(f"measures: unknown measure {name!r}{known}")
    dataset = load_dataset(data)
    settings = {}
    for name in (name for name in MEASURES if name in job.measures):
        given = parse(MEASURES[name].settings, job.measures[name], name)
        settings[name] = with_precision_on(device, given)
    folder = directory / ".resume"
    rows, examples, described, first_with = [], [], {}, {}
    with locked(folder, "another process is measuring this network", report):
        parts = Parts(folder / "parts.jsonl", report)
        for path in _checkpoints(job, directory):
            checkpoint = load_checkpoint(path, device)
            key = {"variant": job.variant, "seed": seed, "checkpoint": checkpoint.name}
            # equal checkpoints (the last one may be the early-stopped one) are measured once
            content = checkpoint.sha256, checkpoint.name in CHECKPOINTS
            label = first_with.setdefault(content, checkpoint.name)
            bound, initial = checkpoint.weight_bound, checkpoint.initial
            options = {"folder": folder, "snapshots": _snapshots(directory)}
            shared = Examples(dataset, device, seed, checkpoint.name, bound, initial, **options)
            notes = {}
            for name, given in settings.items():
                measure = MEASURES[name]
                snapshot = checkpoint.name not in CHECKPOINTS
                if not (checkpoint.name in measure.checkpoints or (measure.of_snapshots and snapshot)):
                    continue
                part = _part(parts, label, measure, checkpoint, shared, given)
                notes |= part["notes"]
                where = key | {"epoch": checkpoint.metadata.epoch, "measure": name}
                rows += [where | Record(*record)._asdict() for record in part["records"]]
                if not measure.of_snapshots or job.variant == BASELINE:
                    examples += [key | row for row in example_rows(part["examples"])]
            if checkpoint.name in CHECKPOINTS:
                described[checkpoint.name] = {
                    "epoch": checkpoint.metadata.epoch, "notes": notes, "sha256": checkpoint.sha256,
                    "precision": checkpoint.metadata.precision, "weights_sha256": checkpoint.weights_sha256,
                }  # fmt: skip
        examples = [{name: row.get(name) for name in EXAMPLES} for row in examples]
        write_text(directory / "examples.csv", csv_text(examples, EXAMPLES))
        header = {
            "checkpoints": described, "classes": dataset.classes, "config": job.config,
            "data_sha256": dataset.checksum, "provenance": provenance(device, threads),
            "measures": {name: fingerprint(given) for name, given in job.measures.items()},
            "settings": job.measures, "training": job.training,
        }  # fmt: skip
        write_network(directory / "records.csv", header, rows)
        parts.prune()


def _part(
    parts: Parts, label: str, measure: Measure, checkpoint: Checkpoint, data: Examples, settings: Any
) -> dict[str, Any]:
    """Return the part `<measure>/<label>`, stored or computed."""
    name = f"{measure.name}/{label}"
    own = [*getattr(settings, "own", {}).values()]
    own += [] if checkpoint.is_own else [checkpoint.metadata.model[LOADED]]
    depends_on = {
        "settings": settings.model_dump(mode="json"),
        "data": data.dataset.checksum,
        "weights": checkpoint.sha256,
        "code": [measure.version, source_digest(own)],
        "seed": data.seed,
    }
    if settings.takes_snapshots:
        depends_on["snapshots"] = [*data.snapshots]
    return kept_part(parts, name, depends_on, measure, checkpoint, data, settings)


def kept_part(
    parts: Parts, name: str, depends_on: Mapping, *arguments: Any, **options: Any
) -> dict[str, Any]:
    """Return the part `name`, stored or `measured` with these arguments; its intermediate values are parts
    `name/...`, with the same fingerprint."""
    _, _, data, _ = arguments
    data.keep = lambda value, compute: parts.get(f"{name}/{value}", depends_on, compute)
    return parts.get(name, depends_on, lambda: measured(*arguments, **options))


def measured(
    measure: Measure, checkpoint: Checkpoint, data: Examples, settings: Spec, show: bool = True
) -> dict[str, Any]:
    """Return the records of one measure of one network, the values of single examples, and the warnings.
    Warnings are printed too if `show`. If logits of the network are not finite, the measure is NaN."""
    data.notes, data.example_values = {}, {}
    kept = "What is finished is kept; the next run resumes from there."
    with out_of_memory(largest_batch(settings.model_dump()), kept), noted_warnings(show) as warnings:
        try:
            records = [*measure.function(checkpoint.network, data, settings)]
        except NonFiniteError as error:
            warnings.append(str(error))
            metric, description = next(iter(measure.metrics.items()))
            records = [Record(metric, math.nan, split=description.splits[0])]
    found = {"records": [[*record] for record in records], "examples": data.example_values}
    return found | {"notes": data.notes, "warnings": warnings}


def largest_batch(settings: dict[str, Any]) -> int:
    """Return the largest `batch_size` among settings and their parts."""
    nested = [largest_batch(value) for value in settings.values() if isinstance(value, dict)]
    return max([settings.get("batch_size", 1), *nested])


def example_rows(values: dict[str, dict[str, list]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each example, from split -> column -> values of the first examples."""
    for split, columns in values.items():
        for number, row in enumerate(zip_longest(*columns.values())):
            yield {"split": split, "example": number, **dict(zip(columns, row, strict=True))}


def _snapshots(directory: Path) -> dict[int, Callable[[], "nn.Module"]]:
    """Return functions that load the snapshots of a training, by epoch."""

    def load(path: Path) -> "nn.Module":
        return load_checkpoint(path).model

    paths = sorted((directory / "checkpoints").glob("epoch-*.safetensors"))
    return {int(path.stem.removeprefix("epoch-")): partial(load, path) for path in paths}


def _checkpoints(job: MeasuringJob, directory: Path) -> Iterator[Path]:
    """Yield the files of the checkpoints, and of the snapshots where a measure takes them."""
    folder = directory / "checkpoints"
    yield from (folder / f"{name}.safetensors" for name in job.checkpoints)
    if any(MEASURES[name].of_snapshots for name in job.measures):
        snapshots = sorted(folder.glob("epoch-*.safetensors"))
        history = directory / "history.csv"
        rows = read_rows(history, need=["test_rloss"])
        epochs = {int(row["epoch"]) for row in rows if row["test_rloss"]}
        lacking = sorted(epochs - {int(path.stem.removeprefix("epoch-")) for path in snapshots})
        if lacking:
            missing = f"{folder}: snapshots of epochs {', '.join(map(str, lacking))} are missing"
            raise FileError(f"{missing}; delete {history} and run snakemake again to retrain")
        yield from snapshots
