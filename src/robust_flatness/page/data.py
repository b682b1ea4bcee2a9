"""Data of the page from an experiment's tables: plain lists and dictionaries for its script."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from robust_flatness.analysis import comparison
from robust_flatness.plotting import looks
from robust_flatness.plotting.layer import Layer
from robust_flatness.plotting.notebook import Notebook
from robust_flatness.tables import aggregate, schema

#: Matplotlib's markers as Vega's shapes.
SHAPES = {
    **{"o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down", "P": "cross"},
    "p": "M0,-1L.95,-.31L.59,.81L-.59,.81L-.95,-.31Z",
    "*": "M0,-1L.22,-.31L.95,-.31L.36,.12L.59,.81L0,.38L-.59,.81L-.36,.12L-.95,-.31L-.22,-.31Z",
    "X": "M-0.9,-0.9L0.9,0.9M-0.9,0.9L0.9,-0.9",
}
#: Where the page shows a claim: a section or, with axes, the scatter plot.
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


def page_data(notebook: Notebook, tables: Path) -> dict[str, Any]:
    """Return all data of the page, ready for JSON: numbers with five digits, none that is not finite.
    `tables` is the folder of `paper_tables`; those that do not exist are left out."""
    is_paper = notebook.printed is None
    layers = {} if is_paper else {"ours": notebook.ours}
    layers["paper"] = notebook.ours if is_paper else notebook.published
    shown = {name: layer.models if name == "ours" else layer.variants for name, layer in layers.items()}
    ours, paper = shown[next(iter(shown))], shown["paper"]
    spreads = ("_se", "_std", "_sd")
    measures = [name for name in ours if schema.is_measure(name) and not name.endswith(spreads)]
    measures += [name for name in DIFFERENCES if name in ours]
    columns = [name for name in measures if aggregate.has(ours, name, rows=min(3, len(ours)))]
    families = {name for frame in (ours, paper) for name in frame["family"][frame["learnt"]]}
    order = [name for name in dict.fromkeys([*looks.every(), *sorted(families)]) if name in families]
    apart = {} if ours["learnt"].all() and paper["learnt"].all() else {"apart": APART}
    models = [_models(name, shown[name], layer, columns) for name, layer in layers.items()]
    named = notebook.tables.models.drop_duplicates("variant").to_dict("records")
    words = {name: {"words": schema.describe(name), "low": schema.direction(name)} for name in columns}
    return {
        "experiment": notebook.experiment,
        "isPaper": is_paper,
        "measures": words,
        "families": {name: _look(name) for name in order} | apart,
        "models": [row for rows in models for row in rows],
        "curves": _curves(notebook.ours.history),
        "paths": _paths(notebook.ours.series),
        "landscapes": _landscapes(notebook.ours.landscape),
        "labels": {row["variant"]: looks.name(row) for row in named},
        "claims": _claims(_read(tables / "claims.csv"), columns),
        "laterClaims": _claims(_read(tables / "later_claims.csv"), columns),
        "coefficients": _coefficients(_read(tables / "correlations.csv")),
        "comparison": _comparison(_read(tables / "sharpness_comparison.csv")),
    }


def _look(name: str) -> dict[str, str]:
    family = looks.family(name)
    return {"label": family.label, "color": family.color, "shape": SHAPES[family.marker]}


def _models(layer: str, frame: pd.DataFrame, numbers: Layer, columns: list[str]) -> list[dict[str, Any]]:
    """A row per model: its measures, the settings in which it differs from the baseline in words, and whether
    coefficients count it."""
    counted, named = {*numbers.counted["variant"]}, looks.named()
    settings = [name for name in frame.columns if name.startswith("setting_")]
    baselines = frame[frame["variant"] == "at"].to_dict("records")
    rows = []
    for row, other in zip(frame.to_dict("records"), aggregate.external(frame), strict=True):
        changed = [
            f"{name.removeprefix('setting_').replace('_', ' ')} {_word(row[name])}"
            for name in settings
            if baselines and not other and _word(row[name]) != _word(baselines[0][name])
        ]
        slug = row["variant"]
        otherwise = "a network of others" if other else "the baseline" if slug == "at" else ""
        model = {"layer": layer, "variant": slug, "label": row["label"], "short": looks.name(row)}
        model |= {"named": bool(other) or slug in named, "counts": slug in counted}
        model |= {"family": row["family"] if row["learnt"] else "apart"}
        model |= {"settings": ", ".join(changed) or otherwise}
        rows.append(model | {"values": {name: row[name] for name in columns if name in row}})
    return _plain(rows)


def _curves(history: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Training curves per variant: share of the training, RLoss and RErr, thinned out."""
    found = {}
    columns = {"epoch": "normalised_epoch"}
    columns |= {name: name for name in ("train_rloss", "test_rloss", "train_rerr", "test_rerr")}
    for slug, rows in history.groupby("variant", sort=False):
        rows = rows.sort_values("normalised_epoch").reset_index(drop=True)
        kept = rows["test_rloss"].notna() | (rows.index % max(1, len(rows) // CURVE_POINTS) == 0)
        if rows["test_rloss"].notna().any():
            found[slug] = _records(rows[kept], columns)
    return found


def _paths(series: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Test RLoss and flatness of each variant's snapshots."""
    columns = {"epoch": "normalised_epoch", "rloss": "test_rloss_pgd", "flatness": "avg_flatness_rloss"}
    if not aggregate.has(series, *columns.values()):
        return {}
    series = series.dropna(subset=list(columns.values())).sort_values("normalised_epoch")
    return {slug: _records(rows, columns) for slug, rows in series.groupby("variant", sort=False)}


def _landscapes(landscape: pd.DataFrame) -> list[dict[str, Any]]:
    names = ("variant", "direction", "s", "rloss")
    return _records(landscape[landscape["normalisation"] == "layer"], {name: name for name in names})


def _claims(rows: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
    """A claim each: verdict, statement, its statistics, and where the page shows it."""
    claims = []
    for name, tests in rows.groupby("claim", sort=False) if len(rows) else ():
        place = dict(PLACES.get(name, {}))
        if place.get("y") == "test_rerr_aa" and "test_rerr_aa" not in columns:
            place["y"] = "test_rerr_pgd"
        shown = all(place[axis] in columns for axis in ("x", "y") if axis in place)
        first = tests.iloc[0]
        kept = ["statistic", "value", "low", "high", "published", "outcome", "note"]
        records = tests.reindex(columns=kept).assign(decides=tests["decides"] == "yes").to_dict("records")
        published = first.get("published_verdict")
        claim = {key: first[key] for key in ("verdict", "statement", "rule")}
        claim |= {"name": name, "place": place if shown else {}}
        claim |= {"published": "" if pd.isna(published) else published, "tests": records}
        claims.append(claim)
    return _plain(claims, drop=False)


def _coefficients(rows: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    """Coefficients with their intervals: "measure against" -> kind -> [value, low, high]."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows[rows["without"].isna()].to_dict("records") if "without" in rows else ():
        ends = [row[name] for name in ("value", "low", "high")]
        found.setdefault(f"{row['measure']} {row['against']}", {})[row["coefficient"]] = ends
    return _plain(found, drop=False)


def _comparison(rows: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Spearman's correlations of measures with test RLoss, for the examples they are taken on."""
    if rows.empty:
        return {}
    columns = {"name": "words"} | {name: name for name in ("group", "value", "low", "high", "clean")}
    parts = comparison.by_split(rows)
    return {split: _records(part, columns) for split, part in parts.items() if len(part)}


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if Path(path).is_file() else pd.DataFrame()


def _records(frame: pd.DataFrame, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows as dictionaries, new name -> value; missing values are left out."""
    return _plain([*frame[[*columns.values()]].set_axis([*columns], axis=1).to_dict("records")])


def _plain(value: Any, drop: bool = True) -> Any:
    """A value for JSON: numbers with five digits; None, or left out of dictionaries, if not finite."""
    if isinstance(value, dict):
        plain = {key: _plain(entry, drop) for key, entry in value.items()}
        return {key: entry for key, entry in plain.items() if entry is not None or not drop}
    if isinstance(value, list):
        return [_plain(entry, drop) for entry in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
