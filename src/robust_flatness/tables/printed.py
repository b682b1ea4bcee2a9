"""The paper's printed numbers, in the form of an experiment's tables."""

from pathlib import Path

import numpy as np
import pandas as pd

from robust_flatness.config import VariantSpec, parse_number
from robust_flatness.tables.frames import (
    Tables,
    catalogue,
    empty,
    identified,
    parse_numbers,
    read_rows,
    repository,
)
from robust_flatness.tables.schema import HISTORY, LANDSCAPE, ROBUSTBENCH, SERIES, WORDS

#: Training of the AT baseline in the paper.
PUBLISHED_EPOCHS = 150
PUBLISHED_LEARNING_RATE = 0.05
#: Radius of worst-case flatness in the paper's per-epoch figures.
PUBLISHED_SERIES_XI = 0.00075


def published_directory() -> Path:
    """Folder of the printed numbers."""
    return repository() / "paper_tables" / "published"


def read_printed(name: str, directory: Path | None = None) -> pd.DataFrame:
    """One of the published CSVs as it is, e.g. `read_printed("headline")`."""
    path = (directory or published_directory()) / f"{name}.csv"
    header, rows = read_rows(path)
    words = {
        *("variant", "model", "published_label", "robustness_group", "figure", "series"),
        *("flatness", "robustbench_model"),
    }
    columns = [*zip(*rows, strict=True)]
    return pd.DataFrame(
        {
            column: pd.Series(cells, dtype=object)
            if column in words
            else pd.Series(parse_numbers(path, column, [*cells], [row[0] for row in rows]), dtype=float)
            for column, cells in zip(header, columns, strict=True)
        }
    )


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
    return Tables(
        models=_published_models(directory),
        history=_published_history(directory),
        series=_published_series(directory),
        landscape=empty(LANDSCAPE),
    )


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
    for name in WORDS:
        models[name] = models[name].fillna("") if name in models else ""
    models["dataset"] = "cifar10"
    models["autoattack"] = "AutoAttack (standard)"
    settings = {
        **{"avg_flatness_xi": 0.5, "worst_flatness_xi": 0.003, "classes": 10},
        **{"robust_test_examples": 1000, "robust_train_examples": 1000},
    }
    return identified(directory / "variants.csv", models.assign(**settings))


def _published_history(directory: Path) -> pd.DataFrame:
    curves = read_printed("training_curves", directory)
    curves = curves[curves["figure"] == "robust_overfitting"]
    wide = curves.pivot(index="normalised_epoch", columns="series", values="value").reset_index()
    wide[["test_rerr", "train_rerr"]] *= 100
    wide["epochs"] = PUBLISHED_EPOCHS
    wide["epoch"] = np.round(wide["normalised_epoch"] * PUBLISHED_EPOCHS) - 1
    wide["variant"] = "at"
    wide["learning_rate"] = _learning_rates(catalogue()["at"], wide["epoch"].to_numpy(), PUBLISHED_EPOCHS)
    parts = [wide]
    for slug, variant in catalogue().items():
        if variant.family in ("learning-rate", "schedule", "cyclic"):
            epochs = round(PUBLISHED_EPOCHS * float(variant.scale.get("epochs", 1)))
            epoch = np.arange(epochs, dtype=float)
            columns = {
                **{"variant": slug, "epoch": epoch, "epochs": epochs},
                "normalised_epoch": (epoch + 1) / epochs,
                "learning_rate": _learning_rates(variant, epoch, epochs),
            }
            parts.append(pd.DataFrame(columns))
    history = pd.concat(parts, ignore_index=True).assign(seed=0)
    return history.reindex(columns=list(HISTORY))


def _learning_rates(variant: VariantSpec, epoch: np.ndarray, epochs: int) -> np.ndarray:
    """Learning rate in each epoch (at its middle for cycles), as method and supplement describe it."""
    rate = PUBLISHED_LEARNING_RATE * float(variant.scale.get("learning_rate", 1))
    schedule = variant.set.get("schedule", "multi-step")
    if schedule == "constant":
        return np.full(epoch.shape, rate)
    if schedule == "cyclic":
        phase = ((epoch + 0.5) / epochs * variant.set["cycles"]) % 1
        return rate * (1 - np.abs(2 * phase - 1))
    milestones = np.array(
        [parse_number(value) for value in variant.set.get("milestones", (60 / 150, 90 / 150, 120 / 150))]
    )
    return rate * 0.1 ** np.sum(epoch[:, None] + 1e-9 >= np.round(milestones * epochs), axis=1)


def _published_series(directory: Path) -> pd.DataFrame:
    worst = f"worst_flatness_rloss_{PUBLISHED_SERIES_XI:g}"
    curves = read_printed("training_curves", directory)
    curves = curves[curves["figure"] == "flatness_throughout_training"]
    baseline = curves.pivot(index="normalised_epoch", columns="series", values="value").reset_index()
    baseline = baseline.rename(
        columns={
            **{"test_rloss": "test_rloss_pgd", "train_rloss": "train_rloss_pgd"},
            "worst_flatness_rloss": worst,
        }
    )
    baseline["hessian_max"] = 1000 * baseline.pop("max_hessian_eigenvalue_1e3")
    parts = [baseline.assign(variant="at", epochs=PUBLISHED_EPOCHS)]
    points = read_printed("flatness_by_epoch", directory)
    points = points[(points["flatness"] == "average") & (points["variant"] != "at")]
    for slug, group in points.groupby("variant", sort=False):
        epochs = round(PUBLISHED_EPOCHS * float(catalogue()[slug].scale.get("epochs", 1)))
        columns = {
            **{"variant": slug, "epochs": epochs},
            "normalised_epoch": (group["checkpoint_index"] / group["checkpoint_index"].max()).to_numpy(),
            "test_rloss_pgd": group["test_rloss"].to_numpy(),
            "avg_flatness_rloss": group["flatness_rloss"].to_numpy(),
        }
        parts.append(pd.DataFrame(columns))
    series = pd.concat(parts, ignore_index=True).assign(seed=0)
    # Every tenth epoch, the last point being the end of the training.
    series["epoch"] = np.minimum(
        np.round(series["normalised_epoch"] * series["epochs"]), series["epochs"] - 1
    )
    return series.reindex(columns=[*SERIES, worst])
