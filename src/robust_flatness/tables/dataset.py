"""The records of several experiments as one table, with a dictionary."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from robust_flatness.errors import ConfigError
from robust_flatness.files import atomic_path, write_text
from robust_flatness.tables import schema
from robust_flatness.tables.frames import frame_text
from robust_flatness.tables.records import FIELDS, read_records

#: Units of the kinds of metrics.
UNITS = {"error": "per cent", "loss": "nats", "flatness": "nats"}
README = """\
# Robust flatness: records of all networks, measures and experiments

Adversarially trained networks with their robustness, flatness and other measures of sharpness, after Stutz, \
Hein, Schiele: *Relating Adversarially Robust Generalization to Flat Minima* (ICCV 2021).

`records.csv` and `records.parquet` hold the same {count:,} rows, one for each number. `dictionary.csv` \
explains the metrics; the experiment `paper` holds the numbers printed in the paper.

| experiment | networks |
| --- | ---: |
{networks}

| column | what it holds |
| --- | --- |
{fields}
"""


def write_dataset(folders: Sequence[Path], output: Path) -> int:
    """Write the records of the experiments in `folders` to `output` (CSV, Parquet, a dictionary, README.md);
    return their number. Raises `ConfigError` if two folders have the same name, or pyarrow is missing."""
    named = {folder.resolve().name: folder for folder in folders}
    if len(named) < len(folders):
        raise ConfigError(f"folders: {', '.join(map(str, folders))}; name each experiment once")
    parts = [read_records(folder / "records.csv").assign(experiment=name) for name, folder in named.items()]
    records = pd.concat(parts, ignore_index=True)[["experiment", *FIELDS]].astype({"coordinate": str})
    write_text(output / "records.csv", frame_text(records))
    with atomic_path(output / "records.parquet") as temporary:
        try:
            records.to_parquet(temporary, index=False, engine="pyarrow")
        except ImportError:
            raise ConfigError("Parquet needs pyarrow: pip install pyarrow") from None
    write_text(output / "dictionary.csv", frame_text(_dictionary(records)))
    networks = records.drop_duplicates(["experiment", "variant", "seed"]).groupby("experiment", sort=False)
    rows = "\n".join(f"| {name} | {count} |" for name, count in networks.size().items())
    fields = "\n".join(f"| `{name}` | {words} |" for name, words in FIELDS.items())
    write_text(output / "README.md", README.format(count=len(records), networks=rows, fields=fields))
    return len(records)


def _dictionary(records: pd.DataFrame) -> pd.DataFrame:
    """Return a description of every metric in the records, from the registry of measures."""
    rows = []
    for (measure, metric), part in records.groupby(["measure", "metric"], sort=True):
        described, spread = schema.metric_of(measure, metric.removesuffix("_std")), metric.endswith("_std")
        row = {"measure": measure, "metric": metric}
        row["words"] = "standard deviation of " * spread + described.label.format(loss="the loss")
        row |= {"unit": UNITS.get(described.kind, ""), "direction": "" if spread else described.direction}
        rows.append(row | {"records": len(part), "experiments": " ".join(part["experiment"].unique())})
    return pd.DataFrame(rows)
