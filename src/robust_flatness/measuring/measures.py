"""Measures of checkpoints in the columns of the results tables.

Each function takes a checkpoint and the prepared data and returns `Measured`: flat `values`, in
the published column names (errors in per cent, losses in nats), and `details`, the distribution
behind them. All variants are measured with the same examples, starts and directions.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from robust_flatness.attacks import PGD
from robust_flatness.config import (
    AttackSpec,
    FlatnessSpec,
    HessianSpec,
    LandscapeSpec,
    RobustnessSpec,
    SeriesSpec,
)
from robust_flatness.data import Dataset
from robust_flatness.evaluation import evaluate_robustness
from robust_flatness.flatness import average_flatness, hessian_eigenvalues, loss_landscape, worst_flatness
from robust_flatness.models.checkpoint import Checkpoint
from robust_flatness.seeding import derive_seed

SPLITS = ("test", "train")


@dataclass
class Measured:
    """`values` go into the results table; `details` stay in the measure's file."""

    values: dict[str, float | int | str] = field(default_factory=dict)
    details: dict = field(default_factory=dict)


def pgd(spec: AttackSpec, precision: str) -> PGD:
    """The attack of a spec."""
    return PGD(spec.epsilon, spec.step_size, spec.steps, spec.restarts, precision=precision)


def robustness(
    checkpoint: Checkpoint,
    dataset: Dataset,
    spec: RobustnessSpec,
    seed: int,
    device: str = "cpu",
    state: Path | None = None,
) -> Measured:
    """Err, CE, RErr and RLoss on the first test and training examples.

    `state` is a directory in which AutoAttack keeps what it has finished, to go on from there
    after an interruption.
    """
    measured = Measured()
    for split in SPLITS:
        count = getattr(spec, f"{split}_examples")
        x, y = dataset.images(split, count, device), dataset.labels(split, count, device)
        result = evaluate_robustness(
            checkpoint.inference, x, y,
            attack=pgd(spec.attack, spec.precision),
            autoattack=spec.autoattack or False,
            batch_size=spec.batch_size,
            seed=derive_seed(seed, "robustness", split),
            state_path=state / f"autoattack-{checkpoint.name}-{split}" if state and spec.autoattack else None,
        )  # fmt: skip
        clean_count = getattr(spec, f"clean_{split}_examples")
        clean = evaluate_robustness(
            checkpoint.inference,
            dataset.images(split, clean_count, device),
            dataset.labels(split, clean_count, device),
            attack=None, autoattack=False, batch_size=spec.batch_size, seed=0,
        )  # fmt: skip
        measured.values |= {
            f"{split}_err": 100 * clean.err,
            f"{split}_ce": clean.ce,
            f"{split}_rerr_pgd": 100 * result.rerr_pgd,
            f"{split}_rloss_pgd": result.rloss_pgd,
            f"robust_{split}_examples": count,
            f"clean_{split}_examples": clean_count,
        }
        if spec.autoattack:
            measured.values |= {
                f"{split}_rerr_aa": 100 * result.rerr_aa,
                f"{split}_rloss_aa": result.rloss_aa,
                "autoattack": spec.autoattack.description,
            }
    return measured


def flatness(
    checkpoint: Checkpoint,
    dataset: Dataset,
    spec: FlatnessSpec | SeriesSpec,
    seed: int,
    device: str = "cpu",
    *,
    splits: tuple[str, ...] = SPLITS,
    clean: bool = True,
    test_rloss: float | None = None,
) -> Measured:
    """Average- and worst-case flatness in RLoss and, if `clean`, in CE.

    `test_rloss` is RLoss(w) of the test examples, where it is known, of the same attack.

    The main radius on every split; the other radii, for the ablation, on test examples and not
    for the early-stopped checkpoint.
    """
    measured = Measured(
        {"avg_flatness_xi": spec.average.xi[0], "worst_flatness_xi": spec.worst.xi[0]}
        | {f"flatness_{split}_examples": getattr(spec, f"{split}_examples") for split in splits}
    )
    ablation = checkpoint.name != "best"
    if test_rloss is not None:
        single = test_rloss if spec.attack.restarts == 1 else None
        measured.details["reference_test_rloss"] = {"reference": test_rloss, "reference_single": single}
    for split, case, attacked, index in _flatness_jobs(spec, splits, clean, ablation):
        part = getattr(spec, case)
        count = getattr(spec, f"{split}_examples")
        x, y = dataset.images(split, count, device), dataset.labels(split, count, device)
        xi = part.xi[index]
        column = flatness_column(split, case, attacked, None if index == 0 else xi)
        reference = f"reference_{split}_{'rloss' if attacked else 'ce'}"
        known = measured.details.setdefault(reference, {})
        common = {
            "attack": pgd(spec.attack, spec.precision) if attacked else None,
            "xi": xi,
            "batch_size": part.batch_size,
            "scope": part.scope,
            "precision": spec.precision,
            "seed": derive_seed(seed, "flatness", case),
            "weight_bound": checkpoint.metadata.weight_bound,
            "reference": known.get("reference"),
        }
        if case == "average":
            result = average_flatness(
                checkpoint.inference, x, y,
                samples=spec.average.samples if attacked else spec.average.clean_samples,
                reference_single=known.get("reference_single"), **common,
            )  # fmt: skip
            measured.values[f"{column}_std"] = result.std
            measured.values[f"{column}_se"] = result.standard_error
        else:
            result = worst_flatness(
                checkpoint.inference, x, y,
                steps=part.steps, restarts=part.restarts, weight_step=part.weight_step, **common,
            )  # fmt: skip
        measured.values[column] = result.value
        measured.details[column] = {"perturbed": result.perturbed.tolist(), "xi": xi}
        known["reference"] = result.reference
        if case == "average":
            known["reference_single"] = result.reference_single
    return measured


