"""The paper's printed numbers, in the form of an experiment's tables."""

from pathlib import Path

import numpy as np
import pandas as pd

from robust_flatness.config.networks import ROBUSTBENCH
from robust_flatness.folders import repository
from robust_flatness.tables.frames import Tables, identified, typed
from robust_flatness.tables.records import read_csv
from robust_flatness.training.history import HISTORY

#: Families whose learning rates are drawn.
SCHEDULES = ("learning-rate", "schedule", "cyclic")


def published_directory() -> Path:
    """Return the folder of the printed numbers."""
    return repository() / "paper_tables" / "published"


def read_printed(name: str, directory: Path | None = None) -> pd.DataFrame:
    """Return one of the published tables as it is, e.g. `read_printed("headline")`."""
    return typed(read_csv((directory or published_directory()) / f"{name}.csv"))


def read_published(directory: Path | None = None) -> Tables:
    """Return the paper's printed numbers in the form of an experiment's tables.

    - `models`: the 74 variants at the last checkpoint (flatness at xi 0.5 and 0.003) and, from their
      `early_stop_*` numbers, at checkpoint "best"; the two scaled models and, as family "robustbench", the
      eight RobustBench models, both `derived` (in no correlation). `hessian_max` is the paper's, about four
      times that of the mean loss.
    - `series`: 16 checkpoints read off the figures: of `at` from the figure of flatness throughout training
      (worst-case flatness at xi 0.00075), of the others from the one by epoch, which may show the largest of
      the samples.
    - `history`: the training curves of `at` in thirtieths of the training, and the learning rates of the
      schedules, from their description. Loss landscapes were not printed as numbers.
    """
    directory = directory or published_directory()
    catalogue = read_printed("catalogue", directory).set_index("variant")
    parts = (make(directory, catalogue) for make in (_models, _history, _series))
    return Tables(*parts, landscape=pd.DataFrame())


def _models(directory: Path, catalogue: pd.DataFrame) -> pd.DataFrame:
    variants = read_printed("variants", directory)
    early = [name for name in variants.columns if name.startswith("early_stop_")]
    last = variants.drop(columns=[*early, "published_label"]).assign(checkpoint="last")
    best = variants[["variant", *early]].assign(checkpoint="best")
    best = best.rename(columns=lambda name: name.replace("early_stop_", "test_"))
    hessian = read_printed("hessian", directory)
    hessian = hessian.set_axis(["variant", "test_rerr_aa", "hessian_max", "convexity"], axis=1)
    scaled = read_printed("scale_invariance", directory).rename(columns={"model": "variant"})
    scaled = scaled[scaled["variant"] != "at"].merge(hessian, on="variant").assign(checkpoint="last")
    bench = read_printed("robustbench", directory)
    bench = bench.rename(columns={"robustbench_model": "variant", "published_label": "label"})
    # Without the number in the paper's bibliography.
    bench["label"] = bench["label"].str.replace(r" \[\d+\]$", "", regex=True)
    bench = bench.assign(checkpoint="last", family=ROBUSTBENCH, derived=1.0)
    last = last.merge(hessian.drop(columns="test_rerr_aa"), on="variant", how="left")
    models = pd.concat([last, best, scaled, bench], ignore_index=True)
    settings = {"autoattack": "AutoAttack (standard)", "dataset": "cifar10"}
    settings |= {"avg_flatness_xi": 0.5, "worst_flatness_xi": 0.003, "classes": 10}
    settings |= {"robust_test_examples": 1000, "robust_train_examples": 1000}
    models = models.assign(**settings, epochs=models["variant"].map(catalogue["epochs"]))
    return identified(directory / "variants.csv", models, catalogue)


def _history(directory: Path, catalogue: pd.DataFrame) -> pd.DataFrame:
    curves = _curves(directory, "robust_overfitting")
    curves[["test_rerr", "train_rerr"]] *= 100
    at = catalogue.loc["at"]
    curves["epoch"] = np.round(curves["normalised_epoch"] * at["epochs"]) - 1
    parts = [
        curves.assign(variant="at", epochs=at["epochs"], learning_rate=_learning_rates(at, curves["epoch"]))
    ]
    for slug, variant in catalogue[catalogue["family"].isin(SCHEDULES)].iterrows():
        epoch, epochs = np.arange(variant["epochs"], dtype=float), variant["epochs"]
        columns = {
            "variant": slug,
            "epoch": epoch,
            "epochs": epochs,
            "normalised_epoch": (epoch + 1) / epochs,
        }
        parts.append(pd.DataFrame(columns | {"learning_rate": _learning_rates(variant, epoch)}))
    return pd.concat(parts, ignore_index=True).assign(seed=0).reindex(columns=HISTORY)


def _curves(directory: Path, figure: str) -> pd.DataFrame:
    """The curves of one of the paper's figures, a row for each epoch."""
    curves = read_printed("training_curves", directory)
    curves = curves[curves["figure"] == figure]
    return curves.pivot(index="normalised_epoch", columns="series", values="value").reset_index()


def _learning_rates(variant: pd.Series, epoch: np.ndarray) -> np.ndarray:
    """Learning rate in each epoch (at its middle for cycles), as method and supplement describe it."""
    rate, epoch = variant["learning_rate"], np.asarray(epoch)
    if variant["schedule"] == "constant":
        return np.full(epoch.shape, rate)
    if variant["schedule"] == "cyclic":
        phase = ((epoch + 0.5) / variant["epochs"] * variant["cycles"]) % 1
        return rate * (1 - np.abs(2 * phase - 1))
    drops = np.array([float(drop) for drop in variant["drops"].split("/")])
    return rate * 0.1 ** np.sum(epoch[:, None] + 1e-9 >= drops, axis=1)


def _series(directory: Path, catalogue: pd.DataFrame) -> pd.DataFrame:
    losses = {"test_rloss": "test_rloss_pgd", "train_rloss": "train_rloss_pgd"}
    at = _curves(directory, "flatness_throughout_training").assign(variant="at").rename(columns=losses)
    at = at.rename(columns={"worst_flatness_rloss": "worst_flatness_rloss_0.00075"})
    at["hessian_max"] = 1000 * at.pop("max_hessian_eigenvalue_1e3")
    points = read_printed("flatness_by_epoch", directory)
    points = points[(points["flatness"] == "average") & (points["variant"] != "at")]
    index = points["checkpoint_index"]
    points["normalised_epoch"] = index / index.groupby(points["variant"]).transform("max")
    points = points.rename(columns=losses | {"flatness_rloss": "avg_flatness_rloss"})
    series = pd.concat([at, points[["test_rloss_pgd", "avg_flatness_rloss", "variant", "normalised_epoch"]]])
    series = series.reset_index(drop=True).assign(
        seed=0, epochs=lambda rows: rows["variant"].map(catalogue["epochs"])
    )
    # Every tenth epoch, the last point being the end of the training.
    epoch = np.round(series["normalised_epoch"] * series["epochs"])
    return series.assign(epoch=np.minimum(epoch, series["epochs"] - 1))
