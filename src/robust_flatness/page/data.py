"""What the page shows, from an experiment's tables: plain lists and dictionaries for its script."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from robust_flatness.analysis.comparison import ON_TEST
from robust_flatness.plotting import looks
from robust_flatness.plotting.layer import Layer
from robust_flatness.plotting.notebook import Notebook
from robust_flatness.tables import aggregate, schema
from robust_flatness.tables.rows import read_rows

#: Matplotlib's markers as Vega's shapes.
SHAPES = {
    **{"o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down", "P": "cross"},
    "p": "M0,-1L.95,-.31L.59,.81L-.59,.81L-.95,-.31Z",
    "*": "M0,-1L.22,-.31L.95,-.31L.36,.12L.59,.81L0,.38L-.59,.81L-.36,.12L-.95,-.31L-.22,-.31Z",
    "X": "M-0.9,-0.9L0.9,0.9M-0.9,0.9L0.9,-0.9",
}
#: Where a claim is seen on the page: a section or, with axes, the scatter plot.
PLACES: dict[str, dict[str, str]] = {
    "robust-overfitting": {"section": "curves"},
    "overfitting-is-sharpening": {"section": "paths"},
    "early-stopping-is-flat": {"x": "avg_flatness_rloss", "y": "rloss_overfitting"},
    "flat-is-robust": {"x": "avg_flatness_rloss", "y": "test_rloss_pgd"},
    "variants-are-flat": {"x": "avg_flatness_rloss", "y": "test_rerr_aa"},
    "regularisers-are-flat": {"x": "avg_flatness_rloss", "y": "test_rloss_pgd"},
    "worst-case-is-weaker": {"x": "worst_flatness_rloss", "y": "test_rloss_pgd"},
    "gap-and-overfitting": {"x": "avg_flatness_rloss", "y": "rloss_gap"},
    "train-flatness": {"x": "train_avg_flatness_rloss", "y": "test_rloss_pgd"},
    "clean-flatness-does-not": {"x": "avg_flatness_ce", "y": "test_rloss_pgd"},
    "scale-invariant": {"section": "landscapes"},
    "rerr-kink": {"x": "test_rloss_pgd", "y": "test_rerr_aa"},
    "measures-and-the-gap": {"section": "measures"},
    "sharpness-follows-the-rate": {"x": "avg_flatness_rloss", "y": "rloss_gap"},
    "flatness-is-local": {"x": "avg_flatness_rloss", "y": "test_rerr_pgd_eps_2"},
}
DIFFERENCES = ("rloss_gap", "rerr_gap", "rloss_overfitting")
#: Models that have not learnt: drawn apart and in no coefficient.
APART = {"label": "Has not learnt", "color": "#909090", "shape": SHAPES["X"]}
#: Points of a training curve that are kept.
CURVE_POINTS = 40
DIGITS = 5
RLOSS = "test_rloss_pgd"


def page_data(notebook: Notebook, tables: Path) -> dict[str, Any]:
    """All data of the page, ready for JSON: numbers with five digits, none that is not finite.

    `tables` is the folder with `claims.csv`, `later_claims.csv` and `sharpness_comparison.csv`; what is
    missing there is left out.
    """
    ours = notebook.ours.models if notebook.printed else notebook.ours.variants
    names = ("paper",) if notebook.printed is None else ("ours", "paper")
    layers = dict(zip(names, notebook.layers, strict=True))
    columns = [name for name in _measures(ours) if aggregate.has(ours, name, rows=min(3, len(ours)))]
    shown = {"paper": notebook.layers[-1].variants, "ours": ours}
    families = {name for frame in shown.values() for name in frame["family"][frame["learnt"]]}
    order = dict.fromkeys([*looks.every(), *sorted(families)])
    apart = {"apart": APART} if not all(frame["learnt"].all() for frame in shown.values()) else {}
    return {
        "experiment": notebook.experiment,
        "isPaper": notebook.printed is None,
        "measures": {
            name: {"words": schema.describe(name), "low": schema.direction(name)} for name in columns
        },
        "families": {name: _look(name) for name in order if name in families} | apart,
        "models": [
            row for name, layer in layers.items() for row in _models(name, shown[name], layer, columns)
        ],
        "curves": _curves(notebook.ours.history),
        "paths": _paths(notebook.ours.series),
        "landscapes": _landscapes(notebook.ours.landscape),
        "labels": _labels(notebook.tables.models),
        "claims": _claims(_rows(tables / "claims.csv"), columns),
        "laterClaims": _claims(_rows(tables / "later_claims.csv"), columns),
        "comparison": _comparison(_rows(tables / "sharpness_comparison.csv")),
    }


def _measures(frame: pd.DataFrame) -> list[str]:
    spreads = ("_se", "_std", "_sd")
    named = [c for c in frame.columns if schema.is_measure(c) and not c.endswith(spreads)]
    return [*named, *(name for name in DIFFERENCES if name in frame)]


def _look(name: str) -> dict[str, str]:
    family = looks.family(name)
    return {"label": family.label, "color": looks.color(name), "shape": SHAPES[family.marker]}


def _models(layer: str, frame: pd.DataFrame, numbers: Layer, columns: list[str]) -> list[dict[str, Any]]:
    """A row per model: its measures, the settings in which it differs from the baseline in words, whether
    coefficients count it."""
    counted, external = {*numbers.counted["variant"]}, aggregate.external(frame).tolist()
    settings = [name for name in frame.columns if name.startswith("setting_")]
    at = frame[frame["variant"] == "at"]
    baseline = at.iloc[0] if len(at) else None
    rows = []
    for (_, row), other in zip(frame.iterrows(), external, strict=True):
        changed = [
            f"{name.removeprefix('setting_').replace('_', ' ')} {_word(row[name])}"
            for name in settings
            if baseline is not None and not other and _word(row[name]) != _word(baseline[name])
        ]
        told = "a network of others" if other else "the baseline" if row["variant"] == "at" else ""
        values = {name: _number(row[name]) for name in columns if name in row}
        rows.append(
            {
                "layer": layer,
                "variant": row["variant"],
                "label": row["label"],
                "short": looks.name(row),
                "named": other or row["variant"] in {look.named for look in looks.every().values()},
                "family": row["family"] if row["learnt"] else "apart",
                "counts": row["variant"] in counted,
                "settings": ", ".join(changed) or told,
                "values": {name: value for name, value in values.items() if value is not None},
            }
        )
    return rows


def _curves(history: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Training curves per variant: share of the training, RLoss and RErr, thinned out."""
    found = {}
    names = ("train_rloss", "test_rloss", "train_rerr", "test_rerr")
    for slug, rows in history.groupby("variant", sort=False):
        rows = rows.sort_values("normalised_epoch")
        every = max(1, len(rows) // CURVE_POINTS)
        snapshot = rows["test_rloss"].notna()
        kept = rows[snapshot | (pd.Series(range(len(rows)), index=rows.index) % every == 0)]
        found[slug] = _records(kept, {"epoch": "normalised_epoch"} | {name: name for name in names})
    return {slug: rows for slug, rows in found.items() if any("test_rloss" in row for row in rows)}


def _paths(series: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Test RLoss and flatness of each variant's snapshots."""
    columns = {"epoch": "normalised_epoch", "rloss": "test_rloss_pgd", "flatness": "avg_flatness_rloss"}
    if not aggregate.has(series, *columns.values()):
        return {}
    series = series.dropna(subset=list(columns.values())).sort_values("normalised_epoch")
    return {slug: _records(rows, columns) for slug, rows in series.groupby("variant", sort=False)}


def _landscapes(landscape: pd.DataFrame) -> list[dict[str, Any]]:
    if not aggregate.has(landscape, "rloss"):
        return []
    names = ("variant", "direction", "s", "rloss")
    layers = landscape[landscape["normalisation"] == "layer"]
    return _records(layers, {name: name for name in names})


def _labels(models: pd.DataFrame) -> dict[str, str]:
    """Short names of all variants, derived ones too."""
    rows = models.drop_duplicates("variant").to_dict("records")
    return {row["variant"]: looks.name(row) for row in rows}


def _claims(rows: list[dict[str, str]], columns: list[str]) -> list[dict[str, Any]]:
    """A claim each: verdict, statement, its deciding statistics, and where it is seen."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        place = dict(PLACES.get(row["claim"], {}))
        if place.get("y") == "test_rerr_aa" and "test_rerr_aa" not in columns:
            place["y"] = "test_rerr_pgd"
        if any(place[axis] not in columns for axis in ("x", "y") if axis in place):
            place = {}
        entry = found.setdefault(
            row["claim"],
            {
                **{"name": row["claim"], "verdict": row["verdict"], "statement": row["statement"]},
                **{"rule": row["rule"], "place": place, "tests": []},
                "published": row.get("published_verdict", ""),
            },
        )
        numbers = {name: _number(row[name]) for name in ("value", "low", "high", "n", "published")}
        words = {"statistic": row["statistic"], "outcome": row["outcome"], "note": row.get("note", "")}
        entry["tests"].append({**words, "decides": row["decides"] == "yes", **numbers})
    return list(found.values())


def _comparison(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Spearman's correlation of each measure with test RLoss, on the robust and on the clean loss; the
    measure whose better one is highest comes first. Sharpness is that on training examples."""
    found, best = [], {}
    for row in rows:
        value = _number(row["value"])
        wanted = (row["coefficient"], row["against"]) == ("spearman", RLOSS)
        if value is None or not wanted or row["group"] == ON_TEST:
            continue
        best[row["words"]] = max(value, best.get(row["words"], -1))
        ends = {end: _number(row[end]) for end in ("low", "high")}
        clean = row["loss"] == "ce"
        found.append({"name": row["words"], "group": row["group"], "clean": clean, "value": value, **ends})
    return sorted(found, key=lambda row: (-best[row["name"]], row["name"], row["clean"]))


def _rows(path: Path) -> list[dict[str, str]]:
    return read_rows(path).rows if Path(path).is_file() else []


def _records(frame: pd.DataFrame, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows as dictionaries, new name -> value; what is missing is left out."""
    rows = []
    for values in frame[list(columns.values())].itertuples(index=False, name=None):
        row = {name: _plain(value) for name, value in zip(columns, values, strict=True)}
        rows.append({name: value for name, value in row.items() if value is not None})
    return rows


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else _number(value)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return float(f"{number:.{DIGITS}g}") if math.isfinite(number) else None


def _word(value: Any) -> str:
    number = _number(value)
    return str(value) if number is None else f"{number:g}"
