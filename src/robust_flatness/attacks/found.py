"""Results of an attack on each example."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Found:
    """The result of an attack, per example.

    Attributes
    ----------
    x_adv
        The inputs of highest loss, [n, ...].
    loss
        Their losses, [n]: the highest over all iterates and restarts.
    error
        [n], True where any iterate is misclassified; None where the targets are no labels.
    """

    x_adv: Tensor
    loss: Tensor
    error: Tensor | None

    def rows(self, rows: slice | Tensor) -> "Found":
        """The results of some of the examples."""
        return Found(self.x_adv[rows], self.loss[rows], None if self.error is None else self.error[rows])


def better(old: Found | None, new: Found) -> Found:
    """Per example the result of higher loss; an error in either counts. `old` may be None."""
    if old is None:
        return new
    higher = (new.loss > old.loss) | new.loss.isnan()  # NaN stays, and is reported at the end
    shape = (-1,) + (1,) * (new.x_adv.ndim - 1)
    return Found(
        torch.where(higher.view(shape), new.x_adv, old.x_adv),
        torch.where(higher, new.loss, old.loss),
        None if new.error is None else old.error | new.error,
    )


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Highest logit of another class minus that of the label, [n]: above 0 where misclassified."""
    own = logits.gather(1, y[:, None])
    return (logits.scatter(1, y[:, None], -torch.inf).amax(1, keepdim=True) - own)[:, 0]


def updated(old: Found | None, new: Found, rows: Tensor) -> Found:
    """`old` (None: nothing) with its `rows`, ascending, replaced by the better of them and `new`."""
    if old is None:
        return replace(new, x_adv=new.x_adv.clone())
    if len(rows) == len(old.loss):
        return better(old, new)
    best = better(old.rows(rows), new)
    old.x_adv[rows], old.loss[rows] = best.x_adv, best.loss
    if old.error is not None:
        old.error[rows] = best.error
    return old


def are_labels(y: Tensor) -> bool:
    """Whether targets are classes, [n], and no probabilities."""
    return y.ndim == 1 and not y.is_floating_point()


def misclassified(logits: Tensor, y: Tensor) -> Tensor | None:
    """Which examples are, [n] bool; None where the targets are no labels."""
    return logits.argmax(dim=1) != y if are_labels(y) else None
