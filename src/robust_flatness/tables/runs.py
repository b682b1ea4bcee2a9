"""Which run a row comes from: columns `run_...` of `models.csv`, and what they tell.

`run_config`
    a digest of the experiment: data, network, training of the baseline, without where files lie;
`run_<measure>`
    a digest of that measure's settings;
`run_data`, `run_weights`
    the first digits of the checksums of the data and of the network's weights;
`run_version`, `run_commit`, `run_torch`, `run_device`, `run_precision`
    this package and torch, the machine, and the precision of the measures.

A cell with several values, `a / b`, is of a row whose measures were made in several ways.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from robust_flatness.files import canonical_json
from robust_flatness.measures.registry import MEASURES

PREFIX = "run_"
#: Digits of the checksums of files, and of digests of settings.
CHECKSUM, DIGEST = 12, 8


def digest(settings: Any) -> str:
    """Equal settings, equal digits."""
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:DIGEST]


def measure_digest(name: str, spec: Mapping[str, Any]) -> str:
    """A digest of a measure's settings, but for the precision, which has a column of its own, and the
    variants that it applies to. Defaults are left out, so that a setting that is added to the kit later
    makes no difference."""
    with contextlib.suppress(ValueError):  # of a kit with other settings
        spec = MEASURES[name].spec.model_validate(spec).model_dump(mode="json", exclude_defaults=True)
    return digest(_without(spec, ("precision", "variants")))


def _without(settings: Any, names: Sequence[str]) -> Any:
    """Settings and their parts without some fields."""
    if not isinstance(settings, Mapping):
        return settings
    return {name: _without(value, names) for name, value in settings.items() if name not in names}


def run_columns(contents: Mapping[str, Mapping[str, Any]], config: str) -> dict[str, str]:
    """The columns of a row from the files of its measures, name -> content."""
    found: dict[str, list[str]] = {}
    for name, content in contents.items():
        made = content.get("provenance", {})
        asked = content.get("spec", {}).get("precision")
        cells = {
            "data": content.get("data_sha256", "")[:CHECKSUM],
            "weights": content["checkpoint"].get("weights_sha256", "")[:CHECKSUM],
            "version": made.get("robust_flatness"),
            "commit": shortened(made.get("git_commit") or ""),
            "torch": made.get("torch"),
            "device": " ".join(str(made[key]) for key in ("device", "device_name") if key in made),
            "precision": asked and made.get("precision", asked),
        }
        found[name] = [measure_digest(name, content.get("spec", {}))]
        for key, value in cells.items():
            found.setdefault(key, []).append(value or "")
    order = [*contents, "data", "weights", "version", "commit", "torch", "device", "precision"]
    return {f"{PREFIX}config": config} | {
        f"{PREFIX}{key}": " / ".join(dict.fromkeys(filter(None, found.get(key, ())))) for key in order
    }


def shortened(commit: str) -> str:
    """A commit's first digits, with the mark of changed files."""
    digits, dash, mark = commit.partition("-")
    return digits[:CHECKSUM] + dash + mark


def same_models(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Variants that came out as the model of an earlier one: slug -> the first of them.

    Two are one model if their weights at the end are equal for every seed, or the settings applied are.

    >>> row = {"checkpoint": "last", "seed": 0, "derived": 0}
    >>> same_models([row | {"variant": slug, "run_weights": "e5ac"} for slug in ("a", "b")])
    {'b': 'a'}
    """
    weights: dict[str, set] = {}
    settings: dict[str, set] = {}
    for row in rows:
        if row.get("checkpoint", "last") != "last":
            continue
        slug, sha = row["variant"], row.get(f"{PREFIX}weights")
        weights.setdefault(slug, set()).add((str(row.get("seed", 0)), sha) if sha else object())
        applied = {(key, str(value)) for key, value in row.items() if key.startswith("setting_")}
        distinct = str(row.get("derived", 0)) not in ("0", "0.0", "") or not applied
        settings.setdefault(slug, set()).update([object()] if distinct else applied)
    same: dict[str, str] = {}
    for kinds in (weights, settings):
        first: dict[frozenset, str] = {}
        for slug, signature in kinds.items():
            earliest = first.setdefault(frozenset(signature), slug)
            if earliest != slug:
                same.setdefault(slug, same.get(earliest, earliest))
    return same
