"""Recompute a sample of an experiment's measures from its checkpoints and compare."""

import importlib.metadata
import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robust_flatness.checkpoints import load_checkpoint
from robust_flatness.config import parse
from robust_flatness.data import load_dataset
from robust_flatness.errors import FileError
from robust_flatness.measuring.registry import MEASURES
from robust_flatness.seeding import derive_seed
from robust_flatness.tables.collect import read_measure
from robust_flatness.tables.rows import read_rows

#: Largest difference between machines that counts as agreement, relative to max(1, |value|), and
#: for errors in examples. On the same machine, with the same torch and threads, results are equal
#: bit for bit. Elsewhere sums are rounded in another order, and a signed gradient step turns a
#: rounding at 0 into a step of full size, for single pixels.
TOLERANCE = 0.01
ERROR_TOLERANCE_IN_EXAMPLES = 2
#: Where values of single examples are kept.
OF_EXAMPLES = "details.examples."


@dataclass(frozen=True)
class Agreement:
    """One measure's file against its recomputation.

    `values` is the number of values compared, `equal` how many of them are equal bit for bit,
    `largest` the largest difference in units of what is allowed, found in `column`.
    """

    path: Path
    values: int
    equal: int
    largest: float
    column: str

    @property
    def agrees(self) -> bool:
        """Whether all differences are within what is allowed."""
        return self.largest <= 1

    def __str__(self) -> str:
        if self.equal == self.values:
            return f"{self.path}: {self.values} values, identical"
        verdict = "agree" if self.agrees else "DIFFER"
        return (
            f"{self.path}: {self.equal} of {self.values} values identical, the others {verdict}: "
            f"largest difference {self.largest:.2g} of what is allowed ({self.column})"
        )


def summary(agreements: Sequence[Agreement]) -> str:
    """How many measures agree, and how well, in a line."""
    identical = sum(agreement.equal == agreement.values for agreement in agreements)
    agree = sum(agreement.agrees for agreement in agreements)
    return (
        f"{len(agreements)} measures recomputed: {identical} identical, {agree - identical} within the "
        f"tolerance (errors {ERROR_TOLERANCE_IN_EXAMPLES} examples, others {TOLERANCE:g} of "
        f"max(1, |value|)), {len(agreements) - agree} different"
    )


def sample_files(directory: Path, count: int | None, seed: int) -> list[Path]:
    """`count` of the measures' files below `directory`, chosen by `seed`; None: all.

    Raises
    ------
    FileError
        If there are none.
    """
    files = sorted(directory.glob("*/seed-*/measures/*/*.json"))
    files = [
        path
        for path in files
        if path.stem in MEASURES and path.parent.name in MEASURES[path.stem].checkpoints
    ]
    if not files:
        raise FileError(
            f"{directory}: no measures (<variant>/seed-<seed>/measures/<checkpoint>/*.json); "
            "give the folder of an experiment's results, e.g. results/fashion"
        )
    if count is None or count >= len(files):
        return files
    return sorted(random.Random(derive_seed(seed, "verify")).sample(files, count))


def verify_file(path: Path, device: str = "cpu") -> Agreement:
    """Recompute the measure of `path` from its checkpoint and data.

    Raises
    ------
    FileError
        If a file is missing or damaged, or checkpoint or data are not those that were measured.
    """
    content = read_measure(path)
    measure = MEASURES[path.stem]
    run = path.parents[2]
    try:
        spec = parse(measure.spec, content["spec"], f"{path}: spec")
        seed, data_sha256 = int(content["seed"]), content["data_sha256"]
        checkpoint_sha256 = content["checkpoint"]["sha256"]
    except (KeyError, TypeError) as error:
        raise FileError(f"{path}: damaged ({error!r} is missing)") from None
    data = run.parents[1] / f"data/seed-{seed}.npz"
    dataset = load_dataset(data)
    if dataset.checksum != data_sha256:
        raise FileError(f"{data}: not the data measured in {path} (its checksum is {data_sha256[:12]}...)")
    weights = run / f"checkpoints/{path.parent.name}.safetensors"
    checkpoint = load_checkpoint(weights, device)
    if checkpoint.metadata.sha256 != checkpoint_sha256:
        raise FileError(
            f"{weights}: not the checkpoint measured in {path} (its checksum is {checkpoint_sha256[:12]}...)"
        )
    measured = measure.function(checkpoint, dataset, spec, seed, device)
    recomputed = json.loads(json.dumps({"values": measured.values, "details": measured.details}))
    pairs = [*_pairs("", content["values"], recomputed["values"])]
    details = _pairs("details.", content["details"], recomputed["details"])
    # lists of single examples that an earlier version did not keep have nothing to be compared with
    pairs += [pair for pair in details if pair[1] is not None or not pair[0].startswith(OF_EXAMPLES)]
    return _compare(path, pairs, content["values"])


