"""The robust loss and error on held-out images, of which curves and early stopping are made."""

import torch

from robust_flatness.attacks.pgd import PGD
from robust_flatness.config import TrainingSpec
from robust_flatness.data import Dataset
from robust_flatness.network import Network
from robust_flatness.seeding import generator
from robust_flatness.tables.history import Row

BATCH = 256


class HeldOut:
    """The images of early stopping, and as many test images as the training curves are made of."""

    def __init__(self, dataset: Dataset, spec: TrainingSpec, seed: int, device: str):
        self.spec, self.seed = spec, seed
        count = min(spec.history_examples, dataset.size("test"))
        self.examples = {
            split: (dataset.images(split, most, device), dataset.labels(split, most, device))
            for split, most in (("early_stopping", None), ("test", count))
        }

    def evaluate(self, model: Network) -> Row:
        """RLoss and RErr on the held-out images, by PGD with the baseline's radius and steps.

        The same random starts at every snapshot, and for every variant with equal images.
        """
        spec = self.spec
        row: Row = {}
        for split, restarts in (("test", 1), ("early_stopping", spec.early_stopping_restarts)):
            x, y = self.examples[split]
            attack = PGD(
                spec.evaluation_epsilon,
                spec.evaluation_step_size,
                spec.evaluation_steps,
                restarts,
                precision=spec.precision,
            )
            found = attack(model, x, y, BATCH, generator(self.seed, "evaluation", split))
            row[f"{split}_rloss"] = found.loss.mean().item()
            row[f"{split}_rerr"] = 100 * found.error.cpu().double().mean().item()
            if split == "test":
                with torch.no_grad():
                    correct = torch.cat([model(part) for part in x.split(BATCH)])
                correct = correct.argmax(1) == y
                # the mean over no example is NaN, and left empty in the file
                row["test_correct_rloss"] = found.loss[correct].mean().item()
                row["test_incorrect_rloss"] = found.loss[~correct].mean().item()
        return row
