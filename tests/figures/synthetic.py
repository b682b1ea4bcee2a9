"""Made-up tables of an experiment in the columns of a real one, for drawing without training.

Values are the published ones, shrunk and shaken, so that every figure has something to show.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from robust_flatness.config.networks import ROBUSTBENCH
from robust_flatness.tables import frames, importing, printed, schema

EPOCHS = 60
WORST = {0.003: "", 0.00075: "_0.00075", 0.001: "_0.001", 0.005: "_0.005"}
AVERAGE = {0.5: "", 0.25: "_0.25", 0.75: "_0.75", 1.0: "_1"}
LANDSCAPES = ("at", "at-scaled-0.5", "at-scaled-2", "awp-0.01", "trades-6", "unlabeled")


def write(directory: Path, seeds: int = 1, variants: tuple[str, ...] | None = None) -> None:
    """Write the four tables of an experiment under `directory`."""
    published = printed.read_published()
    models = published.models[published.models["family"] != ROBUSTBENCH]
    if variants is not None:
        models = models[models["variant"].isin(variants)]
    parts = [_tables(models, seed) for seed in range(seeds)]
    tables = frames.Tables(*(pd.concat(group, ignore_index=True) for group in zip(*parts, strict=True)))
    importing.write_tables(tables, directory)


def _tables(published: pd.DataFrame, seed: int):
    rng = np.random.default_rng(seed)
    last = published[published["checkpoint"] == "last"].reset_index(drop=True)
    at = last[last["variant"] == "at"].iloc[0]
    scaled = last["derived"] == 1
    for name in schema.ERRORS + schema.LOSSES:
        last.loc[scaled, name] = at[name]
    best = published[(published["checkpoint"] == "best") & (published["derived"] == 0)]
    improved = best.set_index("variant")["test_rloss_pgd"].reindex(last["variant"]).to_numpy()
    improved = np.where(np.isnan(improved), 1.5, improved)
    frames = [
        _measured(last, "last", rng),
        _measured(last.assign(test_rloss_pgd=improved), "best", rng, 0.5),
    ]
    models = pd.concat(frames, ignore_index=True)
    models["seed"] = seed
    models["dataset"] = "digits"
    models["robustness_group"] = ""
    return models, _history(models, rng, seed), _series(models, rng, seed), _landscape(models, rng, seed)


def _measured(frame: pd.DataFrame, checkpoint: str, rng, sharpness: float = 1.0) -> pd.DataFrame:
    frame = frame.assign(checkpoint=checkpoint, epochs=EPOCHS, epoch=EPOCHS - 1)
    shake = lambda scale=0.08: np.exp(rng.normal(0, scale, len(frame)))  # noqa: E731
    for name in (*schema.ERRORS, *schema.LOSSES):
        frame[name] = (0.6 * frame[name] * shake()).round(4)
    flat = {
        "avg_flatness_rloss": frame["avg_flatness_rloss"],
        "worst_flatness_rloss": frame["worst_flatness_rloss"],
        "avg_flatness_ce": frame["avg_flatness_ce"].fillna(0.2),
        "worst_flatness_ce": frame["worst_flatness_ce"].fillna(10),
    }
    for name, value in flat.items():
        for prefix, factor in (("", 1.0), ("train_", 0.8)):
            for xi, suffix in (AVERAGE if name.startswith("avg") else WORST).items():
                main = 0.5 if name.startswith("avg") else 0.003
                column = f"{prefix}{name}{suffix}"
                frame[column] = (factor * sharpness * (value + 0.05) * (xi / main) ** 1.3 * shake()).round(4)
                if name.startswith("avg"):
                    frame[f"{column}_std"] = (0.2 * frame[column] * shake(0.3)).round(4)
                    frame[f"{column}_se"] = frame[f"{column}_std"] / math.sqrt(10)
    frame["hessian_max"] = (frame["hessian_max"] / 4).round(2)
    frame["hessian_min"] = -frame["convexity"] * frame["hessian_max"]
    frame["autoattack"] = "AutoAttack (reduced: apgd-ce+apgd-t, 10 iterations, 1 restart)"
    frame["robust_test_examples"] = 200
    return frame.drop(columns=["robust_train_examples"])


def _history(models: pd.DataFrame, rng, seed: int) -> pd.DataFrame:
    parts = []
    for row in models[(models["checkpoint"] == "last") & (models["derived"] == 0)].itertuples():
        spec = frames.catalogue()[row.variant]
        epochs = max(1, round(EPOCHS * eval_fraction(spec.scale.get("epochs", 1))))
        epoch = np.arange(epochs)
        share = (epoch + 1) / epochs
        late = np.clip((share - 0.4) / 0.3, 0, 1)
        train = 1.9 - 0.8 * share - 0.8 * late + rng.normal(0, 0.01, epochs)
        test = 1.8 - 0.5 * np.minimum(share / 0.4, 1) + (row.test_rloss_pgd - 1.3) * late
        test = test + rng.normal(0, 0.03, epochs)
        snapshot = (epoch % max(1, epochs // 12) == 0) | (epoch == epochs - 1)
        part = {
            **{"variant": row.variant, "seed": seed, "epoch": epoch, "epochs": epochs},
            **{"normalised_epoch": share, "learning_rate": rates(row.variant, share)},
            **{"train_loss": train, "train_rloss": train, "train_rerr": 40 * train.clip(0)},
            "test_rloss": np.where(snapshot, test, np.nan),
            "test_rerr": np.where(snapshot, 50 + 8 * late + rng.normal(0, 1, epochs), np.nan),
            "test_correct_rloss": np.where(snapshot, 0.7 * test, np.nan),
            "test_incorrect_rloss": np.where(snapshot, 2 * test, np.nan),
            "early_stopping_rloss": np.where(snapshot, test, np.nan),
            "early_stopping_rerr": np.where(snapshot, 48 + 9 * late, np.nan),
        }
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def rates(variant: str, share: np.ndarray) -> np.ndarray:
    """The published learning rates where a variant has its own, else the baseline's."""
    history = printed.read_published().history
    rows = history[history["variant"] == (variant if variant in set(history["variant"]) else "at")]
    return np.interp(share, rows["normalised_epoch"], rows["learning_rate"])


