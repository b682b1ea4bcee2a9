"""From the files of single jobs to the tables of an experiment."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from robust_flatness.config.values import Spec
from robust_flatness.config.variants import BASELINE
from robust_flatness.errors import ConfigError
from robust_flatness.files import write_text
from robust_flatness.measuring.registry import CHECKPOINTS, MEASURES

TABLES = ("models", "history", "series", "landscape", "examples")
#: Robust loss by PGD; misclassified under PGD and under AutoAttack, 0 or 1.
EXAMPLE_COLUMNS = ("rloss", "rerr_pgd", "rerr_aa")


class VariantEntry(Spec):
    """What the tables say of a variant besides its measures."""

    label: str
    family: str
    derived: bool = False
    epochs: int
    seeds: tuple[int, ...] | None = None
    """Its own seeds, where they are not the experiment's."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings applied that differ from the baseline's."""
    measures: tuple[str, ...] = ()


class CollectSpec(Spec):
    """The variants and seeds of an experiment."""

    variants: dict[str, VariantEntry]
    baseline: dict[str, Any] = Field(default_factory=dict)
    seeds: tuple[int, ...]


def collect_results(spec: CollectSpec, directory: Path) -> None:
    """Write models.csv, history.csv, series.csv and landscape.csv in `directory`.

    Raises
    ------
    ConfigError
        If a measure's file is missing or damaged.
    """
    tables: dict[str, list[dict]] = {name: [] for name in TABLES}
    for variant, entry in spec.variants.items():
        for seed in entry.seeds or spec.seeds:
            folder = directory / variant / f"seed-{seed}"
            key = {"variant": variant, "seed": seed}
            measures = [MEASURES[name] for name in entry.measures]
            for checkpoint in CHECKPOINTS:
                row = {**key, "checkpoint": checkpoint, "family": entry.family, "label": entry.label}
                row |= {"derived": int(entry.derived), "epochs": entry.epochs}
                for measure in measures:
                    if checkpoint not in measure.checkpoints:
                        continue
                    content = read_measure(folder / "measures" / checkpoint / f"{measure.name}.json")
                    row["epoch"] = content["checkpoint"]["epoch"]
                    row |= content["values"]
                    for rows in content["details"].get(measure.rows, ()):
                        tables[measure.name].append({**key, "checkpoint": checkpoint, **rows})
                    for rows in example_rows(content["details"].get("examples", {})):
                        tables["examples"].append({**key, "checkpoint": checkpoint, **rows})
                settings = spec.baseline | entry.settings
                row |= {f"setting_{name}": value for name, value in settings.items()}
                tables["models"].append(row)
            if not entry.derived:
                tables["history"] += [{**key, **row} for row in read_rows(folder / "history.csv")]
            for measure in measures:
                if measure.of_snapshots:
                    tables[measure.name] += [
                        {**key, "normalised_epoch": (int(row["epoch"]) + 1) / entry.epochs, **row}
                        for row in read_rows(folder / f"{measure.name}.csv")
                    ]
                if measure.of_snapshots and measure.examples and variant == BASELINE:
                    for row in read_rows(folder / f"{measure.name}-examples.csv"):
                        del row["epoch"]
                        tables["examples"].append({**key, **row})
    for name, rows in tables.items():
        write_table(directory / f"{name}.csv", rows)


def example_rows(examples: Mapping[str, Mapping[str, list]]) -> Iterator[dict[str, Any]]:
    """A row for each example from `details["examples"]` of a measure."""
    for split, lists in examples.items():
        columns = [column for column in EXAMPLE_COLUMNS if column in lists]
        for number, values in enumerate(zip(*(lists[column] for column in columns), strict=True)):
            yield {"split": split, "example": number, **dict(zip(columns, values, strict=True))}


def read_measure(path: Path) -> dict:
    """A measure's file.

    Raises
    ------
    ConfigError
        If it is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _ = content["values"] | content["details"], content["checkpoint"]["epoch"]
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such measure; run `snakemake measure` first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: damaged ({error!r}); delete it and run snakemake again") from None
    return content


def read_examples(path: Path) -> list[dict[str, str]]:
    """The rows of examples.csv.

    Raises
    ------
    ConfigError
        If it is damaged.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not all(row["example"].isdecimal() for row in rows):
            raise ValueError("a row without an example's number")
    except (ValueError, KeyError, AttributeError, csv.Error) as error:
        raise ConfigError(f"{path}: damaged ({error!r})") from None
    return rows


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a job's CSV file, as written by `write_table`: each has an epoch.

    Raises
    ------
    ConfigError
        If it is missing or damaged.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not rows or not all(row["epoch"].isdecimal() for row in rows):
            raise ValueError("a row without an epoch" if rows else "no rows")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such table; run `snakemake train` first") from None
    except (ValueError, KeyError, AttributeError, csv.Error) as error:
        raise ConfigError(f"{path}: damaged ({error!r}); delete it and run snakemake again") from None
    return rows


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV: columns in order of first appearance, an empty cell where a row has none.

    Floats are written with the shortest digits that read back to the same number.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or ["variant"], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
