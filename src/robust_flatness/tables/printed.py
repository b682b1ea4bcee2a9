"""The paper's printed numbers, in the form of an experiment's tables."""

from pathlib import Path

import numpy as np
import pandas as pd

from robust_flatness.config.networks import ROBUSTBENCH
from robust_flatness.folders import repository
from robust_flatness.tables.frames import Tables, identified, typed
from robust_flatness.tables.records import read_csv
from robust_flatness.training.history import HISTORY

#: Families whose learning-rate schedules are drawn.
SCHEDULES = ("learning-rate", "schedule", "cyclic")


def published_directory() -> Path:
    """Return the folder of the printed numbers."""
    return repository() / "paper_tables" / "published"


def read_printed(name: str) -> pd.DataFrame:
    """Return one of the published tables unchanged, e.g. `read_printed("headline")`."""
    return typed(read_csv(published_directory() / f"{name}.csv"))


def read_published() -> Tables:
    """Return the paper's printed numbers in the form of an experiment's tables.

    - `models`: the 74 variants at the last checkpoint (flatness at xi 0.5 and 0.003) and, from their
      `early_stop_*` numbers, at checkpoint "best"; scaled copies and RobustBench's models, both `derived`.
      `hessian_max` is the paper's, about four times that of the mean loss.
    - `series`: of `at` from the figure of flatness throughout training (worst-case flatness at xi 0.00075),
      of the others from the one by epoch, which may show the largest of the samples.
    - `history`: the training curves of `at`, and the learning rates of the schedules as described.
    """
    catalogue = read_printed("catalogue").set_index("variant")
    return Tables(_models(catalogue), _history(catalogue), _series(catalogue), landscape=pd.DataFrame())


def _models(catalogue: pd.DataFrame) -> pd.DataFrame:
    variants = read_printed("variants")
    early = [name for name in variants.columns if name.startswith("early_stop_")]
    last = variants.drop(columns=[*early, "published_label"]).assign(checkpoint="last")
    best = variants[["variant", *early]].assign(checkpoint="best")
    best = best.rename(columns=lambda name: name.replace("early_stop_", "test_"))
    hessian = read_printed("hessian")
    hessian = hessian.set_axis(["variant", "test_rerr_aa", "hessian_max", "convexity"], axis=1)
    last = last.merge(hessian.drop(columns="test_rerr_aa"), on="variant", how="left")
    scaled = read_printed("scale_invariance").rename(columns={"model": "variant"})
    scaled = scaled[scaled["variant"] != "at"].merge(hessian, on="variant").assign(checkpoint="last")
    names = {"robustbench_model": "variant", "published_label": "label"}
    bench = read_printed("robustbench").rename(columns=names)
    bench = bench.assign(checkpoint="last", family=ROBUSTBENCH, derived=1.0)
    # Without the number in the paper's bibliography.
    bench["label"] = bench["label"].str.replace(r" \[\d+\]$", "", regex=True)
    models = pd.concat([last, best, scaled, bench], ignore_index=True)
    settings = {"autoattack": "AutoAttack (standard)", "dataset": "cifar10"}
    settings |= {"avg_flatness_xi": 0.5, "worst_flatness_xi": 0.003, "classes": 10}
    settings |= {"robust_test_examples": 1000, "robust_train_examples": 1000}
    models = models.assign(**settings, epochs=models["variant"].map(catalogue["epochs"]))
    return identified(published_directory() / "variants.csv", models, catalogue)


def _curves(figure: str) -> pd.DataFrame:
    """Return the curves of `at` in one of the paper's figures, a row for each epoch."""
    curves = read_printed("training_curves")
    curves = curves[curves["figure"] == figure]
    curves = curves.pivot(index="normalised_epoch", columns="series", values="value").reset_index()
    return curves.assign(variant="at")


def _history(catalogue: pd.DataFrame) -> pd.DataFrame:
    curves = _curves("robust_overfitting")
    curves[["test_rerr", "train_rerr"]] *= 100
    epochs = catalogue.loc[catalogue["family"].isin(SCHEDULES), "epochs"].astype(int)
    rows = [(slug, (epoch + 1) / count) for slug, count in epochs.items() for epoch in range(count)]
    schedules = pd.DataFrame(rows, columns=["variant", "normalised_epoch"])
    history = pd.concat([curves, schedules], ignore_index=True).join(catalogue, on="variant")
    history["epoch"] = np.round(history["normalised_epoch"] * history["epochs"]) - 1
    # The learning rate in each epoch (at its middle for cycles), as method and supplement describe it.
    rate, places = history["learning_rate"], zip(history["epoch"], history["drops"], strict=True)
    passed = [sum(at + 1e-9 >= float(drop) for drop in drops.split("/") if drop) for at, drops in places]
    phase = ((history["epoch"] + 0.5) / history["epochs"] * history["cycles"]) % 1
    cyclic = rate * (1 - np.abs(2 * phase - 1))
    history["learning_rate"] = cyclic.where(history["schedule"] == "cyclic", rate * 0.1 ** np.array(passed))
    return history.assign(seed=0).reindex(columns=HISTORY)


def _series(catalogue: pd.DataFrame) -> pd.DataFrame:
    names = {"test_rloss": "test_rloss_pgd", "train_rloss": "train_rloss_pgd"}
    at = _curves("flatness_throughout_training").rename(columns=names)
    at = at.rename(columns={"worst_flatness_rloss": "worst_flatness_rloss_0.00075"})
    at["hessian_max"] = 1000 * at.pop("max_hessian_eigenvalue_1e3")
    points = read_printed("flatness_by_epoch")
    points = points[(points["flatness"] == "average") & (points["variant"] != "at")]
    points = points.rename(columns=names | {"flatness_rloss": "avg_flatness_rloss"})
    index = points.pop("checkpoint_index")
    points["normalised_epoch"] = index / index.groupby(points["variant"]).transform("max")
    series = pd.concat([at, points.drop(columns="flatness")], ignore_index=True).assign(seed=0)
    series["epochs"] = series["variant"].map(catalogue["epochs"])
    # Every tenth epoch, the last point being the end of the training.
    epoch = np.round(series["normalised_epoch"] * series["epochs"])
    return series.assign(epoch=np.minimum(epoch, series["epochs"] - 1))