def flatness_column(split: str, case: str, attacked: bool, xi: float | None = None) -> str:
    """Name of a flatness column; `xi` for a radius other than the main one.

    >>> flatness_column("train", "average", True), flatness_column("test", "worst", True, 0.00075)
    ('train_avg_flatness_rloss', 'worst_flatness_rloss_0.00075')
    """
    prefix = "train_" if split == "train" else ""
    loss = "rloss" if attacked else "ce"
    suffix = "" if xi is None else f"_{xi:g}"
    return f"{prefix}{'avg' if case == 'average' else 'worst'}_flatness_{loss}{suffix}"


def _flatness_jobs(
    spec: FlatnessSpec | SeriesSpec, splits: tuple[str, ...], clean: bool, ablation: bool
) -> Iterator[tuple[str, str, bool, int]]:
    """(split, case, attacked, index of the radius), main radii first."""
    for case in ("average", "worst"):
        for attacked in (True, False) if clean else (True,):
            for split in splits:
                yield split, case, attacked, 0
        for index in range(1, len(getattr(spec, case).xi) if ablation else 1):
            yield "test", case, True, index


def hessian(
    checkpoint: Checkpoint, dataset: Dataset, spec: HessianSpec, seed: int, device: str = "cpu"
) -> Measured:
    """Extreme eigenvalues of the Hessian of the mean clean loss on the early-stopping images."""
    x, y = dataset.images("early_stopping", device=device), dataset.labels("early_stopping", device=device)
    result = hessian_eigenvalues(
        checkpoint.model, x, y,
        k=spec.eigenvalues, tolerance=spec.tolerance, batch_size=spec.batch_size,
        seed=derive_seed(seed, "hessian"),
    )  # fmt: skip
    return Measured(
        {
            "hessian_max": result.largest,
            "hessian_min": result.smallest,
            "convexity": result.convexity,
            "hessian_examples": len(x),
        }
    )


def landscape(
    checkpoint: Checkpoint, dataset: Dataset, spec: LandscapeSpec, seed: int, device: str = "cpu"
) -> Measured:
    """RLoss along random, adversarial and Hessian directions; rows in `details["curves"]`."""
    x, y = dataset.images("test", spec.examples, device), dataset.labels("test", spec.examples, device)
    curves = loss_landscape(
        checkpoint.model, x, y, spec=spec, attack=pgd(spec.attack, spec.precision),
        held_out=(
            dataset.images("early_stopping", device=device),
            dataset.labels("early_stopping", device=device),
        ),
        seed=derive_seed(seed, "landscape"), weight_bound=checkpoint.metadata.weight_bound,
    )  # fmt: skip
    return Measured({"landscape_examples": len(x)}, {"curves": curves})


def snapshot(
    checkpoint: Checkpoint, dataset: Dataset, spec: SeriesSpec, seed: int, device: str = "cpu"
) -> dict[str, float]:
    """Loss, flatness and largest eigenvalue of one snapshot: a row of the series."""
    robust = robustness(
        checkpoint, dataset,
        RobustnessSpec(
            attack=spec.attack, autoattack=None,
            test_examples=spec.test_examples, train_examples=spec.train_examples,
            clean_test_examples=spec.test_examples, clean_train_examples=spec.train_examples,
            batch_size=spec.worst.batch_size, precision=spec.precision,
        ),
        seed, device,
    ).values  # fmt: skip
    values = flatness(
        checkpoint, dataset, spec, seed, device,
        splits=("test",), clean=False, test_rloss=robust["test_rloss_pgd"],
    ).values  # fmt: skip
    row = {key: robust[key] for key in ("test_rloss_pgd", "train_rloss_pgd", "test_rerr_pgd")}
    row |= {key: value for key, value in values.items() if "flatness_rloss" in key}
    if spec.hessian is not None:
        row["hessian_max"] = hessian(checkpoint, dataset, spec.hessian, seed, device).values["hessian_max"]
    return row
