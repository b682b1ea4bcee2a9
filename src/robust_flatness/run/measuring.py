"""The measuring job: all measures of one network, at its checkpoints and snapshots."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from robust_flatness.checkpoints import LOADED, Checkpoint, load_checkpoint
from robust_flatness.config.kinds import source_digest
from robust_flatness.config.values import Spec, parse
from robust_flatness.config.variants import BASELINE
from robust_flatness.data import load_dataset
from robust_flatness.errors import FileError, NonFiniteError, noted_warnings, warn
from robust_flatness.files import write_rows
from robust_flatness.measures.base import CHECKPOINTS, Examples, Measure, Record
from robust_flatness.measures.registry import MEASURES
from robust_flatness.network import Network
from robust_flatness.run.resume import Parts, Report, locked
from robust_flatness.runtime.devices import out_of_memory, with_precision_on
from robust_flatness.runtime.progress import stage
from robust_flatness.runtime.provenance import provenance
from robust_flatness.tables.collect import fingerprint
from robust_flatness.tables.records import read_csv, write_network
from robust_flatness.tables.schema import EXAMPLES


class MeasuringJob(Spec):
    """All measures of one network.

    `measures` holds the settings of each measure by name; `config` and `training` are fingerprints of the
    experiment and of the training, by which `collect` recognises the results that belong to it, and
    `fingerprints` those of measures with user-defined functions, which include their source.
    """

    variant: str
    checkpoints: tuple[str, ...] = CHECKPOINTS
    measures: dict[str, dict[str, Any]]
    config: str = ""
    training: str = ""
    fingerprints: dict[str, str] = Field(default_factory=dict)


def measure_network(
    job: MeasuringJob, data: Path, directory: Path, seed: int, device: str, threads: int,
    report: Report = print,
) -> None:  # fmt: skip
    """Apply all measures to the checkpoints below `directory`; write `records.csv` and `examples.csv` there.
    A measure of one checkpoint is a part, kept in `.resume/parts.jsonl` with fingerprints of its settings,
    data, weights and code. After an interruption or a change, the missing and changed parts are computed."""
    parse(dict[Literal[*MEASURES], Any], job.measures, "measures")
    settings = {
        name: with_precision_on(device, parse(measure.settings, job.measures[name], name))
        for name, measure in MEASURES.items()
        if name in job.measures
    }
    dataset, folder = load_dataset(data), directory / ".resume"
    paths, snapshots = _checkpoints(job, directory)
    rows, examples, described, first_with = [], [], {}, {}
    with locked(folder, "another process is measuring this network", report), noted_warnings():
        parts = Parts(folder / "parts.jsonl", report)
        for path in paths:
            checkpoint = load_checkpoint(path, device)
            known, snapshot = checkpoint.metadata, checkpoint.name not in CHECKPOINTS
            key = {"variant": job.variant, "seed": seed, "checkpoint": checkpoint.name}
            # equal checkpoints (the last one may be the early-stopped one) are measured once
            label = first_with.setdefault((known.sha256, snapshot), checkpoint.name)
            shared = Examples(
                dataset, device, seed, checkpoint.name, weight_bound=known.weight_bound,
                initial_weights=checkpoint.initial, folder=folder, snapshots=snapshots,
            )  # fmt: skip
            identity = {
                "data": dataset.checksum, "weights": known.sha256, "seed": seed, "snapshots": [*snapshots],
                "torch, device or threads": [torch.__version__, device.partition(":")[0], threads],
            }  # fmt: skip
            notes = {}
            for name, given in settings.items():
                measure = MEASURES[name]
                if checkpoint.name not in measure.checkpoints and not (measure.of_snapshots and snapshot):
                    continue
                code = [] if checkpoint.is_own else [known.model[LOADED]]
                part = kept_part(parts, f"{name}/{label}", identity, measure, checkpoint, shared, given, code)
                notes |= part["notes"]
                where = key | {"epoch": known.epoch, "measure": name}
                rows += [where | Record(*record)._asdict() for record in part["records"]]
                if not measure.of_snapshots or job.variant == BASELINE:
                    examples += [key | row for row in example_rows(part["examples"])]
            if not snapshot:
                described[checkpoint.name] = {
                    "epoch": known.epoch, "notes": notes, "sha256": known.sha256,
                    "precision": known.precision, "weights_sha256": checkpoint.weights_sha256,
                }  # fmt: skip
        examples = [{name: row.get(name) for name in EXAMPLES} for row in examples]
        write_rows(directory / "examples.csv", examples, EXAMPLES)
        header = {
            "checkpoints": described, "classes": dataset.classes, "config": job.config,
            "data_sha256": dataset.checksum, "provenance": provenance(device, threads),
            "measures": {n: job.fingerprints.get(n, fingerprint(given)) for n, given in job.measures.items()},
            "settings": job.measures, "training": job.training,
        }  # fmt: skip
        write_network(directory / "records.csv", header, rows)
        parts.prune()


def _checkpoints(
    job: MeasuringJob, directory: Path
) -> tuple[list[Path], dict[int, Callable[[], torch.nn.Module]]]:
    """Return the files of the checkpoints (and of the snapshots if a measure needs them), and functions that
    load the snapshots by epoch."""
    folder, history = directory / "checkpoints", directory / "history.csv"
    paths = [folder / f"{name}.safetensors" for name in job.checkpoints]
    taken = {int(p.stem.removeprefix("epoch-")): p for p in sorted(folder.glob("epoch-*.safetensors"))}
    if any(MEASURES[name].of_snapshots for name in job.measures):
        curves = read_csv(history, need=["epoch", "test_rloss"])
        epochs = {*curves.query("test_rloss != ''")["epoch"].astype(int)}
        if lacking := sorted(epochs - taken.keys()):
            missing = f"{folder}: snapshots of epochs {', '.join(map(str, lacking))} are missing"
            raise FileError(f"{missing}; delete {history} and run snakemake again to retrain")
        paths += taken.values()
    return paths, {epoch: lambda path=path: load_checkpoint(path).model for epoch, path in taken.items()}


def kept_part(
    parts: Parts, name: str, identity: Mapping[str, Any], measure: Measure, checkpoint: Checkpoint,
    data: Examples, settings: Spec, code: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Return the part `name` as stored, or else as computed by `measured`; reissue its warnings.

    The fingerprint covers `identity` (its `snapshots` only if the settings take them), the settings, the
    measure's version, and the source of user-defined functions named in the settings and in `code`.
    Intermediate values are stored as parts `name/...`.
    """
    source = source_digest([*code, *getattr(settings, "own", {}).values()])
    depends_on = {k: value for k, value in identity.items() if k != "snapshots" or settings.takes_snapshots}
    depends_on |= {"settings": settings.model_dump(mode="json"), "code": [measure.version, source]}
    data.keep = lambda value, compute: parts.get(f"{name}/{value}", depends_on, compute)
    part = parts.get(name, depends_on, lambda: measured(measure, checkpoint, data, settings))
    for message in part["warnings"]:
        warn(message)
    return part


