"""The examples that a network is measured on, with what has been computed for them already."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_flatness.config.measures import AttackSpec
from robust_flatness.measures.base import SPLITS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_flatness.attacks import PGD
    from robust_flatness.attacks.pgd import Loss
    from robust_flatness.measures.objective import Objective
    from robust_flatness.network import Network

#: Examples per pass, unless stated otherwise.
BATCH_SIZE = 128


class Examples:
    """Images and labels for the measures of one network, with adversarial inputs and losses already found for
    it.

    The examples of `dataset` are put on `device`. Every random stream derives from `seed`. `checkpoint` names
    the network (`last`, `best`, `epoch-005`, or `own`), `weight_bound` is b where perturbed weights are
    projected into [-b, b], `initial_weights` returns the weights before training by name, or None.
    `keep(name, compute)` returns the JSON value that `compute` returns, or that an interrupted run stored.
    AutoAttack stores its state in `folder` (None: nowhere). `loss` replaces the cross-entropy (None).
    `snapshots` maps epochs to functions that return the network as it was after them in its training.

    The measures fill in `references`, losses at the unperturbed weights; `notes`, words that belong to the
    results, such as AutoAttack's budget; and `example_values`, values of single examples by split and column.
    """

    def __init__(
        self, dataset: Any, device: str = "cpu", seed: int = 0, checkpoint: str = "own",
        weight_bound: float | None = None,
        initial_weights: Callable[[], dict[str, "Tensor"] | None] = lambda: None,
        keep: Callable[[str, Callable[[], Any]], Any] = lambda name, compute: compute(),
        folder: Path | None = None, loss: "Loss | None" = None,
        snapshots: Mapping[int, Callable[[], "nn.Module"]] | None = None,
    ):  # fmt: skip
        self.dataset, self.device, self.seed, self.checkpoint = dataset, device, seed, checkpoint
        self.weight_bound, self.initial_weights, self.keep = weight_bound, initial_weights, keep
        self.folder, self.loss, self.snapshots = folder, loss, snapshots or {}
        self.references: dict[Any, dict[str, float | None]] = {}
        self.notes: dict[str, str] = {}
        self.example_values: dict[str, dict[str, list]] = {}
        self._objectives: dict[Any, Objective] = {}

    def examples(self, split: str, count: int | None = None) -> tuple["Tensor", "Tensor"]:
        """Return images and labels of the first `count` examples of a split (None: all)."""
        images = self.dataset.images(split, count, self.device)
        return images, self.dataset.labels(split, count, self.device)

    def objective(
        self, net: "Network", split: str, count: int, attack: "PGD | None", batch_size: int, seed: int
    ) -> "Objective":
        """Return the clean loss (`attack` None) or robust loss of the first examples of a split; equal
        arguments give the same object, so that adversarial inputs are found once."""
        from robust_flatness.measures.objective import Objective

        key = split, count, attack, batch_size, seed
        if key not in self._objectives:
            x, y = self.examples(split, count)
            self._objectives[key] = Objective(net, x, y, attack or "ce", batch_size, seed)
        return self._objectives[key]

    def state_path(self, name: str) -> Path | None:
        """Return the file for unfinished work of this name on this network; None where nothing is stored."""
        return self.folder and Path(self.folder) / f"{name}-{self.checkpoint}"

    def per_example(self, split: str, values: Mapping[str, list]) -> None:
        """Add values of single examples, which become rows of a table of their own."""
        self.example_values.setdefault(split, {}).update(values)


def splits_of(settings: Any) -> list[str]:
    """Return the splits of which the settings ask for examples."""
    return [split for split in SPLITS if getattr(settings, f"{split}_examples")]


def pgd(attack: AttackSpec, precision: str) -> "PGD":
    """Return the attack that the settings describe."""
    from robust_flatness.attacks import PGD

    budget = (attack.epsilon, attack.step_size, attack.steps, attack.restarts)
    return PGD(*budget, precision=precision, norm=attack.norm)


def ball(attack: "AttackSpec | PGD | None") -> dict[str, Any]:
    """Return the fields of a record that name the attack's ball; none without an attack."""
    if attack is None:
        return {}
    return {"epsilon": attack.epsilon, "norm": "" if attack.norm == "linf" else attack.norm}
