"""MART (Wang et al., ICLR 2020): misclassification-aware adversarial training."""

import torch
from torch import Tensor
from torch.nn import functional as F

from robust_flatness.training.objectives.base import Batch, Forward, Objective
from robust_flatness.training.objectives.trades import kl_divergence


def boosted_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return BCE(p, y) = -log p_y - log(1 - max over k != y of p_k) of each example. The second term is a
    difference of log-sum-exps, which is exact where 1 - p would round to 0."""
    others = logits.scatter(1, target[:, None], -torch.inf)
    rest = logits.scatter(1, others.argmax(1, keepdim=True), -torch.inf)
    margin = logits.logsumexp(1) - rest.logsumexp(1)
    return F.cross_entropy(logits, target, reduction="none") + margin


class Mart(Objective):
    """mean over examples of BCE(f(x~), y) + lambda KL(f(x) || f(x~)) (1 - f_y(x)).

    The adversarial x~ maximises cross-entropy. Clean and adversarial examples pass the network one
    after the other; the gradient flows through all terms.
    """

    def __call__(self, forward: Forward, batch: Batch) -> tuple[Tensor, Tensor]:
        clean = forward(batch.x)
        adversarial = forward(batch.x_adv)
        unsure = 1 - F.softmax(clean, dim=1).gather(1, batch.target[:, None])[:, 0]
        consistency = kl_divergence(clean, adversarial) * unsure
        loss = boosted_cross_entropy(adversarial, batch.target)
        return (loss + self.spec.objective_weight * consistency).mean(), adversarial
