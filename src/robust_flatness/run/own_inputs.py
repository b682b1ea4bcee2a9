"""Data and settings of the command `measure`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import yaml

from robust_flatness.config.measures import SPLITS, STEPS_TO_THE_EDGE, MeasureSettings
from robust_flatness.config.values import meant, parse
from robust_flatness.data import Dataset
from robust_flatness.data.images import open_parts, to_measure
from robust_flatness.data.npz import read_npz
from robust_flatness.errors import ConfigError
from robust_flatness.measures.flatness import AVERAGE, WORST
from robust_flatness.measures.registry import MEASURES

#: Test examples measured by default, and the number of others that are held out for the Hessian.
EXAMPLES, HELD_OUT = 1000, 500
#: Settings that differ from an experiment's: the main radii alone, and no AutoAttack.
PRESETS: dict[str, dict[str, Any]] = {
    "robustness": {"autoattack": None},
    "flatness": {"average": {"xi": AVERAGE.xi[:1]}, "worst": {"xi": WORST.xi[:1]}},
}


def read_source(
    source: str, examples: int | None, train_examples: int, size: int | None, download: bool
) -> tuple[Dataset, int, dict[str, Any] | None]:
    """Read images from an .npz file, a folder, or torchvision (`torchvision:NAME[:FOLDER]`). Returns the
    data, with up to 500 test images after the first `examples` held out; the number of `examples` (None:
    1000, or all if fewer); and classes, order and numbers of images (None for .npz files)."""
    if Path(source).is_dir() or source.startswith("torchvision:"):
        name, folder = "folder", source
        if not Path(source).is_dir():
            kind, dataset, *rest = source.split(":", 2)
            name, folder = f"{kind}:{dataset}", rest[0] if rest else "data"
        wanted = ("test", "train") if train_examples else ("test",)
        parts = open_parts(name, Path(folder), size, wanted=wanted, download=download)
        examples = examples or min(EXAMPLES, len(parts["test"].labels))
        arrays, images = to_measure(parts, examples, train_examples, HELD_OUT, "--size")
        return Dataset(arrays), examples, images
    if size or download:
        raise ConfigError(f"--size, --download: {source} is neither a folder of images nor of torchvision")
    arrays = read_npz(Path(source), to_measure=True)
    available = len(arrays["y_test"])
    examples = examples or min(EXAMPLES, available)
    first = max(examples, available - HELD_OUT)
    if first < available:
        arrays |= {f"{kind}_early_stopping": arrays[f"{kind}_test"][first:] for kind in "xy"}
    return Dataset(arrays), examples, None


def own_settings(
    names: Iterable[str], epsilon: float, sizes: Mapping[str, int], options: Mapping[str, Any],
    assignments: Iterable[str] = (), norm: str = "linf",
) -> dict[str, MeasureSettings]:  # fmt: skip
    """Return the settings of the measures `names` on `sizes` examples of the splits. `options` maps paths
    such as `average.samples` to values (None: not given), for all measures with this setting; `assignments`
    such as `flatness.average.xi=[0.5]` are applied last."""
    known = tuple(name for name, entry in MEASURES.items() if not entry.of_snapshots)
    counts = {f"{kind}{split}_examples": sizes[split] for kind in ("", "clean_") for split in SPLITS}
    blocks: dict[str, dict[str, Any]] = {}
    for name in parse(list[Literal[*known]], [*names], "--measures"):
        fields = MEASURES[name].settings.model_fields
        blocks[name] = PRESETS.get(name, {}) | {field: n for field, n in counts.items() if field in fields}
    for path, value in options.items():
        if value is not None:
            assign(blocks, path, value)
    for text in assignments:
        path, equals, value = text.partition("=")
        try:
            assigned = equals and assign(blocks, path, yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise ConfigError(f"--set: {text!r} is not valid YAML ({error})") from None
        if not assigned:
            fields = [field for name in blocks for field in MEASURES[name].settings.model_fields]
            close = meant(path.partition(".")[0], [*blocks, *fields])
            expected = f"e.g. average.samples=5, a setting of {', '.join(blocks) or 'a measure'}"
            raise ConfigError(f"--set: {text!r} given{close}; expected {expected}")
    implied = {"norm": norm, "epsilon": epsilon, "step_size": epsilon / STEPS_TO_THE_EDGE, "sizes": sizes}
    return {
        name: parse(MEASURES[name].settings, MEASURES[name].settings.implied(block, **implied), name)
        for name, block in blocks.items()
    }


def assign(blocks: dict[str, dict[str, Any]], path: str, value: Any) -> bool:
    """Set the value at a path that begins with the name of a block or of a field; a field is set in all
    blocks in which it has a default. Return whether any block was changed."""
    first, *keys = path.split(".")
    targets = [first] if first in blocks and keys else []
    if not targets:
        keys = [first, *keys]
        defaults = {name: MEASURES[name].settings.model_fields.get(first) for name in blocks}
        targets = [name for name, field in defaults.items() if field and field.default is not None]
    for block in map(blocks.get, targets):
        for key in keys[:-1]:
            block[key] = {**block[key]} if isinstance(block.get(key), Mapping) else {}
            block = block[key]
        block[keys[-1]] = value
    return bool(targets)


def check_settings(settings: Mapping[str, MeasureSettings], dataset: Dataset) -> None:
    """Raise `ConfigError` where there is nothing to measure, or settings do not fit the data."""
    if not settings:
        raise ConfigError(f"--measures: none given; allowed are {', '.join(MEASURES)}")
    sizes = {split: len(dataset.arrays.get(f"y_{split}", ())) for split in SPLITS}
    data: Any = SimpleNamespace(count=sizes.__getitem__, known_classes=None)
    problems = [f"{name}.{text}" for name, given in settings.items() for text in given.problems(data)]
    held_out = [name for name in settings if MEASURES[name].held_out]
    if held_out and "y_early_stopping" not in dataset.arrays:
        problems.append(f"{', '.join(held_out)}: needs test images after those of --examples; give fewer")
    if problems:
        raise ConfigError("\n".join(problems))
