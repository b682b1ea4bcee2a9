"""Robustness of one network: clean and robust error and loss."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from robust_flatness.attacks.autoattack import check_autoattack, run_autoattack
from robust_flatness.attacks.pgd import PGD, batches, cross_entropy
from robust_flatness.config import AutoAttackSpec
from robust_flatness.inputs import check_classes, checked_inputs, require_finite, warn_of_sigmoid
from robust_flatness.network import Network
from robust_flatness.runtime.isolation import isolated
from robust_flatness.runtime.progress import stage
from robust_flatness.seeding import generator


@dataclass(frozen=True)
class Losses:
    """Per example: misclassified (bool, [n]) and cross-entropy ([n], nats)."""

    error: Tensor
    loss: Tensor

    @property
    def mean_error(self) -> float:
        return self.error.double().mean().item()

    @property
    def mean_loss(self) -> float:
        return self.loss.double().mean().item()


@dataclass(frozen=True)
class Robustness:
    """Errors as fractions in [0, 1], losses in nats; None for an attack that was not run.

    `clean`, `pgd` and `autoattack` hold the values of each example. An example counts as
    robustly misclassified if it is misclassified when clean or at any iterate of the attack.
    """

    clean: Losses
    pgd: Losses | None = None
    autoattack: Losses | None = None

    @property
    def err(self) -> float:
        return self.clean.mean_error

    @property
    def ce(self) -> float:
        return self.clean.mean_loss

    @property
    def rerr_pgd(self) -> float | None:
        return self.pgd and self.pgd.mean_error

    @property
    def rloss_pgd(self) -> float | None:
        return self.pgd and self.pgd.mean_loss

    @property
    def rerr_aa(self) -> float | None:
        return self.autoattack and self.autoattack.mean_error

    @property
    def rloss_aa(self) -> float | None:
        return self.autoattack and self.autoattack.mean_loss


@isolated()
def evaluate_robustness(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    attack: PGD | None,
    autoattack: bool | AutoAttackSpec = True,
    batch_size: int = 128,
    seed: int = 0,
    state_path: Path | None = None,
) -> Robustness:
    """Err and CE of clean examples, RErr and RLoss by PGD, and RErr by AutoAttack.

    Parameters
    ----------
    model
        Inputs [n, ...] in [0, 1] to logits [n, K]; not changed.
    x, y
        Inputs and labels.
    attack
        PGD; None for clean error and loss only.
    autoattack
        True for the standard version, a spec for another budget, False for none. Its radius is
        the attack's.
    batch_size
        Examples per pass.
    seed
        Source of all random starts.
    state_path
        File in which AutoAttack keeps what it has finished (see `run_autoattack`).

    Raises
    ------
    ConfigError
        If AutoAttack is asked for without an attack to take the radius from, or the model or the
        labels cannot be measured; `NonFiniteError` if a logit is NaN or infinite.
    """
    if autoattack and attack is None:
        raise ValueError("attack: None given, but autoattack takes its radius from it")
    x, y = checked_inputs(x, y)
    net = Network.of(model, x[:2])
    check_classes(y, net.classes)
    spec = AutoAttackSpec() if autoattack is True else autoattack or None
    if spec is not None:
        check_autoattack(net, x, spec)
    clean, pgd, auto = _clean(net, x, y, batch_size), None, None
    if attack is not None:
        with stage("RLoss and RErr by PGD"):
            found = attack(net, x, y, batch_size, generator(seed, "pgd"))
        pgd = Losses(found.error | clean.error, found.loss.maximum(clean.loss))
    if spec is not None:
        with stage("RErr by AutoAttack"):
            known = found.x_adv
            result = run_autoattack(net, x, y, attack.epsilon, spec, batch_size, seed, state_path, known)
        # an iterate other than PGD's best may be the misclassified one
        error = result.error | pgd.error if "pgd" in spec.attacks else result.error
        auto = Losses(error, result.loss)
    return Robustness(clean, pgd, auto)


@torch.no_grad()
def _clean(net: Network, x: Tensor, y: Tensor, batch_size: int) -> Losses:
    logits = torch.cat([net(x[part]) for part in batches(len(x), batch_size)])
    require_finite(logits, "on clean inputs")
    warn_of_sigmoid(logits)
    return Losses(logits.argmax(dim=1) != y, cross_entropy(logits, y))
