"""From the files of single jobs to the tables of an experiment."""

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from robust_flatness.config.values import Spec
from robust_flatness.config.variants import BASELINE
from robust_flatness.errors import FileError
from robust_flatness.files import restored
from robust_flatness.measures.base import CHECKPOINTS
from robust_flatness.measures.registry import MEASURES
from robust_flatness.tables.merging import merged, read_source, write_tables
from robust_flatness.tables.rows import Rows, as_text, read_rows
from robust_flatness.tables.runs import PREFIX, run_columns, same_models
from robust_flatness.tables.schema import OF_EXAMPLES, tables_of


class VariantEntry(Spec):
    """What the tables say of a variant besides its measures."""

    label: str
    family: str
    derived: bool = False
    """Whether correlations and claims leave it out."""
    external: bool = False
    """Whether it is a network of others, which was not trained here."""
    epochs: int | None = None
    seeds: tuple[int, ...] | None = None
    """Its own seeds, where they are not the experiment's."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings applied that differ from the baseline's."""
    measures: tuple[str, ...] = ()
    kept: bool = False
    """Whether its rows are those of an earlier run, which this one leaves as they are."""


class CollectSpec(Spec):
    """The variants and seeds of an experiment."""

    variants: dict[str, VariantEntry]
    baseline: dict[str, Any] = Field(default_factory=dict)
    seeds: tuple[int, ...]
    config: str = ""
    """A digest of the experiment, by which its rows are told from those of another."""
    series: dict[str, str] = Field(default_factory=dict)
    """Digests of the settings of measures of snapshots, whose files do not tell them."""


def collect_results(spec: CollectSpec, directory: Path, others: Sequence[Path] = ()) -> None:
    """Write the tables of an experiment in `directory`, joined with those of `others`, other runs of it.

    Rows of variants that are `kept` are taken from the tables that are there.

    Raises
    ------
    FileError
        If a measure's file is missing or damaged, or the tables of another run do not fit
        (`merging.merged`).
    """
    tables = {name: as_text(rows) for name, rows in collected(spec, directory).items()}
    kept = {slug: entry for slug, entry in spec.variants.items() if entry.kept}
    if kept:
        earlier = {name: kept_rows(table, kept, spec.seeds) for name, table in read_source(directory).items()}
        tables = merged({"this run": tables, "an earlier run": earlier})
        order = {slug: index for index, slug in enumerate(spec.variants)}
        for table in tables.values():
            table.rows.sort(key=lambda row: order[row["variant"]])
    if others:
        sources = {str(path): read_source(path) for path in others}
        tables = merged({str(directory): tables} | sources)
    write_tables(tables, directory)


def collected(spec: CollectSpec, directory: Path) -> dict[str, list[dict]]:
    """The rows of each table, from the files of the jobs below `directory`."""
    measures = [name for entry in spec.variants.values() for name in entry.measures]
    tables: dict[str, list[dict]] = {name: [] for name in tables_of(measures)}
    for variant, entry in spec.variants.items():
        for seed in () if entry.kept else entry.seeds or spec.seeds:
            folder = directory / variant / f"seed-{seed}"
            key = {"variant": variant, "seed": seed}
            measured = {
                checkpoint: {
                    name: read_measure(folder / "measures" / checkpoint / f"{name}.json")
                    for name in entry.measures
                    if checkpoint in MEASURES[name].checkpoints
                }
                for checkpoint in (CHECKPOINTS[:1] if entry.external else CHECKPOINTS)
            }
            settings = {} if entry.external else spec.baseline | entry.settings
            settings = settings_applied(settings, measured)
            for checkpoint, contents in measured.items():
                at = {**key, "checkpoint": checkpoint}
                tables["models"].append(at | model_row(spec, entry, contents, settings))
                for name, content in contents.items():
                    details = content["details"]
                    for row in details.get(MEASURES[name].rows, ()):
                        tables[name].append(at | row)
                    tables["examples"] += [at | row for row in example_rows(details.get("examples", {}))]
            if not entry.derived and not entry.external:
                tables["history"] += [key | row for row in read_epochs(folder / "history.csv")]
            for name in entry.measures:
                if MEASURES[name].of_snapshots:
                    tables[name] += [
                        {**key, "normalised_epoch": (int(row["epoch"]) + 1) / entry.epochs, **row}
                        for row in read_epochs(folder / f"{name}.csv")
                    ]
                    if MEASURES[name].examples and variant == BASELINE:
                        rows = read_epochs(folder / f"{name}-examples.csv")
                        tables["examples"] += [key | _without_epoch(row) for row in rows]
    same = same_models(tables["models"])
    for row in tables["models"]:
        row["same_as"] = same.get(row["variant"], "")
    return tables


