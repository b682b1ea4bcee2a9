"""Collection of the files of single networks into the tables of an experiment."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from robust_flatness.config.values import Spec
from robust_flatness.errors import FileError
from robust_flatness.files import digest, write_rows, write_text
from robust_flatness.measures.base import CHECKPOINTS
from robust_flatness.tables.records import FIELDS, read_network
from robust_flatness.tables.schema import EXAMPLES, PROVENANCE
from robust_flatness.training.history import HISTORY
from robust_flatness.version import __version__

#: Digits of checksums in the tables.
CHECKSUM = 12
#: Measures with per-example values.
WITH_EXAMPLES = {"robustness", "series", "other_radii"}


class VariantEntry(Spec):
    """A variant in the tables: whether correlations and claims leave it out (`derived`), whether it is an
    external network (`external`), and the training settings that differ from the baseline's."""

    label: str
    family: str
    derived: bool = False
    external: bool = False
    epochs: int | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class CollectSpec(Spec):
    """The variants of an experiment with fingerprints: of data, network and the baseline's training
    (`config`), and of the settings of each variant's measures."""

    variants: dict[str, VariantEntry]
    baseline: dict[str, Any] = Field(default_factory=dict)
    config: str = ""
    measures: dict[str, dict[str, str]] = Field(default_factory=dict)


def fingerprint(settings: Any) -> str:
    """Return eight hexadecimal digits that are equal for equal settings."""
    return digest(settings)[:8]


def collect_results(spec: CollectSpec, directory: Path) -> list[str]:
    """Write the tables of all networks of the experiment below `directory`, whatever machine measured them.

    Records of another config or version of this package, of other data than those prepared in `directory`,
    and of other settings or code of a training or measure are left out and counted in the messages returned.
    Raises `FileError` if a file is damaged, or no network remains.
    """
    from robust_flatness.data import load_dataset  # planning does without NumPy, and pandas
    from robust_flatness.tables.frames import write_models

    records, networks, history, examples = [], [], [], []
    skipped: Counter[str] = Counter()
    prepared = {path.stem: load_dataset(path).checksum for path in directory.glob("data/seed-*.safetensors")}
    column = list(FIELDS).index("measure")
    for variant, seed, folder in _networks(spec, directory):
        provenance, lines = read_network(folder / "records.csv")
        entry = spec.variants[variant]
        if reason := _mismatch(spec, entry, provenance, prepared.get(folder.name)):
            skipped[reason] += 1
            continue
        measures = spec.measures[variant]
        stale = sorted(name for name, made in provenance["measures"].items() if made != measures.get(name))
        skipped.update(f"records of {name} with other settings or code" for name in stale)
        records += [line for line in lines if line.split(",", column + 1)[column] not in stale]
        networks += _network_rows(spec, variant, seed, provenance)
        if not entry.derived and not entry.external:
            history += _lines(folder / "history.csv", HISTORY)
        if WITH_EXAMPLES.isdisjoint(stale):
            examples += _lines(folder / "examples.csv", EXAMPLES)
    messages = [f"{count} left out: {reason}" for reason, count in skipped.items()]
    if not networks:
        raise FileError("\n".join([f"{directory}: no records of this experiment", *messages]))
    same = same_models(networks)
    networks = [row | {"same_as": same.get(row["variant"], "")} for row in networks]
    write_rows(directory / "networks.csv", networks)
    texts = {"records": (FIELDS, records), "history": (HISTORY, history), "examples": (EXAMPLES, examples)}
    for name, (columns, lines) in texts.items():
        write_text(directory / f"{name}.csv", "\n".join([",".join(columns), *lines, ""]))
    write_models(directory)
    return messages


def _lines(path: Path, columns: Sequence[str]) -> list[str]:
    """Return the lines of a table of these columns, without its header."""
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    if header != ",".join(columns):
        raise FileError(f"{path}: written by another version; delete it and run snakemake again")
    return lines


def _networks(spec: CollectSpec, directory: Path) -> Iterator[tuple[str, int, Path]]:
    """Yield variant, seed and folder of each network with records, in the order of the catalogue."""
    for variant in spec.variants:
        folders = (path.parent for path in directory.glob(f"{variant}/seed-*/records.csv"))
        yield from sorted((variant, int(folder.name.removeprefix("seed-")), folder) for folder in folders)


def _mismatch(spec: CollectSpec, entry: VariantEntry, provenance: Mapping[str, Any], data: str | None) -> str:
    """Return why the records of a network do not belong to the experiment; "" if they do. `data` is the
    checksum of the data prepared for its seed, None if there are none."""
    version = provenance["provenance"]["robust_flatness"]
    if provenance["config"] != spec.config:
        return "another config (data, network or training)"
    if version != __version__:
        return f"another version of this package ({version})"
    if data and provenance["data_sha256"] != data:
        return "other data"
    if not entry.external and provenance["training"] != fingerprint(spec.baseline | entry.settings):
        return "other settings or code of the training"
    return ""


def _network_rows(
    spec: CollectSpec, variant: str, seed: int, provenance: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield one row for each checkpoint of a network: identity, settings of the training, provenance."""
    entry, made = spec.variants[variant], provenance["provenance"]
    settings = {} if entry.external else spec.baseline | entry.settings
    common = {"family": entry.family, "label": entry.label, "derived": int(entry.derived)}
    common |= {"epochs": entry.epochs} | ({"external": 1} if entry.external else {})
    common |= {"classes": provenance["classes"]} | {f"setting_{name}": v for name, v in settings.items()}
    run = {"config": spec.config, **provenance["measures"], "data": provenance["data_sha256"][:CHECKSUM]}
    run |= {"version": made["robust_flatness"], "commit": made["git_commit"], "torch": made["torch"]}
    run |= {"device": f"{made['device']} {made['device_name']}"}
    common |= {f"{PROVENANCE}{name}": value for name, value in run.items()}
    for name in CHECKPOINTS:
        if checkpoint := provenance["checkpoints"].get(name):
            row = {"variant": variant, "seed": seed, "checkpoint": name, "epoch": checkpoint["epoch"]}
            row |= common | checkpoint["notes"]
            row[f"{PROVENANCE}weights"] = checkpoint["weights_sha256"][:CHECKSUM]
            if settings.get("precision") == "auto":
                row["setting_precision"] = checkpoint["precision"]
            yield row


def same_models(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return the variants with the final weights of an earlier one for every seed: slug -> the first such
    variant.

    >>> row = {"checkpoint": "last", "seed": 0}
    >>> same_models([row | {"variant": slug, "run_weights": "e5ac"} for slug in ("a", "b")])
    {'b': 'a'}
    """
    weights: dict[str, set] = {}
    for row in (row for row in rows if row["checkpoint"] == "last"):
        weights.setdefault(row["variant"], set()).add((row["seed"], row[f"{PROVENANCE}weights"]))
    first: dict[frozenset, str] = {}
    earliest = {slug: first.setdefault(frozenset(signature), slug) for slug, signature in weights.items()}
    return {slug: earlier for slug, earlier in earliest.items() if earlier != slug}
