"""Measures of a network of the user's own: its data, its settings, its records."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pandas as pd
import torch
import yaml
from torch import nn

from robust_flatness.attacks.pgd import batches, cross_entropy
from robust_flatness.boundary import outcome, warn_of_sigmoid
from robust_flatness.checkpoints import LoadedModel
from robust_flatness.config.kinds import source_digest
from robust_flatness.config.measures import STEPS_TO_THE_EDGE, MeasureSettings
from robust_flatness.config.values import meant, parse
from robust_flatness.data import Dataset
from robust_flatness.data.images import open_parts, to_measure
from robust_flatness.data.npz import read_npz
from robust_flatness.errors import ConfigError, noted_warnings, warn
from robust_flatness.inputs import check_classes, require_finite
from robust_flatness.measures.base import SPLITS, Record
from robust_flatness.measures.examples import Examples
from robust_flatness.measures.flatness import AVERAGE, CASES, WORST
from robust_flatness.measures.flatness import METRICS as OF_FLATNESS
from robust_flatness.measures.registry import MEASURES
from robust_flatness.measures.robustness import rounded
from robust_flatness.network import Network
from robust_flatness.run.measuring import largest_batch
from robust_flatness.run.resume import Parts, Report, locked
from robust_flatness.runtime.devices import out_of_memory, with_precision_on
from robust_flatness.runtime.provenance import provenance
from robust_flatness.tables.frames import with_columns
from robust_flatness.tables.records import FIELDS, NUMBERS

#: Test examples measured by default, and the number of others that are held out for the Hessian.
EXAMPLES, HELD_OUT = 1000, 500
#: uint8 images whose values are all below may be on another scale than 0 to 255.
DARK = 64
PARTS = "parts.jsonl"
#: Settings that differ from those of an experiment: the main radii alone, and no AutoAttack.
PRESETS: dict[str, dict[str, Any]] = {
    "robustness": {"autoattack": None},
    "flatness": {"average": {"xi": AVERAGE.xi[:1]}, "worst": {"xi": WORST.xi[:1]}},
}


class Source(NamedTuple):
    """Images of the user: the data, the number of test examples to measure, and a description of folders and
    datasets of torchvision (classes by index, order, numbers of images)."""

    dataset: Dataset
    examples: int
    images: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """The description for people."""
        if self.images is None:
            return ""
        counts = (
            f"{self.images['available'][part]} {part} images, in {order} order"
            for part, order in self.images["order"].items()
        )
        classes = ", ".join(f"{index} {name}" for name, index in self.images["classes"].items())
        return f"{self.images['source']}: {'; '.join(counts)}" + (f"\nclasses: {classes}" if classes else "")


def read_source(
    source: str,
    examples: int | None,
    train_examples: int,
    size: int | None = None,
    download: bool = False,
) -> Source:
    """Read images from an .npz file, a folder, or torchvision (`torchvision:NAME[:FOLDER]`).

    Up to 500 test images after the first `examples` (None: 1000, or all) are held out for the Hessian.
    """
    if not (source.startswith("torchvision:") or Path(source).is_dir()):
        if size or download:
            raise ConfigError(
                f"--size, --download: {source} is neither a folder of images nor of torchvision"
            )
        arrays = read_npz(Path(source), to_measure=True)
        available = len(arrays["y_test"])
        examples = examples or min(EXAMPLES, available)
        first = max(examples, available - HELD_OUT)
        if first < available:
            arrays |= {f"{kind}_early_stopping": arrays[f"{kind}_test"][first:] for kind in "xy"}
        return Source(Dataset(arrays), examples)
    name, folder = "folder", source
    if source.startswith("torchvision:"):
        kind, dataset, *rest = source.split(":", 2)
        name, folder = f"{kind}:{dataset}", rest[0] if rest else "data"
    wanted = ("test", "train") if train_examples else ("test",)
    parts = open_parts(name, Path(folder), size, wanted=wanted, download=download)
    examples = examples or min(EXAMPLES, len(parts["test"].labels))
    arrays, images = to_measure(parts, examples, train_examples, HELD_OUT, "--size")
    return Source(Dataset(arrays), examples, images | {"source": source, "size": size})


def own_settings(
    names: Iterable[str],
    epsilon: float,
    sizes: Mapping[str, int],
    options: Mapping[str, Any],
    assignments: Sequence[str] = (),
) -> dict[str, MeasureSettings]:
    """Return the settings of the measures `names` on `sizes` examples of each split.

    `options` maps paths such as `average.samples` to values, for all measures that have the setting;
    `assignments` are texts such as `average.samples=5` or `flatness.average.xi=[0.5]`, which come last.

    Raises
    ------
    ConfigError
        For unknown measures and settings, and values that are not allowed.
    """
    known = [name for name, entry in MEASURES.items() if not entry.of_snapshots]
    blocks: dict[str, dict[str, Any]] = {}
    for name in names:
        if name not in known:
            raise ConfigError(
                f"--measures: unknown measure {name!r}{meant(name, known)}; allowed are {', '.join(known)}"
            )
        blocks[name] = dict(PRESETS.get(name, {}))
        for split in SPLITS:
            for field in (f"{split}_examples", f"clean_{split}_examples"):
                if field in MEASURES[name].settings.model_fields:
                    blocks[name][field] = sizes[split]
    if not blocks:
        raise ConfigError(f"--measures: none given; allowed are {', '.join(known)}")
    for path, value in options.items():
        assign(blocks, path, value)
    for text in assignments:
        path, equals, value = text.partition("=")
        try:
            assigned = assign(blocks, path, yaml.safe_load(value)) if equals else False
        except yaml.YAMLError as error:
            raise ConfigError(f"--set: {text!r}: not valid YAML ({error})") from None
        if not assigned:
            fields = [field for name in blocks for field in MEASURES[name].settings.model_fields]
            raise ConfigError(
                f"--set: {text!r} given{meant(path.partition('.')[0], [*blocks, *fields])}; expected e.g. "
                f"average.samples=5, with a setting of the measures {', '.join(blocks)}"
            )
    implied = {"epsilon": epsilon, "step_size": epsilon / STEPS_TO_THE_EDGE, "sizes": sizes}
    return {
        name: parse(MEASURES[name].settings, MEASURES[name].settings.implied(block, **implied), name)
        for name, block in blocks.items()
    }


def assign(blocks: dict[str, dict[str, Any]], path: str, value: Any) -> bool:
    """Set a value at a path that begins with the name of a block, or with a field: then in all blocks that
    have it by default. Return whether there is one."""
    first, _, rest = path.partition(".")
    if first in blocks and rest:
        targets, keys = [first], rest.split(".")
    else:
        fields = {name: MEASURES[name].settings.model_fields for name in blocks}
        targets = [
            name for name, known in fields.items() if first in known and known[first].default is not None
        ]
        keys = path.split(".")
    for name in targets:
        block = blocks[name]
        for key in keys[:-1]:
            given = block.get(key)
            block[key] = {**given} if isinstance(given, Mapping) else {}
            block = block[key]
        block[keys[-1]] = value
    return bool(targets)


def check_settings(settings: Mapping[str, MeasureSettings], dataset: Dataset) -> None:
    """Raise `ConfigError` where settings do not fit the data."""
    sizes = {split: len(dataset.arrays.get(f"y_{split}", ())) for split in SPLITS}
    data: Any = SimpleNamespace(count=sizes.__getitem__, known_classes=None)
    problems = [f"{name}.{text}" for name, given in settings.items() for text in given.problems(data)]
    if "y_early_stopping" not in dataset.arrays:
        problems += [
            f"{name}: measured on test images after those of --examples, and none is left; give fewer --examples"
            for name in settings
            if MEASURES[name].held_out
        ]
    if problems:
        raise ConfigError("\n".join(problems))


def measure_model(
    model: nn.Module,
    dataset: Dataset,
    settings: Mapping[str, MeasureSettings],
    *,
    seed: int = 0,
    device: str = "cpu",
    folder: Path | None = None,
    code: Sequence[str] = (),
    report: Report = print,
) -> tuple[dict[str, Any], dict[str, dict[str, list]]]:
    """Apply measures to any network, by the functions that measure checkpoints.

    Parameters
    ----------
    folder
        Folder for finished measures; another call takes those from there whose fingerprints are equal.
    code
        Names `package.module:function` of the user's functions, whose source is part of the fingerprints.

    Returns
    -------
    tuple
        The result, a JSON value: warnings, `records` (as in the tables of an experiment), `values` (those
        by their columns in models.csv), settings, checksums, provenance; and values of single examples by
        split and column.

    Raises
    ------
    ConfigError
        If the network cannot be measured, or the data lacks what a measure needs.
    """
    check_settings(settings, dataset)
    settings = {name: with_precision_on(device, given) for name, given in settings.items()}
    records: list[dict[str, Any]] = []
    notes: dict[str, str] = {}
    with noted_warnings() as warnings:
        warn_of_scale(dataset)
        network = LoadedModel(in_float32(model.to(device)), "own")
        net, x = network.inference, dataset.images("test", 2, device)
        gradient = outcome(net, x).gradient
        examples = clean_examples(net, dataset, settings, device)
        layers = net.layers if settings.keys() - {"robustness"} else []
        identity = {"seed": seed, "weights_sha256": network.weights_sha256, "data_sha256": dataset.checksum}
        identity["provenance"] = provenance(device, torch.get_num_threads())
        function = [examples, layers, gradient is not None and gradient.norm().item()]
        shared = Examples(dataset, device, seed, network.name, folder=folder)
        with locked(folder, "another process is measuring this network", report) if folder else nullcontext():
            parts = Parts(folder / PARTS, report) if folder else None
            for name, given in settings.items():
                depends_on = identity | {
                    "settings": given.model_dump(mode="json"),
                    "model": function,
                    "code": [
                        MEASURES[name].version,
                        source_digest([*code, *getattr(given, "own", {}).values()]),
                    ],
                }
                part = _part(net, shared, name, given, parts, depends_on)
                records += [
                    {"measure": name} | dict(zip(Record._fields, record, strict=True))
                    for record in part["records"]
                ]
                notes |= part["notes"]
                for split, columns in part["examples"].items():
                    examples[split] |= columns
                for message in part["warnings"]:
                    warn(message)
            if parts is not None:
                parts.prune()
        for message in implausible(records, examples):
            warn(message)
    described = {name: given.model_dump(mode="json") for name, given in settings.items()}
    result = {"warnings": warnings, "records": records, "values": by_column(records), "settings": described}
    return result | identity | {"notes": notes}, examples


def _part(
    net: Network,
    shared: Examples,
    name: str,
    settings: MeasureSettings,
    parts: Parts | None,
    depends_on: Mapping[str, Any],
) -> dict[str, Any]:
    """Return records, values of single examples, notes and warnings of one measure, from `parts` if there."""

    def compute() -> dict[str, Any]:
        shared.notes, shared.example_values = {}, {}
        kept = "Finished measures are kept; the next run resumes from there." if parts else ""
        with (
            out_of_memory(largest_batch(settings.model_dump()), kept),
            noted_warnings(show=False) as warnings,
        ):
            records = [[*record] for record in MEASURES[name].function(net, shared, settings)]
        values = {"examples": shared.example_values, "notes": shared.notes}
        return {"records": records, "warnings": warnings, **values}

    if parts is None:
        return compute()
    shared.keep = lambda part, compute: parts.get(f"{name}/{part}", depends_on, compute)
    return parts.get(name, depends_on, compute)


def in_float32(model: nn.Module) -> nn.Module:
    """Convert a network whose weights are all double or half precision, since images are float32."""
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return model.float() if types and torch.float32 not in types else model


@torch.no_grad()
def clean_examples(
    net: Network, dataset: Dataset, settings: Mapping[str, Any], device: str
) -> dict[str, dict[str, list]]:
    """Return label, prediction, error and loss of each example that the measures take, by split."""
    found = {}
    batch_size = max(largest_batch(given.model_dump()) for given in settings.values())
    for split in SPLITS:
        count = max(getattr(given, f"{split}_examples", 0) for given in settings.values())
        if not count:
            continue
        x, y = dataset.images(split, count, device), dataset.labels(split, count, device)
        logits = torch.cat([net.logits(x[part]) for part in batches(count, batch_size)])
        check_classes(y, logits.shape[1])
        require_finite(logits, f"on clean {split} inputs")
        warn_of_sigmoid(logits)
        predicted = logits.argmax(1)
        found[split] = {
            "label": y.tolist(),
            "prediction": predicted.tolist(),
            "err": (predicted != y).int().tolist(),
            "ce": rounded(cross_entropy(logits, y)),
        }
    return found


def warn_of_scale(dataset: Dataset) -> None:
    """Warn of uint8 images that are dark throughout."""
    pixels = dataset.pixels("test")
    if not pixels.is_floating_point() and pixels.max() < DARK:
        warn(
            f"test images: no value is above {pixels.max()} of 255; if they are integers up to that, divide "
            "them by it and give floats in [0, 1]"
        )


def implausible(
    records: Sequence[Mapping[str, Any]], examples: Mapping[str, Mapping[str, list]]
) -> Iterator[str]:
    """Yield plausibility warnings: accuracy near that of the most frequent class, negative flatness."""
    for split, lists in examples.items():
        n, labels = len(lists["label"]), lists["label"]
        frequent = max(map(labels.count, set(labels))) / n
        accuracy = 1 - sum(lists["err"]) / n
        if accuracy <= frequent + 2 * math.sqrt(frequent * (1 - frequent) / n):
            yield (
                f"accuracy on {n} clean {split} examples is {100 * accuracy:.3g} %, not significantly above that "
                f"of always predicting the most frequent class ({100 * frequent:.3g} %): check weights, "
                "normalisation, channels and labels"
            )
    of_flatness = [record for record in records if record["measure"] == "flatness"]
    known = {(r["metric"], r["loss"], r["split"]): r["value"] for r in of_flatness}
    for r in of_flatness:
        if r["metric"] not in CASES or r["value"] >= 0:
            continue
        words = f"{OF_FLATNESS[r['metric']].words(r['split'], r['loss'], r['xi'])} is negative"
        if r["se"] is None and r["metric"] == "worst_flatness":
            yield f"{words} ({r['value']:.2g}): the search has not converged; give it more steps or restarts"
        elif r["se"] is not None and r["value"] < -2 * r["se"]:
            single, several = (
                known.get((name, r["loss"], r["split"]), 0.0) for name in ("reference_single", "reference")
            )
            reason = "random perturbations of the weights lower the loss, so they are not at a minimum of it"
            if r["value"] >= single - several - 2 * r["se"]:
                reason = (
                    f"PGD has one start at perturbed weights but several at the given ones, which accounts for "
                    f"{single - several:.2g}; more --steps, or --restarts 1, reduce it"
                )
            yield f"{words} ({r['value']:.2g} +- {r['se']:.1g}): {reason}"


def by_column(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return values and standard errors by their columns in models.csv."""
    frame = pd.DataFrame(records).reindex(columns=[*FIELDS])
    frame = with_columns(frame.astype(dict.fromkeys(NUMBERS, float)))
    values = {}
    for column, value, error in zip(frame["column"], frame["value"], frame["se"], strict=True):
        values[column] = value
        if not math.isnan(error):
            values[f"{column}_se"] = error
    return values


def example_rows(examples: Mapping[str, Mapping[str, list]]) -> list[dict[str, Any]]:
    """Return a row for each example: `split`, `example` (its index), `label`, `prediction`, `err` and `ce`
    (clean), `rerr_pgd` and `rloss` by PGD, `rerr_aa` and `rloss_aa` by AutoAttack."""
    return [
        {"split": split, "example": number, **dict(zip(columns, row, strict=True))}
        for split, columns in examples.items()
        for number, row in enumerate(zip_longest(*columns.values()))
    ]
