"""Data of the page from an experiment's tables: plain lists and dictionaries for its script."""

import math
from pathlib import Path
from typing import Any

import pandas as pd

from robust_flatness.analysis import comparison
from robust_flatness.analysis.claims import load_claims
from robust_flatness.folders import repository
from robust_flatness.plotting import looks
from robust_flatness.plotting.layer import Layer
from robust_flatness.plotting.notebook import Notebook
from robust_flatness.tables import aggregate, schema

DIFFERENCES = ("rloss_gap", "rerr_gap", "rloss_overfitting")
#: Look of models that have not learnt, which are drawn apart and in no coefficient.
APART = {"label": "Has not learnt", "color": "#909090", "marker": "X"}
#: Number of points of a training curve that are kept.
CURVE_POINTS = 40


def page_data(notebook: Notebook, tables: Path) -> dict[str, Any]:
    """Return all data of the page, ready for JSON: numbers with five digits, none that is not finite.
    `tables` is the folder of `paper_tables`; those that do not exist are left out."""
    is_paper = notebook.printed is None
    layers = {"paper": notebook.ours} if is_paper else {"ours": notebook.ours, "paper": notebook.published}
    # Without the printed networks of RobustBench.
    models = {name: layer.models if name == "ours" else layer.variants for name, layer in layers.items()}
    ours = next(iter(models.values()))
    measures = [name for name in ours if schema.is_measure(name) and not schema.lookup(name).spread]
    least = min(3, len(ours))
    columns = [name for name in (*measures, *DIFFERENCES) if aggregate.has(ours, name, rows=least)]
    landscape = notebook.ours.landscape
    landscape = landscape[landscape["normalisation"] == "layer"]
    named = notebook.tables.models.drop_duplicates("variant").to_dict("records")
    families = {name: look.model_dump(include={*APART}) for name, look in looks.every().items()}

    def table(name: str) -> pd.DataFrame:
        path = Path(tables) / f"{name}.csv"
        return pd.read_csv(path) if path.is_file() else pd.DataFrame()

    return {
        "experiment": notebook.experiment,
        "isPaper": is_paper,
        "measures": {
            name: {"words": schema.describe(name), "low": schema.direction(name)} for name in columns
        },
        "families": families | {"apart": APART},
        "models": [row for name in layers for row in _models(name, layers[name], models[name], columns)],
        "curves": _curves(notebook.ours.history),
        "paths": _paths(notebook.ours.series),
        "landscapes": _records(landscape, "variant", "direction", "s", "rloss"),
        "labels": {row["variant"]: looks.name(row) for row in named},
        "claims": _claims(table("claims")),
        "laterClaims": _claims(table("later_claims")),
        "coefficients": _coefficients(table("correlations")),
        "comparison": _comparison(table("sharpness_comparison")),
    }


def _models(name: str, layer: Layer, frame: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
    """Return a row per model: measures, settings unlike the baseline's, whether coefficients count it."""
    counted, named, records = {*layer.counted["variant"]}, looks.named(), frame.to_dict("records")
    keys = frame.filter(regex="^setting_")
    settings = {key: key.removeprefix("setting_").replace("_", " ") for key in keys}
    applied = {row["variant"]: {words: _word(row[key]) for key, words in settings.items()} for row in records}
    baseline, rows = applied.get("at", {}), []
    for row, other in zip(records, aggregate.external(frame), strict=True):
        slug = row["variant"]
        changed = [f"{key} {word}" for key, word in applied[slug].items() if word != baseline.get(key, word)]
        model = {"layer": name, "variant": slug, "label": row["label"], "short": looks.name(row)}
        model |= {"named": bool(other) or slug in named, "counts": slug in counted}
        family = row["family"] if row["family"] in looks.every() else schema.OTHER
        model |= {"family": family if row["learnt"] else "apart"}
        words = "a network of others" if other else ", ".join(changed) or "the baseline" * (slug == "at")
        rows.append(model | {"settings": words, "values": {key: row[key] for key in columns if key in row}})
    return _plain(rows)


def _curves(history: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return training curves per variant: share of the training, RLoss and RErr, thinned out."""
    names, found = ("train_rloss", "test_rloss", "train_rerr", "test_rerr"), {}
    for slug, rows in history.groupby("variant", sort=False):
        rows = rows.sort_values("normalised_epoch").reset_index(drop=True)
        kept = rows["test_rloss"].notna() | (rows.index % max(1, len(rows) // CURVE_POINTS) == 0)
        if rows["test_rloss"].notna().any():
            found[slug] = _records(rows[kept], *names, epoch="normalised_epoch")
    return found


def _paths(series: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return test RLoss and flatness of each variant's snapshots."""
    columns = {"epoch": "normalised_epoch", "rloss": "test_rloss_pgd", "flatness": "avg_flatness_rloss"}
    series = series.reindex(columns=["variant", *columns.values()]).dropna().sort_values("normalised_epoch")
    return {slug: _records(rows, **columns) for slug, rows in series.groupby("variant", sort=False)}


def _claims(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the claims: verdict, statement, rule, statistics, and where the page shows each."""
    places = load_claims().claims | load_claims(repository() / "config" / "later-claims.yaml").claims
    claims, kept = [], ["statistic", "value", "low", "high", "published", "outcome", "note"]
    for name, tests in rows.groupby("claim", sort=False) if len(rows) else ():
        words = tests.iloc[0].reindex(["verdict", "statement", "rule", "published_verdict"]).fillna("")
        records = tests.reindex(columns=kept).assign(decides=tests["decides"] == "yes").to_dict("records")
        place = dict(places[name].page) if name in places else {}
        claims.append({**words.rename({"published_verdict": "published"}), "tests": records, "place": place})
    return _plain(claims)


def _coefficients(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the coefficients over all variants with their intervals."""
    columns = ("measure", "against", "coefficient", "value", "low", "high")
    return _records(rows[rows["without"].isna()], *columns) if "without" in rows else []


def _comparison(rows: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return Spearman's correlations of measures with test RLoss, for the examples they are taken on."""
    parts = {} if rows.empty else comparison.by_split(rows)
    names = ("group", "value", "low", "high", "clean")
    return {split: _records(part, *names, name="words") for split, part in parts.items() if len(part)}


def _records(frame: pd.DataFrame, *columns: str, **renamed: str) -> list[dict[str, Any]]:
    """Return rows as dictionaries of some columns (`renamed`: new name -> column), without missing values."""
    renamed |= dict(zip(columns, columns, strict=True))
    return _plain([*frame[[*renamed.values()]].set_axis([*renamed], axis=1).to_dict("records")])


def _plain(value: Any) -> Any:
    """Return a value for JSON: numbers with five digits; None, or left out of dictionaries, if not finite."""
    if isinstance(value, dict):
        return {key: plain for key, entry in value.items() if (plain := _plain(entry)) is not None}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
