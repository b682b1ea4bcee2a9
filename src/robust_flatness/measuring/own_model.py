"""Measures of a network that this kit has not trained."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_flatness.attacks.pgd import batches, cross_entropy
from robust_flatness.boundary import evaluation_copy
from robust_flatness.checkpoints import Checkpoint as Network
from robust_flatness.config.measures import MeasureSettings
from robust_flatness.config.values import meant, parse
from robust_flatness.data import Dataset
from robust_flatness.data.images import open_parts, to_measure
from robust_flatness.data.npz import read_npz
from robust_flatness.errors import ConfigError, noted_warnings, warn
from robust_flatness.inputs import check_classes, require_finite, warn_of_sigmoid
from robust_flatness.measures.base import SPLITS
from robust_flatness.measures.registry import MEASURES
from robust_flatness.measures.robustness import rounded
from robust_flatness.measuring.run import largest_batch
from robust_flatness.resumable import Report, Unfinished
from robust_flatness.runtime.devices import out_of_memory, with_precision_on
from robust_flatness.runtime.provenance import provenance
from robust_flatness.tables import schema
from robust_flatness.tables.collect import standard_errors

#: Test images at the end that stand for those of early stopping.
HELD_OUT = 500
#: Whole numbers that are all below may lie on another scale than 0 to 255.
DARK = 64


def own_data(path: Path, examples: int | None) -> tuple[Dataset, int]:
    """A user's images, and how many test examples are measured: `examples`, or 1000, or all where there are
    fewer. What then remains, at most the last 500, stands for the images of early stopping, of which
    the Hessian is measured.

    Raises
    ------
    ConfigError
        If the file cannot be used, or has fewer test examples than asked for.
    """
    arrays = read_npz(path, to_measure=True)
    available = len(arrays["y_test"])
    count = _count(examples, available, path)
    first = max(count, available - HELD_OUT)
    if first < available:
        arrays |= {f"{kind}_early_stopping": arrays[f"{kind}_test"][first:] for kind in "xy"}
    return Dataset(arrays), count


def own_images(
    source: str, examples: int | None, train_examples: int, size: int | None, download: bool
) -> tuple[Dataset, int, dict[str, Any]]:
    """As `own_data`, of a folder of images, or of a dataset of torchvision, `torchvision:NAME` or
    `torchvision:NAME:FOLDER` (`data` by default); and what is told of them: classes by index, the order,
    how many there are."""
    name, folder = "folder", source
    if source.startswith("torchvision:"):
        kind, dataset, *rest = source.split(":", 2)
        name, folder = f"{kind}:{dataset}", rest[0] if rest else "data"
    wanted = ("test", "train") if train_examples else ("test",)
    parts = open_parts(name, Path(folder), size, wanted=wanted, download=download)
    count = _count(examples, len(parts["test"].labels), source)
    if train_examples > (available := len(parts["train"].labels) if "train" in parts else 0):
        raise ConfigError(f"--train-examples: {train_examples} given, but {source} has {available}")
    arrays, told = to_measure(parts, count, train_examples, HELD_OUT, "--size")
    return Dataset(arrays), count, told | {"source": source, "size": size}


def told_of_images(read: Mapping[str, Any]) -> str:
    """What `own_images` tells, as people read it."""
    lines = [
        f"{read['available'][part]} {part} images, in {order} order" for part, order in read["order"].items()
    ]
    classes = ", ".join(f"{index} {name}" for name, index in read["classes"].items())
    return "\n".join([f"{read['source']}: {'; '.join(lines)}", *([f"classes: {classes}"] if classes else [])])


def _count(examples: int | None, available: int, source: str | Path) -> int:
    count = min(1000, available) if examples is None else examples
    if count > available:
        raise ConfigError(f"--examples: {count} given, but {source} has {available} test examples")
    return count


def own_specs(
    names: Sequence[str], implied: Mapping[str, Any], blocks: Mapping[str, Any], common: Mapping[str, Any]
) -> dict[str, MeasureSettings]:
    """The settings of the measures named: `blocks`, and those in `common` that a measure has, completed by
    those `implied` (see `MeasureSettings.implied`), on all examples.

    Raises
    ------
    ConfigError
        If a measure is not known or cannot be made of a single network, or a setting cannot be used.
    """
    known = [name for name, entry in MEASURES.items() if not entry.of_snapshots]
    specs = {}
    if not names:
        raise ConfigError(f"--measures: none given; allowed are {', '.join(known)}")
    for name in names:
        if name not in known:
            raise ConfigError(
                f"--measures: {name!r} given{meant(name, known)}; allowed are {', '.join(known)}"
            )
        kind = MEASURES[name].spec
        block = {
            f"{prefix}{split}_examples": implied["sizes"][split]
            for prefix in ("", "clean_")
            for split in SPLITS
            if f"{prefix}{split}_examples" in kind.model_fields
        }
        block |= {field: value for field, value in common.items() if field in kind.model_fields}
        block |= blocks.get(name, {})
        specs[name] = parse(kind, kind.implied(block, **implied), name)
    return specs


#: Of an example of one's own: losses and errors, clean, by PGD, and by AutoAttack.
OF_OWN_EXAMPLES = ("err", "ce", "rerr_pgd", "rloss", "rerr_aa", "rloss_aa")


def measure_network(
    model: nn.Module,
    dataset: Dataset,
    specs: Mapping[str, MeasureSettings],
    *,
    seed: int,
    device: str,
    state: Path | None = None,
    report: Report = print,
) -> dict[str, Any]:
    """Measures of any network, by the functions that measure checkpoints: its result with settings, and the
    checksums of weights and data.

    What is finished is kept in the folder `state`, if one is given, and taken from there by another call for
    the same weights, function, data and settings of a measure.

    Raises
    ------
    ConfigError
        If the data lacks what a measure needs, or the network's logits have the wrong shape.
    """
    first = dataset.images("test", min(2, len(dataset.arrays["y_test"])), device)
    network = Network(in_own_type(model.to(device), first), "own")
    specs = {name: with_precision_on(device, spec) for name, spec in specs.items()}
    on_held_out = [name for name in specs if MEASURES[name].held_out]
    if on_held_out and "x_early_stopping" not in dataset.arrays:
        raise ConfigError(
            f"{', '.join(on_held_out)}: measured on test images after those of --examples, and none is left; "
            "give fewer --examples"
        )
    batch_size = max(largest_batch(spec.model_dump()) for spec in specs.values())
    with noted_warnings() as notes:
        network.network.logits(first)
        if specs.keys() - {"robustness"}:
            _ = network.network.layers
        pixels = dataset.pixels("test")
        if not pixels.is_floating_point() and pixels.max() < DARK:
            warn(
                f"test images: no value is above {pixels.max()} of 255; if they are whole numbers up to "
                "that, divide them by it and give floats in [0, 1]"
            )
        examples = {}
        for split in SPLITS:
            count = max(getattr(spec, f"{split}_examples", 0) for spec in specs.values())
            if count:
                examples[split] = clean_examples(network, dataset, split, count, batch_size, device)
        identity = {
            "seed": seed,
            "weights_sha256": network.sha256,
            "data_sha256": dataset.checksum,
            "provenance": provenance(device, torch.get_num_threads()),
        }
        # weights do not tell a function: what it gives does
        function = [examples, network.network.layers]
        parts = {
            name: _part(network, dataset, name, spec, seed, device, state, [identity, function], report)
            for name, spec in specs.items()
        }
        for part in parts.values():
            for message in part["warnings"]:
                warn(message)
        for split, lists in parts.get("robustness", {"details": {}})["details"].pop("examples", {}).items():
            examples[split] |= lists
        values = {key: value for part in parts.values() for key, value in part["values"].items()}
        values |= standard_errors(examples, OF_OWN_EXAMPLES)
        for message in doubts(values, examples, parts):
            warn(message)
    return {
        "warnings": notes,
        **identity,
        "values": values,
        "examples": examples,
        "measures": {
            name: {"spec": specs[name].model_dump(mode="json"), "details": part["details"]}
            for name, part in parts.items()
        },
    }


def _part(
    network: Network,
    dataset: Dataset,
    name: str,
    spec: MeasureSettings,
    seed: int,
    device: str,
    state: Path | None,
    identity: Any,
    report: Report,
) -> dict[str, Any]:
    """One measure's values, details and warnings: kept in `state`, or taken from there."""

    def compute(folder: Path | None = None) -> dict[str, Any]:
        kept = f"What is finished is kept in {folder}." if folder else "Nothing is kept without --output."
        with out_of_memory(largest_batch(spec.model_dump()), kept), noted_warnings(show=False) as notes:
            found = MEASURES[name].function(network, dataset, spec, seed, device, folder)
        return {**asdict(found), "warnings": notes}

    if state is None:
        return compute()
    unfinished = Unfinished(state / name, [name, spec.model_dump(mode="json"), identity], report)
    with unfinished.locked(()):
        return unfinished.get(name, lambda: compute(unfinished.parts))