def verify_table(directory: Path, files: list[Path]) -> list[str]:
    """Differences between models.csv and the values in `files`, one line each.

    The table holds the variants of the last run; what others have left is not compared.
    """
    table = directory / "models.csv"
    if not table.exists():
        return [f"{table}: not there yet; run snakemake to collect the measures"]
    rows = read_rows(table, need=("variant", "seed", "checkpoint")).rows
    rows = {(row["variant"], row["seed"], row["checkpoint"]): row for row in rows}
    variants, problems = {variant for variant, _, _ in rows}, []
    for path in files:
        run = path.parents[2]
        key = run.parent.name, run.name.removeprefix("seed-"), path.parent.name
        row = rows.get(key)
        if key[0] not in variants:
            continue
        if row is None:
            problems.append(f"{table}: no row for {', '.join(key)}")
            continue
        for column, value in read_measure(path)["values"].items():
            if row.get(column) != _cell(value):
                problems.append(f"{table}: {column} of {', '.join(key)}: {row.get(column)}, measured {value}")
    return problems


def other_versions(path: Path) -> str | None:
    """A line if `path` was measured with another torch, where results agree but are not equal."""
    measured = read_measure(path).get("provenance", {}).get("torch")
    here = importlib.metadata.version("torch")
    if measured == here:
        return None
    return f"measured with torch {measured}, here is {here}: agreement within the tolerance is all to expect"


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _pairs(name: str, stored: Any, recomputed: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, stored, recomputed) of all numbers and words recomputed; None where one is not stored.

    More may be stored: a checkpoint equal to another one has that one's values.
    """
    if isinstance(stored, dict) and isinstance(recomputed, dict):
        for key in sorted(recomputed):
            yield from _pairs(f"{name}{key}.", stored.get(key), recomputed[key])
    elif isinstance(stored, list) and isinstance(recomputed, list) and len(stored) == len(recomputed):
        for index, pair in enumerate(zip(stored, recomputed, strict=True)):
            yield from _pairs(f"{name}{index}.", *pair)
    else:
        yield name.removesuffix("."), stored, recomputed


def _compare(path: Path, pairs: list[tuple[str, Any, Any]], values: dict) -> Agreement:
    equal, largest, column = 0, 0.0, ""
    for name, stored, recomputed in pairs:
        same = stored == recomputed or (_is_nan(stored) and _is_nan(recomputed))
        equal += same
        difference = 0.0 if same else _difference(name, stored, recomputed, values)
        if difference > largest:
            largest, column = difference, f"{name}: {stored}, recomputed {recomputed}"
    return Agreement(path, len(pairs), equal, largest, column)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _difference(name: str, stored: Any, recomputed: Any, values: dict) -> float:
    """The difference in units of what is allowed; infinite where nothing is.

    Values of single examples may differ as they like: their means are held against each other.
    """
    if not (isinstance(stored, int | float) and isinstance(recomputed, int | float)):
        return math.inf
    if name.startswith(OF_EXAMPLES):
        return 0.0
    allowed = TOLERANCE * max(1.0, abs(stored))
    split, _, kind = name.partition("_")
    if kind == "err" or kind.startswith("rerr_"):
        examples = values.get(f"{'clean' if kind == 'err' else 'robust'}_{split}_examples")
        allowed = 100 * ERROR_TOLERANCE_IN_EXAMPLES / examples if examples else allowed
    difference = abs(stored - recomputed) / allowed
    return math.inf if math.isnan(difference) else difference