def eval_fraction(value) -> float:
    """A factor of the catalogue as a number."""
    above, _, below = str(value).partition("/")
    return float(above) / float(below or 1)


def _series(models: pd.DataFrame, rng, seed: int) -> pd.DataFrame:
    named = {*printed.read_published().series["variant"]}
    parts = []
    for row in models[(models["checkpoint"] == "last") & models["variant"].isin(named)].itertuples():
        epoch = np.array([*range(0, EPOCHS, 5), EPOCHS - 1])
        share = (epoch + 1) / EPOCHS
        late = np.clip((share - 0.4) / 0.3, 0, 1)
        flat = 0.2 + (row.avg_flatness_rloss - 0.2) * late + rng.normal(0, 0.02, len(epoch))
        part = {
            **{"variant": row.variant, "seed": seed, "epoch": epoch, "normalised_epoch": share},
            "test_rloss_pgd": 1.3 + (row.test_rloss_pgd - 1.3) * late + rng.normal(0, 0.03, len(epoch)),
            "train_rloss_pgd": 1.8 - 1.6 * share,
            "test_rerr_pgd": 50 + 8 * late,
            "avg_flatness_rloss": flat,
            "avg_flatness_rloss_se": 0.05,
            "worst_flatness_rloss": 4 * flat,
            "worst_flatness_rloss_0.00075": 2 * flat,
            "hessian_max": 30 + 400 * late if row.variant == "at" else np.nan,
        }
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def _landscape(models: pd.DataFrame, rng, seed: int) -> pd.DataFrame:
    scales = {"random": 0.5, "adversarial": 0.025, "hessian": 0.5}
    s = np.linspace(-1, 1, 51)
    parts = []
    for row in models[(models["checkpoint"] == "last") & models["variant"].isin(LANDSCAPES)].itertuples():
        for direction, scale in scales.items():
            for normalisation in ("layer", "filter"):
                steep = row.avg_flatness_rloss * (1.0 if normalisation == "layer" else 0.7)
                part = {
                    **{"variant": row.variant, "seed": seed, "checkpoint": "last", "direction": direction},
                    **{"normalisation": normalisation, "scale": scale, "s": s},
                    "rloss": row.test_rloss_pgd + steep * s**2 + rng.normal(0, 0.01, len(s)),
                    "rloss_std": 0.1 * steep * s**2 if direction == "random" else np.nan,
                }
                parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)