class _InOwnType(nn.Module):
    """A network in another floating-point type than its images, which are brought to it."""

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.to(self.dtype)).to(x.dtype)


def in_own_type(model: nn.Module, x: Tensor) -> nn.Module:
    """`model`, for images in float32: where it takes none and all its weights are of another type (double,
    half, bfloat16), one that is given them in that type. The attack's steps stay in float32."""
    types = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if len(types) == 1:
        try:
            with torch.no_grad():
                evaluation_copy(model)(x.clone())
        except Exception:  # whatever a network raises on inputs it is not made for
            return _InOwnType(model, types.pop())
    return model


@torch.no_grad()
def clean_examples(
    network: Network, dataset: Dataset, split: str, count: int, batch_size: int, device: str
) -> dict[str, list[float]]:
    """Label, prediction, error and loss of each of the first examples of a split."""
    x, y = dataset.images(split, count, device), dataset.labels(split, count, device)
    check_classes(y, network.network.classes)
    logits = torch.cat([network.network(x[part]) for part in batches(count, batch_size)])
    require_finite(logits, f"on clean {split} inputs")
    warn_of_sigmoid(logits)
    predicted = logits.argmax(1)
    return {
        "label": y.tolist(),
        "prediction": predicted.tolist(),
        "err": (predicted != y).int().tolist(),
        "ce": rounded(cross_entropy(logits, y)),
    }


