"""Learning rates as functions of the update: multi-step, constant, cyclic."""

from dataclasses import dataclass

from torch.optim import Optimizer

from robust_flatness.config import TrainingSpec

#: Momentum at the ends and in the middle of a cycle (the defaults of PyTorch's CyclicLR).
CYCLE_MOMENTUM = (0.9, 0.8)
DROP = 0.1


@dataclass(frozen=True)
class Schedule:
    """Learning rate and momentum of each update; `updates` is the number of updates in an epoch.

    - `multi-step`: multiplied by 0.1 at each milestone, a fraction of the epochs, rounded to a whole epoch.
    - `constant`.
    - `cyclic`: `cycles` triangular cycles over the training, from 0 to `learning_rate` and back to 0; with
      SGD, the momentum goes from 0.9 to 0.8 and back.
    """

    spec: TrainingSpec
    updates: int

    def learning_rate(self, update: float) -> float:
        """Return the rate of update number `update`, counted from 0 over the whole training."""
        rate = self.spec.learning_rate
        if self.spec.schedule == "cyclic":
            return rate * self._height(update)
        if self.spec.schedule == "multi-step":
            epoch = update // self.updates
            drops = sum(epoch >= round(part * self.spec.epochs) for part in self.spec.milestones)
            return rate * DROP**drops
        return rate

    def momentum(self, update: float) -> float:
        """Return the momentum of update number `update`."""
        if self.spec.schedule == "cyclic" and self.spec.optimizer == "sgd":
            ends, middle = CYCLE_MOMENTUM
            return ends + (middle - ends) * self._height(update)
        return self.spec.momentum

    def apply(self, optimizer: Optimizer, update: int) -> None:
        """Set learning rate and momentum for update number `update`."""
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate(update)
            if "momentum" in group:
                group["momentum"] = self.momentum(update)

    def _height(self, update: float) -> float:
        """Return the height of the triangle: 0 at the ends of a cycle, 1 in its middle."""
        length = self.updates * self.spec.epochs / self.spec.cycles
        position = (update % length) / length
        return 1 - abs(2 * position - 1)
