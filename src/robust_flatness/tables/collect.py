"""From the files of single jobs to the tables of an experiment."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from robust_flatness.config import Spec
from robust_flatness.errors import ConfigError
from robust_flatness.files import write_text

CHECKPOINTS = ("last", "best")
TABLES = ("models", "history", "series", "landscape")
#: Measures of the last checkpoint alone: the dearer ones, which are shown of trained models.
LAST_ONLY = ("hessian", "landscape")


class VariantEntry(Spec):
    """What the tables say of a variant besides its measures."""

    label: str
    family: str
    derived: bool = False
    epochs: int
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings applied that differ from the baseline's."""
    measures: tuple[str, ...] = ("robustness", "flatness")
    series: bool = False


class CollectSpec(Spec):
    """The variants and seeds of an experiment."""

    variants: dict[str, VariantEntry]
    baseline: dict[str, Any] = Field(default_factory=dict)
    seeds: tuple[int, ...]


def checkpoints_of(measure: str) -> tuple[str, ...]:
    """The checkpoints that a measure is made of."""
    return CHECKPOINTS[:1] if measure in LAST_ONLY else CHECKPOINTS


def collect_results(spec: CollectSpec, directory: Path) -> None:
    """Write models.csv, history.csv, series.csv and landscape.csv in `directory`.

    Raises
    ------
    ConfigError
        If a measure's file is missing or damaged.
    """
    models: list[dict] = []
    history: list[dict] = []
    series: list[dict] = []
    landscape: list[dict] = []
    for variant, entry in spec.variants.items():
        for seed in spec.seeds:
            folder = directory / variant / f"seed-{seed}"
            key = {"variant": variant, "seed": seed}
            for checkpoint in CHECKPOINTS:
                row = {**key, "checkpoint": checkpoint, "family": entry.family, "label": entry.label}
                row |= {"derived": int(entry.derived), "epochs": entry.epochs}
                for measure in entry.measures:
                    if checkpoint not in checkpoints_of(measure):
                        continue
                    content = read_measure(folder / "measures" / checkpoint / f"{measure}.json")
                    row["epoch"] = content["checkpoint"]["epoch"]
                    row |= content["values"]
                    curves = content["details"].get("curves", ())
                    landscape += [{**key, "checkpoint": checkpoint, **curve} for curve in curves]
                settings = spec.baseline | entry.settings
                row |= {f"setting_{name}": value for name, value in settings.items()}
                models.append(row)
            if not entry.derived:
                history += [{**key, **row} for row in read_rows(folder / "history.csv")]
            if entry.series:
                series += [
                    {**key, "normalised_epoch": (int(row["epoch"]) + 1) / entry.epochs, **row}
                    for row in read_rows(folder / "series.csv")
                ]
    tables = zip(TABLES, (models, history, series, landscape), strict=True)
    for name, rows in tables:
        write_table(directory / f"{name}.csv", rows)


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
