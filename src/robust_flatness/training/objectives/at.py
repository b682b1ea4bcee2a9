"""Adversarial training (Madry et al., ICLR 2018): cross-entropy on adversarial examples."""

from torch import Tensor
from torch.nn import functional as F

from robust_flatness.training.objectives.base import Batch, Forward, Objective


class AdversarialTraining(Objective):
    r"""mean over examples of CE(f(x~), y).

    With smoothing tau, y is (1 - tau) one-hot(y) + tau / K on all K classes, as in the released
    code (the paper's text puts tau / (K - 1) on the wrong classes).
    """

    def __call__(self, forward: Forward, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = forward(batch.x_adv)
        return F.cross_entropy(logits, batch.target, label_smoothing=batch.smoothing), logits
