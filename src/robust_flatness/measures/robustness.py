"""Errors and losses, clean, by PGD and by AutoAttack: the block `robustness`."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_flatness.config import measures as config
from robust_flatness.config.data import DataSpec
from robust_flatness.config.measures import AttackSpec, AutoAttackSpec
from robust_flatness.config.values import Count, Precision
from robust_flatness.measures.base import CHECKPOINTS, MORE_ROBUST, SPLITS, Measure, Metric, Record
from robust_flatness.measures.cost import attack_passes, autoattack_passes
from robust_flatness.measures.examples import BATCH_SIZE, Examples, ball, pgd, splits_of
from robust_flatness.runtime.progress import stage
from robust_flatness.seeding import derive_seed, generator

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_flatness.attacks import PGD, Found
    from robust_flatness.attacks.pgd import Loss
    from robust_flatness.network import Network


class RobustnessSettings(config.MeasureSettings):
    """Robustness of a checkpoint: PGD for RLoss, AutoAttack for RErr, clean error and loss."""

    attack: AttackSpec = config.attack_defaults(steps=20, restarts=10)
    autoattack: AutoAttackSpec | None = AutoAttackSpec()
    test_examples: config.TestExamples
    train_examples: config.TrainExamples
    """0: the training split is left out."""
    clean_test_examples: config.CleanTestExamples
    clean_train_examples: config.CleanTrainExamples
    batch_size: Count = BATCH_SIZE
    precision: Precision = "float32"

    def problems(self, data: DataSpec) -> Iterator[str]:
        yield from super().problems(data)
        classes, budget = data.known_classes, self.autoattack
        if not classes or budget is None:
            return
        if (budget.target_classes or 0) >= classes:
            yield f"autoattack.target_classes: {budget.target_classes} given; at most {classes - 1} possible"
        if "apgd-t" in budget.attacks and classes < config.LEAST_CLASSES:
            yield (
                f"autoattack.attacks: apgd-t needs at least {config.LEAST_CLASSES} classes for its loss "
                f"(DLR), the data have {classes}; write version: reduced, attacks: [apgd-ce, fab-t, square]"
            )


def _metric(name: str, label: str, kind: Any, direction: str = MORE_ROBUST, of: str = "robust") -> Metric:
    return Metric(name, label, kind, direction, splits=SPLITS, count=f"{of}_{{split}}_examples")


METRICS = {
    "err": _metric("err", "Err (%)", "error", "", "clean"),
    "rerr_pgd": _metric("rerr_pgd", "RErr, PGD (%)", "error"),
    "rerr_aa": _metric("rerr_aa", "RErr, AutoAttack (%)", "error"),
    "ce": _metric("ce", "CE", "loss", "", "clean"),
    "rloss_pgd": _metric("rloss_pgd", "RLoss", "loss"),
    "rloss_aa": _metric("rloss_aa", "CE on AutoAttack's examples", "loss"),
}


def _mean(found: "Found | None", name: str) -> float | None:
    return None if found is None else getattr(found, name).double().mean().item()


@dataclass(frozen=True)
class Robustness:
    """Errors in [0, 1], losses in nats, and the values of each example; None for an attack that was not run.

    A robust error is a misclassification of the clean input or of any iterate of the attack.
    """

    clean: "Found"
    pgd: "Found | None" = None
    autoattack: "Found | None" = None

    err = property(lambda self: _mean(self.clean, "error"))
    ce = property(lambda self: _mean(self.clean, "loss"))
    rerr_pgd = property(lambda self: _mean(self.pgd, "error"))
    rloss_pgd = property(lambda self: _mean(self.pgd, "loss"))
    rerr_aa = property(lambda self: _mean(self.autoattack, "error"))
    rloss_aa = property(lambda self: _mean(self.autoattack, "loss"))


def evaluate_robustness(
    model: "nn.Module", x: "Tensor", y: "Tensor", *, attack: "PGD | None",
    autoattack: bool | AutoAttackSpec = True, batch_size: int = BATCH_SIZE, seed: int = 0,
    state_path: Path | None = None, loss: "Loss | None" = None,
) -> Robustness:  # fmt: skip
    """Return Err and CE of clean examples, RErr and RLoss by PGD, and RErr by AutoAttack.

    Parameters
    ----------
    model
        Inputs [n, ...] in [0, 1] to logits [n, K]; not changed.
    x, y
        Inputs and labels.
    attack
        PGD; None for clean error and loss only.
    autoattack
        True: standard version; settings: another budget; False: none. Its ball is that of `attack`.
    batch_size
        Examples per pass.
    seed
        Random seed of all random starts.
    state_path
        File in which AutoAttack stores finished attacks (see `run_autoattack`).
    loss
        As in `average_flatness`. PGD maximises this loss; AutoAttack maximises its own losses, and `rloss_aa`
        is this loss on AutoAttack's examples.

    Raises
    ------
    ConfigError
        If model or labels cannot be used; `NonFiniteError` if a logit is NaN or infinite; `ValueError` if
        AutoAttack is requested without `attack`, which defines its radius.
    """
    from robust_flatness.attacks.autoattack import check_autoattack, run_autoattack
    from robust_flatness.attacks.found import Found, better
    from robust_flatness.attacks.pgd import cross_entropy
    from robust_flatness.measures.result import checked, clean_logits
    from robust_flatness.runtime.isolation import isolated

    if autoattack and attack is None:
        raise ValueError("attack: None given, but autoattack takes its radius from it")
    with isolated():
        net, x, y = checked(model, x, y, loss)
        criterion = loss or cross_entropy
        budget = AutoAttackSpec() if autoattack is True else autoattack or None
        if budget is not None:
            check_autoattack(net, x, budget, attack.norm)
        logits = clean_logits(net, x, batch_size)
        clean = Found(x, criterion(logits, y), logits.argmax(dim=1) != y)
        if attack is None:
            return Robustness(clean)
        with stage("RLoss and RErr by PGD"):
            found = attack(net, x, y, batch_size, generator(seed, "pgd"), criterion)
        by_pgd = better(clean, found)
        if budget is None:
            return Robustness(clean, by_pgd)
        with stage("RErr by AutoAttack"):
            given = (attack.epsilon, budget, batch_size, seed, state_path, found.x_adv, attack.norm)
            result = run_autoattack(net, x, y, *given)
        # an iterate other than PGD's best may be the misclassified one
        error = result.error | by_pgd.error if "pgd" in budget.attacks else result.error
        losses = result.loss if loss is None else loss(clean_logits(net, result.x_adv, batch_size), y)
        return Robustness(clean, by_pgd, Found(result.x_adv, losses, error))


def robustness(net: "Network", data: Examples, settings: RobustnessSettings) -> Iterator[Record]:
    """Yield Err, CE, RErr and RLoss on both splits, with standard errors over examples."""
    if settings.autoattack:
        data.notes["autoattack"] = settings.autoattack.description
    for split in splits_of(settings):
        x, y = data.examples(split, getattr(settings, f"clean_{split}_examples"))
        batch_size = settings.batch_size
        options = {"autoattack": False, "batch_size": batch_size, "loss": data.loss}
        result = evaluate_robustness(net, x, y, attack=None, **options)
        yield from _records(result.clean, ("err", "ce"), "ce", {"split": split, "n": len(x)})
        yield from robust_records(net, data, settings, split, batch_size, settings.autoattack)


def robust_records(
    net: "Network", data: Examples, settings: Any, split: str, batch_size: int,
    autoattack: AutoAttackSpec | None = None,
) -> Iterator[Record]:  # fmt: skip
    """Yield RErr and RLoss on one split; errors and losses of single examples go to `data.per_example`."""
    x, y = data.examples(split, getattr(settings, f"{split}_examples"))
    result = evaluate_robustness(
        net, x, y, attack=pgd(settings.attack, settings.precision),
        autoattack=autoattack or False, batch_size=batch_size,
        seed=derive_seed(data.seed, "robustness", split), loss=data.loss,
        state_path=data.state_path(f"autoattack-{split}") if autoattack else None,
    )  # fmt: skip
    where = {"split": split, **ball(settings.attack), "n": len(x)}
    for name, found, of_loss in (("pgd", result.pgd, "rloss"), ("aa", result.autoattack, "rloss_aa")):
        if found is not None:
            yield from _records(found, (f"rerr_{name}", f"rloss_{name}"), "rloss", where)
            errors = found.error.int().tolist()
            data.per_example(split, {of_loss: rounded(found.loss), f"rerr_{name}": errors})


def _records(found: "Found", metrics: tuple[str, str], loss: str, where: dict[str, Any]) -> Iterator[Record]:
    """Yield the mean error in per cent and the mean loss, with standard errors over examples."""
    errors, losses = found.error.int().tolist(), rounded(found.loss)
    yield Record(metrics[0], 100 * _mean(found, "error"), standard_error(errors, 100), **where)
    yield Record(metrics[1], _mean(found, "loss"), standard_error(losses), loss=loss, **where)


def standard_error(values: Sequence[float], scale: float = 1) -> float | None:
    """Return the standard error of `scale` times the mean of `values`; None for a single value."""
    return scale * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def rounded(losses: "Tensor") -> list[float]:
    """Return losses of single examples with 6 significant digits: enough for bootstraps."""
    return [float(f"{loss:.6g}") for loss in losses.tolist()]


def passes(settings: RobustnessSettings, held_out: int, snapshots: int) -> int:
    """Return the cost of both attacks on both splits of every checkpoint."""
    each = attack_passes(settings.attack)
    each += autoattack_passes(settings.autoattack) if settings.autoattack else 0
    return len(CHECKPOINTS) * (settings.test_examples + settings.train_examples) * each


MEASURE = Measure("robustness", RobustnessSettings, robustness, METRICS, passes)
