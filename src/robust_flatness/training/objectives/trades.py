"""TRADES (Zhang et al., ICML 2019): clean cross-entropy and consistency under perturbation."""

from torch import Tensor
from torch.nn import functional as F

from robust_flatness.attacks.pgd import Loss
from robust_flatness.training.objectives.base import Batch, Forward, Objective


def kl_divergence(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Return KL(p || q) of each example, p = softmax(`clean`), q = softmax(`adversarial`), logits [n, K]."""
    log_p, log_q = F.log_softmax(clean, dim=1), F.log_softmax(adversarial, dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


class Trades(Objective):
    """mean over examples of CE(f(x), y) + lambda KL(f(x) || f(x~)).

    The adversarial x~ maximises the same KL, against the clean prediction in evaluation mode. Clean
    and adversarial examples pass the network one after the other, so that batch norm takes the
    statistics of each alone. The gradient flows through both arguments of the KL.
    """

    def attack_goal(self, forward: Forward, batch: Batch) -> tuple[Tensor, Loss]:
        return forward(batch.x).detach(), self.attack_loss

    def attack_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the KL of each example between the predictions with logits `target` and `logits`."""
        return kl_divergence(target, logits)

    def __call__(self, forward: Forward, batch: Batch) -> tuple[Tensor, Tensor]:
        clean = forward(batch.x)
        adversarial = forward(batch.x_adv)
        loss = F.cross_entropy(clean, batch.target, label_smoothing=batch.smoothing)
        divergence = kl_divergence(clean, adversarial).mean()
        return loss + self.spec.objective_weight * divergence, adversarial
