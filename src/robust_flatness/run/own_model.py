"""Measures of a user's network, computed by the functions that measure checkpoints."""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from robust_flatness.attacks.pgd import Loss, batches
from robust_flatness.boundary import outcome
from robust_flatness.checkpoints import Checkpoint
from robust_flatness.config.kinds import imported
from robust_flatness.config.measures import SPLITS, MeasureSettings
from robust_flatness.data import Dataset
from robust_flatness.errors import noted_warnings, warn
from robust_flatness.files import digest
from robust_flatness.measures.base import Examples, Record
from robust_flatness.measures.flatness import CASES
from robust_flatness.measures.flatness import METRICS as OF_FLATNESS
from robust_flatness.measures.losses import evaluate_robustness
from robust_flatness.measures.registry import MEASURES
from robust_flatness.network import Network
from robust_flatness.run.measuring import kept_part, largest_batch
from robust_flatness.run.own_inputs import check_settings
from robust_flatness.run.resume import Parts, Report, locked
from robust_flatness.runtime.devices import with_precision_on
from robust_flatness.runtime.provenance import provenance
from robust_flatness.tables.frames import with_columns
from robust_flatness.tables.records import FIELDS, NUMBERS

#: uint8 images whose values are all below this are probably not scaled to 0 to 255.
DARK = 64
#: Per-example values by split and column.
ExampleValues = dict[str, dict[str, list]]


def measure_model(
    model: nn.Module | Checkpoint, dataset: Dataset, settings: Mapping[str, MeasureSettings], *,
    seed: int = 0, device: str = "cpu", folder: Path | None = None, code: Sequence[str] = (), loss: str = "",
    snapshots: Sequence[nn.Module] = (), report: Report = print,
) -> tuple[dict[str, Any], ExampleValues]:  # fmt: skip
    """Apply measures to any network; return a JSON value and the values of single examples.

    The JSON value holds `records` as in an experiment's tables, `values` (the same by their columns in
    models.csv), settings, checksums, provenance, warnings and notes. Finished measures are stored in `folder`
    and reused if their fingerprints match. `code` lists user-defined functions (`package.module:function`)
    whose source enters the fingerprints, as does that of `loss`, which replaces the cross-entropy and is not
    supported by `sharpness`, `curvature` and `density`. `snapshots` are networks saved during training, in
    order.
    """
    check_settings(settings, dataset)
    criterion = imported(loss, "loss") if loss else None
    notes = {"loss": loss} if loss else {}
    settings = {name: with_precision_on(device, given) for name, given in settings.items()}
    records: list[dict[str, Any]] = []
    with noted_warnings() as warnings, tempfile.TemporaryDirectory() as temporary:
        pixels = dataset.pixels("test")
        if not pixels.is_floating_point() and pixels.max() < DARK:
            warn(f"test images: no value is above {pixels.max()} of 255; if scaled, give floats in [0, 1]")
        network = model if isinstance(model, Checkpoint) else Checkpoint(model, "own")
        model, bound = network.model, network.metadata and network.metadata.weight_bound
        types = {p.dtype for p in model.parameters() if p.is_floating_point()}
        if types and torch.float32 not in types:
            model = model.float()  # the dtype of the images
        network = replace(network, model=model.to(device))
        net = network.network
        gradient = (
            outcome(net, dataset.images("test", min(2, dataset.size("test")), device)).gradient.norm().item()
        )
        examples = clean_examples(net, dataset, settings, device, criterion)
        identity = {"seed": seed, "weights_sha256": network.weights_sha256, "data_sha256": dataset.checksum}
        identity["provenance"] = provenance(device, torch.get_num_threads())
        layers = net.layers if settings.keys() - {"robustness"} else None
        depends_on = identity | {"model": digest([examples, gradient, layers]), "weight_bound": bound}
        depends_on |= notes | {"snapshots": [Checkpoint(module).weights_sha256 for module in snapshots]}
        folder = folder or Path(temporary)
        shared = Examples(
            dataset, device, seed, network.name, bound, network.initial, folder=folder, loss=criterion,
            snapshots={number: lambda module=module: module for number, module in enumerate(snapshots)},
        )  # fmt: skip
        with locked(folder, "another process is measuring this network", report):
            parts = Parts(folder / "parts.jsonl", report)
            for name, given in settings.items():
                measure, functions = MEASURES[name], [*code, *([loss] if loss else [])]
                part = kept_part(parts, name, depends_on, measure, network, shared, given, functions)
                records += [{"measure": name} | Record(*values)._asdict() for values in part["records"]]
                notes |= part["notes"]
                for split, columns in examples.items():  # values at other radii have splits of their own
                    columns |= part["examples"].get(split, {})
            parts.prune()
        for message in implausible(records, examples):
            warn(message)
    described = {name: given.model_dump(mode="json") for name, given in settings.items()}
    result = {"warnings": warnings, "records": records, "values": by_column(records), "settings": described}
    return result | identity | {"notes": notes}, examples


@torch.no_grad()
def clean_examples(
    net: Network, dataset: Dataset, settings: Mapping[str, Any], device: str, loss: Loss | None
) -> ExampleValues:
    """Return label, prediction, error and loss of each example that a measure uses."""
    found = {}
    batch_size = max(largest_batch(given.model_dump()) for given in settings.values())
    options = {"attack": None, "batch_size": batch_size, "loss": loss}
    for split in SPLITS:
        if count := max(getattr(given, f"{split}_examples", 0) for given in settings.values()):
            x, y = dataset.images(split, count, device), dataset.labels(split, count, device)
            clean = evaluate_robustness(net, x, y, **options).clean
            predicted = torch.cat([net.logits(x[part]).argmax(1) for part in batches(count, batch_size)])
            losses, errors = clean.lists()
            described = {"label": y.tolist(), "prediction": predicted.tolist()}
            found[split] = described | {"err": errors, "ce": losses}
    return found


def implausible(records: Sequence[Mapping[str, Any]], examples: ExampleValues) -> Iterator[str]:
    """Yield plausibility warnings: accuracy near the share of the most frequent class, negative flatness."""
    for split, lists in examples.items():
        n, labels = len(lists["label"]), lists["label"]
        frequent = max(map(labels.count, set(labels))) / n
        accuracy = 1 - sum(lists["err"]) / n
        if accuracy <= frequent + 2 * math.sqrt(frequent * (1 - frequent) / n):
            yield (
                f"accuracy on {n} clean {split} examples is {100 * accuracy:.3g} %, not significantly above "
                f"the share of the most frequent class ({100 * frequent:.3g} %): check weights, "
                "normalisation, channels and labels"
            )
    for r in (r for r in records if r["measure"] == "flatness" and r["metric"] in CASES):
        if r["value"] < -2 * (r["se"] or 0.0):
            words = OF_FLATNESS[r["metric"]].words(r["split"], r["loss"], r["xi"])
            yield (
                f"{words} is negative ({r['value']:.2g}): the weights are no minimum of this loss, or the "
                "attack has not converged (more steps; for the average case, --restarts 1)"
            )


def by_column(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return values and standard errors by their columns in models.csv."""
    frame = pd.DataFrame(records).reindex(columns=[*FIELDS]).astype(dict.fromkeys(NUMBERS, float))
    frame = with_columns(frame).set_index("column")
    errors = frame["se"].dropna().add_suffix("_se")
    return frame["value"].to_dict() | errors.to_dict()
