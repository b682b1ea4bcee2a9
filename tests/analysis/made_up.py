"""An experiment made up so that every claim of the talk is true in it, to be changed one claim at a time."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from robust_flatness.tables import frames

ROBUST = ("awp", "trades", "mart", "self-supervision", "unlabeled")
REGULARISERS = ("autoaugment", "weight-decay", "label-noise", "entropy-sgd")
OTHERS = ("label-smoothing", "learning-rate", "cyclic", "batch-size", "activation", "adam")
EPOCHS, DROP, SNAPSHOTS = 40, 15, (4, 9, 14, 19, 24, 29, 34, 39)
SEEDS, EXAMPLES = 5, 60


def experiment(seed: int = 0) -> frames.Tables:
    """Seventy-six variants of one latent sharpness, the baseline with five seeds."""
    rng = np.random.default_rng(seed)
    models = _models(rng)
    curves = _history(rng), _series(rng), pd.DataFrame()
    return frames.Tables(models, *curves, _examples(models, rng))


def _models(rng) -> pd.DataFrame:
    families = [family for family in (*ROBUST, *REGULARISERS, *OTHERS) for _ in range(5)]
    reach = {**dict.fromkeys(ROBUST, (0.1, 0.7)), **dict.fromkeys(REGULARISERS, (0.2, 0.8))}
    latent = np.array([rng.uniform(*reach.get(family, (0.3, 1.6))) for family in families])
    frame = pd.DataFrame({"variant": [f"{family}-{number}" for number, family in enumerate(families)]})
    frame["family"], frame["seed"] = families, 0
    baseline = pd.DataFrame({"variant": "at", "family": "at", "seed": range(SEEDS)})
    frame = pd.concat([frame, baseline], ignore_index=True)
    latent = np.concatenate([latent, np.full(SEEDS, 1.0)])
    noise = lambda scale: rng.normal(0, scale, len(frame))  # noqa: E731
    frame = frame.assign(checkpoint="last", label=frame["variant"], derived=0, classes=10, train_rerr_pgd=5.0)
    frame["avg_flatness_xi"], frame["worst_flatness_xi"] = 0.5, 0.003
    frame["test_rloss_pgd"] = 1.2 + 1.6 * latent + noise(0.05)
    frame["train_rloss_pgd"] = 1 + noise(0.05)
    frame["test_rerr_aa"] = hinge(frame["test_rloss_pgd"], math.log(10)) + noise(0.3)
    frame["avg_flatness_rloss"] = latent + noise(0.05)
    frame["train_avg_flatness_rloss"] = latent + noise(0.05)
    frame["avg_flatness_ce"] = frame["worst_flatness_ce"] = 1 + noise(0.3)
    frame["worst_flatness_rloss"] = latent + noise(0.4)
    frame["worst_flatness_rloss_0.00075"] = 0.1 * latent + noise(0.2)
    frame["worst_flatness_rloss_0.005"] = latent + noise(0.2)
    frame["hessian_max"] = 100.0
    gain = np.where(latent > 0.5, 0.8 * (latent - 0.5), 0)
    best = frame.assign(
        checkpoint="best",
        test_rloss_pgd=frame["test_rloss_pgd"] - gain + np.abs(noise(0.01)),
        avg_flatness_rloss=frame["avg_flatness_rloss"] - gain + noise(0.02),
        worst_flatness_rloss=frame["worst_flatness_rloss"] - gain + noise(0.02),
    )
    best["worst_flatness_rloss_0.00075"] -= 0.1 * gain
    at = frame[frame["variant"] == "at"].iloc[:1].assign(derived=1)
    half = at.assign(variant="at-scaled-0.5", hessian_max=400.0)
    double = at.assign(variant="at-scaled-2", hessian_max=25.0)
    return pd.concat([frame, best, half, double], ignore_index=True)


def hinge(rloss, at: float, below: float = 15, above: float = 1):
    return 40 + below * np.minimum(rloss, at) + above * np.maximum(rloss - at, 0)


def late(epoch):
    """The share of the training after the first drop of the rate that is over."""
    return np.maximum(epoch - DROP + 1, 0) / (EPOCHS - DROP)


def schedule(variant: str, seed: int, epoch: np.ndarray, epochs: int, drop: int) -> pd.DataFrame:
    """The learning rate of a training at some of its epochs."""
    frame = pd.DataFrame({"variant": variant, "seed": seed, "epoch": epoch, "epochs": epochs})
    rate = np.where(epoch < drop, 0.1, 0.01)
    return frame.assign(normalised_epoch=(epoch + 1) / epochs, learning_rate=rate)


def _curves(rng, variant: str, seed: int, epoch: np.ndarray, start: float, rises: dict) -> pd.DataFrame:
    """Measures of a training that change by `rises` after the first drop, with noise."""
    frame = schedule(variant, seed, epoch, EPOCHS, DROP)
    noise = {name: rng.normal(0, 0.02, len(epoch)) for name in rises}
    return frame.assign(**{name: start + rise * (late(epoch) + noise[name]) for name, rise in rises.items()})


def _history(rng) -> pd.DataFrame:
    rises = {"test_rloss": 0.5, "test_rerr": 4, "train_rloss": -0.5, "train_rerr": -20}
    rows = [_curves(rng, "at", seed, np.arange(EPOCHS), 2, rises) for seed in range(SEEDS)]
    return pd.concat(rows, ignore_index=True)


def _series(rng) -> pd.DataFrame:
    names = ("test_rloss_pgd", "avg_flatness_rloss", "worst_flatness_rloss", "hessian_max")
    trainings = [*(("at", seed, 0.5) for seed in range(SEEDS)), ("label-smoothing-0.3", 0, 0.1)]
    epochs = np.array(SNAPSHOTS)
    rows = [_curves(rng, slug, seed, epochs, 1, dict.fromkeys(names, rise)) for slug, seed, rise in trainings]
    return pd.concat(rows, ignore_index=True)


def _examples(models: pd.DataFrame, rng) -> pd.DataFrame:
    """Losses and errors of single examples: of test examples at both checkpoints, with the means of the
    table; of the baseline also before the first drop and at the end, by an attack of their own."""
    rows = []
    for (variant, seed), group in models[models["derived"] == 0].groupby(["variant", "seed"], sort=False):
        own = rng.gamma(2, 0.5, EXAMPLES)
        means = {("test", row.checkpoint): row.test_rloss_pgd for row in group.itertuples()}
        if variant == "at":
            means |= {("test", "epoch-014"): 2.0, ("test", "epoch-019"): 1.9, ("test", "epoch-039"): 2.5}
            means |= {("train", "epoch-014"): 1.5, ("train", "epoch-039"): 1.0}
        for (split, checkpoint), mean in means.items():
            loss = own - own.mean() + mean + rng.normal(0, 0.05, EXAMPLES)
            rows.append(of_examples(variant, seed, checkpoint, split, loss, loss > 1.8))
    return pd.concat(rows, ignore_index=True)


def of_examples(variant, seed, checkpoint, split, loss, error) -> pd.DataFrame:
    """Values of single examples at one checkpoint."""
    columns = {"variant": variant, "seed": seed, "checkpoint": checkpoint, "split": split, "rerr_aa": np.nan}
    columns |= {"example": range(len(loss)), "rloss": loss, "rerr_pgd": error.astype(float)}
    return pd.DataFrame(columns)


def changed(tables, where="seed >= 0", **columns):
    """The tables with columns of `models` changed, in the rows `where` (a query)."""
    models = tables.models.copy()
    rows = models.eval(where)
    for name, value in columns.items():
        models.loc[rows, name] = value(models[rows]) if callable(value) else value
    return replace(tables, models=models)


def noise(frame, scale=1.0, seed=1):
    return np.random.default_rng(seed).normal(1, scale, len(frame))


def per_seed(tables, table, measure, changes):
    """A curve of the baseline that changes by `changes[seed]` after the first drop, without noise."""
    frame = getattr(tables, table).copy()
    for seed, change in enumerate(changes):
        rows = (frame["variant"] == "at") & (frame["seed"] == seed)
        frame.loc[rows, measure] = 1 + change * late(frame.loc[rows, "epoch"])
    return replace(tables, **{table: frame})


def shifted(tables, split, changes):
    """Losses and errors of the baseline's examples, at the end moved by `changes[seed]`."""
    examples, end = tables.examples.copy(), {"test": "last", "train": "epoch-039"}[split]
    rows = (examples[["variant", "checkpoint", "split"]] == ["at", end, split]).all(axis=1)
    for seed, change in enumerate(changes):
        examples.loc[rows & examples["seed"].eq(seed), "rloss"] += change
        examples["rerr_pgd"] = (examples["rloss"] > 1.8).astype(float)
    return replace(tables, examples=examples)


def only_seeds(tables, seeds):
    """The tables with fewer seeds of the baseline."""
    names = ("models", "history", "series", "examples")
    return replace(tables, **{name: getattr(tables, name).query(f"seed < {seeds}") for name in names})


def only(tables, where):
    """The tables with the rows of `models` for which a query holds."""
    return replace(tables, models=tables.models.query(where))


def without(tables, *columns):
    return replace(tables, models=tables.models.drop(columns=[*columns]))