def measured(measure: Measure, checkpoint: Checkpoint, data: Examples, settings: Spec) -> dict[str, Any]:
    """Return records, per-example values, notes and warnings of one measure of one network. If the network's
    logits are not finite, the first metric is recorded as NaN, of the robust loss if it is one of a loss."""
    data.notes, data.example_values = {}, {}
    kept = "What is finished is kept; the next run resumes from there."
    with out_of_memory(largest_batch(settings.model_dump()), kept), noted_warnings(show=False) as warnings:
        try:
            with stage(measure.name):
                # `net.layers` is complete only after a first forward pass
                few = data.dataset.images("test", min(2, data.dataset.size("test")), data.device)
                net = Network.of(checkpoint.network, few)
                records = [[*record] for record in measure.function(net, data, settings)]
        except NonFiniteError as error:
            warnings.append(str(error))
            metric, description = next(iter(measure.metrics.items()))
            loss = "rloss" if description.by_loss else ""
            records = [[*Record(metric, math.nan, loss=loss, split=description.splits[0])]]
    found = {"records": records, "examples": data.example_values}
    return found | {"notes": data.notes, "warnings": warnings}


def largest_batch(settings: dict[str, Any]) -> int:
    """Return the largest `batch_size` in the settings, nested ones included."""
    nested = [largest_batch(value) for value in settings.values() if isinstance(value, dict)]
    return max([settings.get("batch_size", 1), *nested])


def example_rows(values: dict[str, dict[str, list]]) -> Iterator[dict[str, Any]]:
    """Yield a row per example from per-example values, given as split -> column -> values."""
    for split, columns in values.items():
        for number, row in enumerate(zip_longest(*columns.values())):
            yield {"split": split, "example": number, **dict(zip(columns, row, strict=True))}
