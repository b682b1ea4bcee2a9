"""Attacks on the inputs during training: PGD and its variants."""

import torch
from torch import Tensor

from robust_flatness.attacks.pgd import PGD, cross_entropy
from robust_flatness.config import TrainingSpec
from robust_flatness.network import Network
from robust_flatness.training.objectives import Batch, Forward, Objective


class TrainingAttack:
    """Adversarial examples for the updates of a training: PGD on the network in evaluation mode.

    From a uniform random start, it returns the iterate of highest loss of each example, the clean example
    excluded, or that of `pgd_tau`. Settings are explained in `TrainingSpec`; predictions on clean examples
    come from a separate forward pass in training mode, which updates batch norm's running statistics, as in
    the released code. The attacked network has the statistics from before that pass.
    """

    def __init__(self, spec: TrainingSpec, objective: Objective):
        self.spec, self.objective = spec, objective
        self.pgd = PGD(spec.epsilon, spec.step_size, spec.steps, precision=spec.precision, norm=spec.norm)

    def __call__(
        self, network: Network, predict: Forward, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return adversarial examples [n, C, H, W], and whether each was attacked, [n] bool; `network` is in
        evaluation mode, `predict` gives logits in training mode."""
        spec, x = self.spec, batch.x
        target, loss = self.objective.attack_goal(network, batch)
        attacked, count, chosen = torch.ones_like(batch.counted), len(x), slice(None)
        if spec.attack_predicted_label or not spec.attack_incorrect:
            predicted = predict(x).argmax(1)
            if spec.attack_predicted_label:
                target = predicted
            if not spec.attack_incorrect:
                attacked = predicted == batch.y
        if spec.adversarial_fraction < 1:
            count = round(spec.adversarial_fraction * len(x))
            order = torch.randperm(len(x), generator=generator, device=generator.device)
            chosen = order[:count].to(x.device)
            attacked &= torch.zeros_like(attacked).index_fill_(0, chosen, True)
        x_adv = x.clone()
        if count:
            x_adv[chosen] = self._search(network, x[chosen], target[chosen], generator, loss)
        return torch.where(attacked[:, None, None, None], x_adv, x), attacked

    def _search(self, network: Network, x: Tensor, target: Tensor, generator, loss) -> Tensor:
        if self.spec.stop_after_flip is not None:
            return pgd_tau(network, x, target, self.pgd, self.spec.stop_after_flip, generator)
        return self.pgd.search(network, x, target, self.pgd.start(x, generator), loss).x_adv


def pgd_tau(network: Network, x: Tensor, y: Tensor, pgd: PGD, tau: int, generator: torch.Generator) -> Tensor:
    """Return adversarial examples of PGD that stops `tau` iterations after an example's label flips. The
    result is the iterate `tau` steps after the first misclassified one (the random start included), or the
    last iterate if fewer steps are left or the label never flips (Zhang et al., ICML 2020)."""
    x_adv = pgd.start(x, generator)
    left = torch.full_like(y, tau)
    flipped = torch.zeros_like(y, dtype=torch.bool)
    for _ in range(pgd.steps):
        logits, _, directions = pgd.directions(network, x_adv, y, cross_entropy)
        flipped |= logits.argmax(1) != y
        moving = ~flipped | (left > 0)
        left -= (flipped & moving).to(left.dtype)
        stepped = pgd.step(x_adv, directions, x)
        x_adv = torch.where(moving[:, None, None, None], stepped, x_adv)
    return x_adv