def doubts(
    values: Mapping[str, Any], examples: Mapping[str, Mapping[str, list]], parts: Mapping[str, Any]
) -> Iterator[str]:
    """What of the numbers says that they may not be of what was meant."""
    for split, lists in examples.items():
        n, labels = len(lists["label"]), lists["label"]
        often = max(map(labels.count, set(labels))) / n
        accuracy = 1 - sum(lists["err"]) / n
        if accuracy <= often + 2 * math.sqrt(often * (1 - often) / n):
            yield (
                f"accuracy on {n} clean {split} examples is {100 * accuracy:.3g} %, which is not told apart "
                f"from naming the most frequent class ({100 * often:.3g} %): has the network learnt, are its "
                "weights loaded, and do normalisation, channels and labels suit it?"
            )
    for name, value in values.items():
        known = schema.parse_name(name)
        if known is None or known.column.kind != "flatness" or known.spread or value >= 0:
            continue
        error = values.get(f"{name}_se")
        words = f"{known.words} is negative ({value:.2g}"
        if error is None and "worst" in name:
            yield (
                f"{words}): the search in weights and inputs finds less than PGD at the weights given; give "
                "it more steps or restarts"
            )
        elif error is not None and value < -2 * error:
            loss = "rloss" if "rloss" in name else "ce"
            found = parts["flatness"]["details"].get(f"reference_{known.split}_{loss}", {})
            bias = found["reference_single"] - found["reference"]
            why = "random weights nearby have a lower loss: this is no minimum of it"
            if value >= bias - 2 * error:
                why = (
                    f"PGD starts once at perturbed weights and more often at those given, which alone makes "
                    f"{bias:.2g}; more --steps, or --restarts 1, make it smaller"
                )
            yield f"{words} +- {error:.1g}): {why}"


def example_table(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each example: `split`, `example` (its index), `label`, `prediction`, and what was measured of
    it: `err` and `ce` clean, `rerr_pgd` and `rloss` by PGD, `rerr_aa` and `rloss_aa` by AutoAttack."""
    return [
        {"split": split, "example": number, **dict(zip(lists, row, strict=True))}
        for split, lists in result["examples"].items()
        for number, row in enumerate(zip(*lists.values(), strict=True))
    ]
