"""The paper's printed numbers, in the form of an experiment's tables."""

from pathlib import Path

import numpy as np
import pandas as pd

from robust_flatness.config.networks import ROBUSTBENCH
from robust_flatness.folders import repository
from robust_flatness.tables.frames import Named, Tables, identified, typed
from robust_flatness.tables.records import read_csv
from robust_flatness.training.history import HISTORY

#: Radius of worst-case flatness in the paper's per-epoch figures.
PUBLISHED_SERIES_XI = 0.00075
#: Families whose learning rates are drawn.
SCHEDULES = ("learning-rate", "schedule", "cyclic")


def published_directory() -> Path:
    """Folder of the printed numbers."""
    return repository() / "paper_tables" / "published"


def read_printed(name: str, directory: Path | None = None) -> pd.DataFrame:
    """One of the published CSVs as it is, e.g. `read_printed("headline")`."""
    return typed(read_csv((directory or published_directory()) / f"{name}.csv"))


def read_published(directory: Path | None = None) -> Tables:
    """The paper's printed numbers in the form of an experiment's tables.

    - `models`: the 74 variants at the last checkpoint (flatness at xi 0.5 and 0.003); their
      `early_stop_*` numbers as rows of checkpoint "best"; the two scaled models and, as family
      "robustbench", the eight RobustBench models, both marked `derived` (not part of
      correlations). `hessian_max` is the paper's, about four times that of the mean loss.
    - `series`: from the figures, 16 checkpoints (worst-case flatness at xi 0.00075); of `at` from
      the figure of flatness throughout training, of the others from the one by epoch, which may
      show the largest of the samples.
    - `history`: the training curves of `at` in thirtieths of the training, and the learning rates
      of the schedules, from their description. `landscape` was not printed as numbers.
    """
    directory = directory or published_directory()
    parts = (make(directory) for make in (_published_models, _published_history, _published_series))
    return Tables(*parts, landscape=pd.DataFrame())


def _published_models(directory: Path) -> pd.DataFrame:
    variants = read_printed("variants", directory)
    early = [name for name in variants.columns if name.startswith("early_stop_")]
    last = variants.drop(columns=[*early, "published_label"]).assign(checkpoint="last")
    renamed = {name: name.replace("early_stop_", "test_") for name in early}
    best = variants[["variant", *early]].rename(columns=renamed).assign(checkpoint="best")

    hessian = read_printed("hessian", directory).set_axis(
        ["variant", "test_rerr_aa", "hessian_max", "convexity"], axis="columns"
    )
    last = last.merge(hessian.drop(columns="test_rerr_aa"), on="variant", how="left")
    scaled = read_printed("scale_invariance", directory).rename(columns={"model": "variant"})
    scaled = scaled.merge(hessian, on="variant")
    scaled = scaled[scaled["variant"] != "at"].assign(checkpoint="last")

    bench = read_printed("robustbench", directory)
    bench = bench.rename(columns={"robustbench_model": "variant", "published_label": "label"})
    # Without the number in the paper's bibliography.
    bench["label"] = bench["label"].str.replace(r" \[\d+\]$", "", regex=True)
    bench = bench.assign(checkpoint="last", family=ROBUSTBENCH, derived=1.0)

    models = pd.concat([last, best, scaled, bench], ignore_index=True)
    for name in ("variant", "checkpoint", "family", "label", "autoattack", "dataset", "robustness_group"):
        models[name] = models[name].fillna("") if name in models else ""
    settings = {"dataset": "cifar10", "autoattack": "AutoAttack (standard)"}
    settings |= {"avg_flatness_xi": 0.5, "worst_flatness_xi": 0.003, "classes": 10}
    settings |= {"robust_test_examples": 1000, "robust_train_examples": 1000}
    catalogue = read_printed("catalogue", directory)
    settings["epochs"] = models["variant"].map(catalogue.set_index("variant")["epochs"])
    known = {row.variant: Named(row.label, row.family, bool(row.derived)) for row in catalogue.itertuples()}
    return identified(directory / "variants.csv", models.assign(**settings), known)


def _published_history(directory: Path) -> pd.DataFrame:
    curves = read_printed("training_curves", directory)
    curves = curves[curves["figure"] == "robust_overfitting"]
    wide = curves.pivot(index="normalised_epoch", columns="series", values="value").reset_index()
    wide[["test_rerr", "train_rerr"]] *= 100
    catalogue = read_printed("catalogue", directory).set_index("variant")
    baseline = catalogue.loc["at"]
    epoch = np.round(wide["normalised_epoch"] * baseline["epochs"]) - 1
    wide = wide.assign(variant="at", epoch=epoch, epochs=baseline["epochs"])
    parts = [wide.assign(learning_rate=_learning_rates(baseline, epoch.to_numpy()))]
    for slug, variant in catalogue[catalogue["family"].isin(SCHEDULES)].iterrows():
        epoch = np.arange(variant["epochs"], dtype=float)
        columns = {"variant": slug, "epoch": epoch, "epochs": variant["epochs"]}
        columns["normalised_epoch"] = (epoch + 1) / variant["epochs"]
        parts.append(pd.DataFrame(columns | {"learning_rate": _learning_rates(variant, epoch)}))
    history = pd.concat(parts, ignore_index=True).assign(seed=0)
    return history.reindex(columns=list(HISTORY))


def _learning_rates(variant: pd.Series, epoch: np.ndarray) -> np.ndarray:
    """Learning rate in each epoch (at its middle for cycles), as method and supplement describe it."""
    rate = variant["learning_rate"]
    if variant["schedule"] == "constant":
        return np.full(epoch.shape, rate)
    if variant["schedule"] == "cyclic":
        phase = ((epoch + 0.5) / variant["epochs"] * variant["cycles"]) % 1
        return rate * (1 - np.abs(2 * phase - 1))
    drops = np.array([float(drop) for drop in variant["drops"].split("/")])
    return rate * 0.1 ** np.sum(epoch[:, None] + 1e-9 >= drops, axis=1)


def _published_series(directory: Path) -> pd.DataFrame:
    worst = f"worst_flatness_rloss_{PUBLISHED_SERIES_XI:g}"
    curves = read_printed("training_curves", directory)
    curves = curves[curves["figure"] == "flatness_throughout_training"]
    baseline = curves.pivot(index="normalised_epoch", columns="series", values="value").reset_index()
    names = {"test_rloss": "test_rloss_pgd", "train_rloss": "train_rloss_pgd"}
    baseline = baseline.rename(columns=names | {"worst_flatness_rloss": worst})
    baseline["hessian_max"] = 1000 * baseline.pop("max_hessian_eigenvalue_1e3")
    epochs_of = read_printed("catalogue", directory).set_index("variant")["epochs"]
    parts = [baseline.assign(variant="at", epochs=epochs_of["at"])]
    points = read_printed("flatness_by_epoch", directory)
    points = points[(points["flatness"] == "average") & (points["variant"] != "at")]
    for slug, group in points.groupby("variant", sort=False):
        share = group["checkpoint_index"] / group["checkpoint_index"].max()
        names = {"test_rloss": "test_rloss_pgd", "flatness_rloss": "avg_flatness_rloss"}
        rows = group[[*names]].rename(columns=names)
        parts.append(rows.assign(variant=slug, epochs=epochs_of[slug], normalised_epoch=share))
    series = pd.concat(parts, ignore_index=True).assign(seed=0)
    # Every tenth epoch, the last point being the end of the training.
    epoch = np.round(series["normalised_epoch"] * series["epochs"])
    return series.assign(epoch=np.minimum(epoch, series["epochs"] - 1))
