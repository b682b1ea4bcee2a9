"""Results as data: one tidy table of all models, measures and experiments, a dictionary, model cards."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from robust_flatness.errors import ConfigError
from robust_flatness.files import atomic_path, write_text
from robust_flatness.tables.frames import frame_text, read_models
from robust_flatness.tables.printed import read_published
from robust_flatness.tables.schema import describe, direction, parse_name

#: Columns of the tidy table: name -> what it holds.
COLUMNS = {
    "experiment": "name of the experiment; `paper` holds the numbers printed in the paper",
    "variant": "training variant (slug of the catalogue)",
    "label": "the variant's name in figures and tables",
    "family": "family of variants",
    "seed": "seed of data, initialisation and training",
    "checkpoint": "`last`, or `best` for the early-stopped one",
    "kind": "`measure`: something measured; `setting`: how it was trained or measured",
    "name": "what was measured or set (see dictionary.csv)",
    "split": "examples of a measure: test or train; empty where it is not of a split",
    "xi": "relative radius of a flatness, where it is not the main one",
    "value": "the number; errors in per cent, losses in nats",
    "text": "the value of a setting that is no number",
    "standard_deviation": "over samples or restarts of one measurement",
    "standard_error": "of one measurement",
}
PAPER = "paper"


def write_dataset(folders: Sequence[Path], output: Path) -> int:
    """Write `measurements.csv`, `measurements.parquet`, `dictionary.csv`, `README.md` and `models/*.md` to
    `output`, from the tables of experiments in `folders` and the printed numbers; the number of rows.

    Raises
    ------
    ConfigError
        If a folder has no models.csv, two have the same name, or pyarrow is missing.
    """
    names = [Path(folder).resolve().name for folder in folders]
    if len({*names}) < len(names):
        raise ConfigError(f"folders: {', '.join(names)}; name each experiment once")
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ConfigError("Parquet needs pyarrow: pip install pyarrow") from None
    experiments = {PAPER: read_published().models}
    experiments |= {
        name: read_models(Path(folder) / "models.csv")
        for name, folder in zip(names, folders, strict=True)
        if name != PAPER
    }
    tidy = pd.DataFrame(
        [row for name, models in experiments.items() for row in tidy_rows(name, models)], columns=[*COLUMNS]
    )
    tidy = tidy.astype({"seed": "int64"} | dict.fromkeys(("xi", "value", "standard_deviation"), "float64"))
    output = Path(output)
    write_text(output / "measurements.csv", frame_text(tidy))
    with atomic_path(output / "measurements.parquet") as temporary:
        tidy.to_parquet(temporary, index=False, engine="pyarrow")
    dictionary = _dictionary(tidy)
    write_text(output / "dictionary.csv", frame_text(dictionary))
    write_text(output / "README.md", _readme(tidy, dictionary))
    for name, models in experiments.items():
        for row in models.to_dict("records"):
            path = output / f"models/{name}/{_file(row['variant'])}-seed-{row['seed']}-{row['checkpoint']}.md"
            write_text(path, model_card(name, row))
    return len(tidy)


def tidy_rows(experiment: str, models: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """A row for each value in `models`, with its spread and standard error beside it."""
    keys = ("variant", "label", "family", "seed", "checkpoint")
    for record in models.to_dict("records"):
        common = {"experiment": experiment, **{key: record[key] for key in keys}}
        for column, value in record.items():
            known = parse_name(column)
            if column in common or not _given(value):
                continue
            if known is None and not column.startswith("setting_"):
                continue
            if known is not None and (known.spread or known.seeds or known.best):
                continue
            row = common | {"kind": "setting", "name": column.removeprefix("setting_"), "split": ""}
            if known is not None and known.column.is_measure:
                row |= {
                    "kind": "measure",
                    "name": known.column.stem,
                    "split": known.split if known.column.splits else "",
                    "xi": known.xi,
                    "standard_deviation": _number(record.get(f"{column}_std")),
                    "standard_error": _number(record.get(f"{column}_se")),
                }
            number = _number(value)
            yield row | ({"text": str(value)} if number is None else {"value": number})


def model_card(experiment: str, row: dict[str, Any]) -> str:
    """A model's card: what it is, how it was trained, what was measured."""
    settings = {
        k.removeprefix("setting_"): v for k, v in row.items() if k.startswith("setting_") and _given(v)
    }
    measures = {
        name: value
        for name, value in row.items()
        if (known := parse_name(name)) and known.column.is_measure and not known.spread and _given(value)
    }
    stopped = "the early-stopped checkpoint" if row["checkpoint"] == "best" else "the last checkpoint"
    lines = [
        f"# {row['label']} ({experiment})",
        "",
        f"{stopped.capitalize()} of the variant `{row['variant']}`, seed {row['seed']}, of the experiment "
        f"`{experiment}`: an image classifier from adversarial training, made to study robust flatness. "
        "It is meant for research on robustness, not for use.",
        "",
        "## Measured",
        "",
        *("| measure | value | |", "| --- | ---: | --- |"),
        *(f"| {describe(name)} | {value:.4g} | {direction(name)} |" for name, value in measures.items()),
    ]
    if settings:
        lines += ["", "## Trained with", "", "| setting | value |", "| --- | --- |"]
        lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in settings.items()]
    return "\n".join(lines) + "\n"


def _dictionary(tidy: pd.DataFrame) -> pd.DataFrame:
    """Every name of the tidy table in words, from the registry of measures."""
    rows = []
    for (kind, name), part in tidy.groupby(["kind", "name"], sort=True):
        column = next((c for c in (name, f"test_{name}") if parse_name(c)), None)
        known = parse_name(column) if column else None
        rows.append(
            {
                "kind": kind,
                "name": name,
                "words": known.column.words if known else name.replace("_", " "),
                "unit": {"error": "per cent", "loss": "nats", "flatness": "nats"}.get(
                    known.column.kind if known else "", ""
                ),
                "direction": known.direction if known else "",
                "rows": len(part),
                "experiments": " ".join(dict.fromkeys(part["experiment"])),
            }
        )
    return pd.DataFrame(rows)


def _readme(tidy: pd.DataFrame, dictionary: pd.DataFrame) -> str:
    models = tidy.drop_duplicates(["experiment", "variant", "seed", "checkpoint"])
    counts = models.groupby("experiment", sort=False).size()
    lines = [
        "# Robust flatness: results of all models, measures and experiments",
        "",
        "Adversarially trained networks with their robustness, flatness and other measures of sharpness, "
        "after Stutz, Hein, Schiele: *Relating Adversarially Robust Generalization to Flat Minima* (ICCV "
        "2021).",
        "",
        f"`measurements.csv` and `measurements.parquet` hold the same {len(tidy):,} rows, one for each "
        f"value. `dictionary.csv` explains the {len(dictionary)} names. "
        "`models/` has a card for each checkpoint.",
        "",
        *("| experiment | checkpoints |", "| --- | ---: |"),
        *(f"| {name} | {count} |" for name, count in counts.items()),
        "",
        *("| column | what it holds |", "| --- | --- |"),
        *(f"| `{name}` | {words} |" for name, words in COLUMNS.items()),
    ]
    return "\n".join(lines) + "\n"


def _given(value: Any) -> bool:
    return not (value is None or value == "" or (isinstance(value, float) and math.isnan(value)))


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _file(name: str) -> str:
    """A name as it may stand in a path."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in str(name))