def settings_applied(settings: dict[str, Any], measured: Mapping[str, Mapping[str, dict]]) -> dict[str, Any]:
    """The settings of a training, `precision: auto` as the files of its measures tell."""
    told = [content["checkpoint"] for contents in measured.values() for content in contents.values()]
    if settings.get("precision") != "auto" or not told:
        return settings
    return settings | {"precision": told[0].get("precision", "float32")}


def model_row(
    spec: CollectSpec, entry: VariantEntry, contents: Mapping[str, dict], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The row of a checkpoint in `models.csv`, from the contents of its measures' files by name."""
    row: dict[str, Any] = {"family": entry.family, "label": entry.label}
    row |= {"derived": int(entry.derived), "epochs": entry.epochs}
    errors: dict[str, float] = {}
    for content in contents.values():
        row["epoch"] = content["checkpoint"]["epoch"]
        row |= content["values"]
        errors |= standard_errors(content["details"].get("examples", {}))
    row |= {f"setting_{name}": value for name, value in settings.items()}
    row |= {"external": 1} if entry.external else {}
    row |= errors
    row["not_finite"] = not_finite(row)
    row["classes"] = next((content.get("classes") for content in contents.values()), None)
    row |= run_columns(contents, spec.config)
    return row | {f"{PREFIX}{name}": made for name, made in spec.series.items() if name in entry.measures}


def _without_epoch(row: Mapping[str, str]) -> dict[str, str]:
    return {name: cell for name, cell in row.items() if name != "epoch"}


def kept_rows(table: Rows, kept: Mapping[str, VariantEntry], seeds: Sequence[int]) -> Rows:
    """The rows of an earlier run's table that stay."""
    wanted = {(slug, str(seed)) for slug, entry in kept.items() for seed in entry.seeds or seeds}
    return Rows(table.columns, [row for row in table.rows if (row["variant"], row["seed"]) in wanted])


def example_rows(examples: Mapping[str, Mapping[str, list]]) -> Iterator[dict[str, Any]]:
    """A row for each example from `details["examples"]` of a measure."""
    for split, lists in examples.items():
        columns = [column for column in OF_EXAMPLES if column in lists]
        for number, values in enumerate(zip(*(lists[column] for column in columns), strict=True)):
            yield {"split": split, "example": number, **dict(zip(columns, values, strict=True))}


def standard_errors(
    examples: Mapping[str, Mapping[str, list]], columns: Sequence[str] = OF_EXAMPLES
) -> dict[str, float]:
    """Standard errors over examples of mean losses and of errors (in per cent), by column."""
    found = {}
    for split, lists in examples.items():
        for column in columns:
            values = lists.get(column, ())
            if len(values) > 1:
                per_cent = 100 if "err" in column else 1
                name = f"{split}_{'rloss_pgd' if column == 'rloss' else column}_se"
                found[name] = per_cent * statistics.stdev(values) / math.sqrt(len(values))
    return found


def not_finite(row: Mapping[str, Any]) -> str:
    """The measures of a row that came out as infinite or no number."""
    names = [name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
    return " ".join(names)


def read_measure(path: Path) -> dict:
    """A measure's file.

    Raises
    ------
    FileError
        If it is missing or damaged.
    """
    try:
        content = restored(json.loads(path.read_text(encoding="utf-8")))
        _ = content["values"] | content["details"], content["checkpoint"]["epoch"]
    except FileNotFoundError:
        raise FileError(f"{path}: no such measure; run `snakemake measure` first") from None
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path}: damaged ({error!r}); delete it and run snakemake again") from None
    return content


def read_epochs(path: Path) -> list[dict[str, str]]:
    """The rows of a training's history or series: each has an epoch.

    Raises
    ------
    FileError
        If the file is missing or damaged.
    """
    remedy = "delete it and run `snakemake` again"
    if not path.exists():
        raise FileError(f"{path}: no such table; run `snakemake train` first")
    rows = read_rows(path, need=["epoch"], remedy=remedy).rows
    if not rows or not all(row["epoch"].isdecimal() for row in rows):
        what = "a row without an epoch" if rows else "no rows"
        raise FileError(f"{path}: damaged ({what}); {remedy}")
    return rows
