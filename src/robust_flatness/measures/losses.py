"""Losses and errors of a network: on clean examples, under PGD, and under AutoAttack."""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robust_flatness.attacks.autoattack import check_autoattack, run_autoattack
from robust_flatness.attacks.found import Found, better
from robust_flatness.attacks.pgd import PGD, Loss, batched_logits, checked
from robust_flatness.config.measures import BATCH_SIZE, AutoAttackSpec
from robust_flatness.inputs import require_finite, warn_of_sigmoid
from robust_flatness.measures.base import Record
from robust_flatness.network import Network
from robust_flatness.runtime.isolation import isolated
from robust_flatness.seeding import generator


def clean_losses(net: Network, x: Tensor, y: Tensor, batch_size: int, loss: Loss) -> tuple[Tensor, Tensor]:
    """Return losses [n] and logits [n, K] of `x`; raises `NonFiniteError` if one is NaN or infinite."""
    logits = batched_logits(net, x, batch_size)
    require_finite(logits, "on clean inputs")
    losses = loss(logits, y)
    require_finite(losses, "on clean inputs")
    return losses, logits


def reference_losses(
    net: Network, x: Tensor, y: Tensor, attack: PGD | None, batch_size: int, seed: int, loss: Loss
) -> tuple[float, float]:
    """Return RLoss(w) under all starts and under the first one; without attack, the clean loss twice."""
    if attack is None:
        value = clean_losses(net, x, y, batch_size, loss)[0].double().mean().item()
        return value, value
    starts = generator(seed, "reference")
    result = first = replace(attack, restarts=1)(net, x, y, batch_size, starts, loss)
    if attack.restarts > 1:
        others = replace(attack, restarts=attack.restarts - 1)
        result = better(first, others(net, x, y, batch_size, starts, loss))
    return result.loss.double().mean().item(), first.loss.double().mean().item()


def _mean(found: Found | None, name: str) -> float | None:
    return None if found is None else getattr(found, name).double().mean().item()


@dataclass(frozen=True)
class Robustness:
    """Errors in [0, 1], losses in nats, and the values of each example; None for an attack that was not run.
    A robust error is a misclassification of the clean input or of any iterate of the attack."""

    clean: Found
    pgd: Found | None = None
    autoattack: Found | None = None

    err = property(lambda self: _mean(self.clean, "error"))
    ce = property(lambda self: _mean(self.clean, "loss"))
    rerr_pgd = property(lambda self: _mean(self.pgd, "error"))
    rloss_pgd = property(lambda self: _mean(self.pgd, "loss"))
    rerr_aa = property(lambda self: _mean(self.autoattack, "error"))
    rloss_aa = property(lambda self: _mean(self.autoattack, "loss"))


@isolated()
def evaluate_robustness(
    model: nn.Module, x: Tensor, y: Tensor, *, attack: PGD | None, autoattack: bool | AutoAttackSpec = True,
    batch_size: int = BATCH_SIZE, seed: int = 0, state_path: Path | None = None, loss: Loss | None = None,
) -> Robustness:  # fmt: skip
    """Return Err and CE of clean examples, RErr and RLoss by PGD, and RErr by AutoAttack.

    Without `attack`, only clean error and loss are computed. `autoattack` is True for the standard version,
    settings for another budget, or False; its ball is that of `attack`, and finished attacks are stored in
    the file `state_path` (see `run_autoattack`). PGD maximises `loss`; AutoAttack maximises its own losses,
    and `rloss_aa` is `loss` on AutoAttack's examples. All other parameters are those of `average_flatness`.

    Raises `ConfigError` if model or labels cannot be used, `NonFiniteError` if a logit or a loss is NaN or
    infinite.
    """
    net, x, y, criterion = checked(model, x, y, loss)
    budget = AutoAttackSpec() if autoattack is True else autoattack or None
    if attack is not None and budget is not None:
        check_autoattack(net, x, budget, attack.norm)
    losses, logits = clean_losses(net, x, y, batch_size, criterion)
    warn_of_sigmoid(logits)
    clean = Found(x, losses, logits.argmax(dim=1) != y)
    if attack is None:
        return Robustness(clean)
    by_pgd = attack(net, x, y, batch_size, generator(seed, "pgd"), criterion)
    if budget is None:
        return Robustness(clean, by_pgd)
    given = (attack.epsilon, budget, batch_size, seed, state_path, by_pgd.x_adv, attack.norm)
    result = run_autoattack(net, x, y, *given)
    # an iterate other than PGD's best may be the misclassified one
    error = result.error | by_pgd.error if "pgd" in budget.attacks else result.error
    losses = result.loss if loss is None else clean_losses(net, result.x_adv, y, batch_size, loss)[0]
    return Robustness(clean, by_pgd, Found(result.x_adv, losses, error))


def mean_records(found: Found, names: tuple[str, str], loss: str, where: dict[str, Any]) -> Iterator[Record]:
    """Yield the mean error in per cent and the mean loss, with standard errors over examples."""
    error, mean = (values.double().mean().item() for values in (found.error, found.loss))
    losses, errors = found.lists()
    yield Record(names[0], 100 * error, _standard_error(errors, 100), **where)
    yield Record(names[1], mean, _standard_error(losses), loss=loss, **where)


def _standard_error(values: Sequence[float], scale: float = 1) -> float | None:
    """Return the standard error of `scale` times the mean of `values`; None for a single value."""
    return scale * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
