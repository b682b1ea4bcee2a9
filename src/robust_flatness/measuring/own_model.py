"""Measures of a network that this kit has not trained."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robust_flatness.config.measures import MeasureSpec, Setting, completed
from robust_flatness.config.values import meant, parse
from robust_flatness.data import Dataset
from robust_flatness.data.npz import read_npz
from robust_flatness.errors import ConfigError, noted_warnings
from robust_flatness.measuring.base import SPLITS
from robust_flatness.measuring.registry import MEASURES
from robust_flatness.models.checkpoint import Network
from robust_flatness.provenance import provenance


def own_data(path: Path, examples: int | None) -> tuple[Dataset, int]:
    """A user's images, and how many test examples are measured: `examples`, or 1000, or all where there are
    fewer. What then remains, at most the last 500, stands for the images of early stopping, of which
    the Hessian is measured.

    Raises
    ------
    ConfigError
        If the file cannot be used, or has fewer test examples than asked for.
    """
    arrays = read_npz(path)
    available = len(arrays["y_test"])
    count = min(1000, available) if examples is None else examples
    if count > available:
        raise ConfigError(f"--examples: {count} given, but {path} has {available} test examples")
    first = max(count, available - 500)
    if first < available:
        arrays |= {f"{kind}_early_stopping": arrays[f"{kind}_test"][first:] for kind in "xy"}
    return Dataset(arrays), count


def own_specs(names: Iterable[str], setting: Setting, blocks: Mapping[str, Any]) -> dict[str, MeasureSpec]:
    """The settings of the measures named: `blocks`, completed by what `setting` implies, on all examples.

    Raises
    ------
    ConfigError
        If a measure is not known or cannot be made of a single network, or a setting cannot be used.
    """
    known = [name for name, entry in MEASURES.items() if not entry.of_snapshots]
    specs = {}
    for name in names:
        if name not in known:
            raise ConfigError(
                f"--measures: {name!r} given{meant(name, known)}; allowed are {', '.join(known)}"
            )
        kind = MEASURES[name].spec
        block = {
            f"{prefix}{split}_examples": getattr(setting, split)
            for prefix in ("", "clean_")
            for split in SPLITS
            if f"{prefix}{split}_examples" in kind.model_fields
        }
        block |= blocks.get(name, {})
        specs[name] = parse(kind, completed(kind.defaults(setting), block), name)
    return specs


def measure_network(
    model: nn.Module, dataset: Dataset, specs: Mapping[str, MeasureSpec], *, seed: int, device: str
) -> dict[str, Any]:
    """Measures of any network, by the functions that measure checkpoints: its result with settings, and the
    checksums of weights and data.

    Raises
    ------
    ConfigError
        If the data lacks what a measure needs, or the network's logits have the wrong shape.
    """
    network = Network(model.to(device), "own")
    network.inference.check(dataset.images("test", 2, device))
    for split in SPLITS:
        network.inference.require_labels(dataset.labels(split))
    with noted_warnings() as notes:
        measured = {
            name: MEASURES[name].function(network, dataset, spec, seed, device)
            for name, spec in specs.items()
        }
    return {
        "warnings": notes,
        "seed": seed,
        "weights_sha256": network.sha256,
        "data_sha256": dataset.checksum,
        "provenance": provenance(device, torch.get_num_threads()),
        "values": {key: value for result in measured.values() for key, value in result.values.items()},
        "measures": {
            name: {"spec": specs[name].model_dump(mode="json"), "details": result.details}
            for name, result in measured.items()
        },
    }
