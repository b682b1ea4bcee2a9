"""RLoss and RErr on held-out images, for training curves and early stopping."""

import torch

from robust_flatness.attacks.pgd import PGD
from robust_flatness.config import TrainingSpec
from robust_flatness.data import Dataset
from robust_flatness.network import Network
from robust_flatness.seeding import generator

BATCH = 256


class HeldOut:
    """The early-stopping images, and the test images of the training curves."""

    def __init__(self, dataset: Dataset, spec: TrainingSpec, seed: int, device: str):
        self.spec, self.seed = spec, seed
        count = min(spec.history_examples, dataset.size("test"))
        self.examples = {
            split: (dataset.images(split, most, device), dataset.labels(split, most, device))
            for split, most in (("early_stopping", None), ("test", count))
        }

    def evaluate(self, model: Network) -> dict[str, float]:
        """Return RLoss and RErr by PGD with the baseline's radius and steps, as columns of the history.
        Random starts are the same for all snapshots, and for all variants with the same images."""
        spec = self.spec
        attack = (spec.evaluation_epsilon, spec.evaluation_step_size, spec.evaluation_steps)
        row = {}
        for split, restarts in (("test", 1), ("early_stopping", spec.early_stopping_restarts)):
            x, y = self.examples[split]
            pgd = PGD(*attack, restarts, precision=spec.precision, norm=spec.norm)
            found = pgd(model, x, y, BATCH, generator(self.seed, "evaluation", split))
            row[f"{split}_rloss"] = found.loss.mean().item()
            row[f"{split}_rerr"] = 100 * found.error.cpu().double().mean().item()
            if split == "test":
                with torch.no_grad():
                    logits = torch.cat([model(part) for part in x.split(BATCH)])
                correct = logits.argmax(1) == y
                # NaN if there is no such example; written as an empty cell
                row["test_correct_rloss"] = found.loss[correct].mean().item()
                row["test_incorrect_rloss"] = found.loss[~correct].mean().item()
        return row
