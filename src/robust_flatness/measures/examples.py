"""Images and labels for the measures of one network, and results that the measures share."""

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
    """Images and labels for the measures of one network, with a cache of results that the measures share.

    Tensors of `dataset` are placed on `device`. All random streams derive from `seed`. `checkpoint` is the
    name of the network (`last`, `best`, `epoch-005`, or `own`). If `weight_bound` is b, perturbed weights are
    clipped to [-b, b]. `initial_weights()` returns the weights before training by name, or None. `keep` is
    called with a name and a function, and returns the function's JSON value or the one stored by an
    interrupted run. AutoAttack stores its state in `folder` (None: not stored). `loss` replaces the
    cross-entropy. `snapshots` maps epochs to functions that load the network after that epoch.

    Measures fill in `references` (losses at the unperturbed weights), `notes` (text stored with the results,
    such as AutoAttack's budget) and `example_values` (per-example values by split and column).
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
        """Return the clean (`attack` None) or robust loss on the first examples of a split. Objectives are
        cached, so that adversarial examples are computed once for equal arguments."""
        from robust_flatness.measures.objective import Objective

        key = split, count, attack, batch_size, seed
        if key not in self._objectives:
            x, y = self.examples(split, count)
            self._objectives[key] = Objective(net, x, y, attack or "ce", batch_size, seed)
        return self._objectives[key]

    def state_path(self, name: str) -> Path | None:
        """Return the path of the state from which `name` resumes; None if no state is stored."""
        return self.folder and Path(self.folder) / f"{name}-{self.checkpoint}"

    def per_example(self, split: str, values: Mapping[str, list]) -> None:
        """Add per-example values by column; they are written to a separate table."""
        self.example_values.setdefault(split, {}).update(values)


def splits_of(settings: Any) -> list[str]:
    """Return the splits for which the settings request examples."""
    return [split for split in SPLITS if getattr(settings, f"{split}_examples")]


def pgd(attack: AttackSpec, precision: str) -> "PGD":
    """Return the `PGD` attack with these settings."""
    from robust_flatness.attacks import PGD

    budget = (attack.epsilon, attack.step_size, attack.steps, attack.restarts)
    return PGD(*budget, precision=precision, norm=attack.norm)


def ball(attack: "AttackSpec | PGD | None") -> dict[str, Any]:
    """Return the record fields `epsilon` and `norm` of an attack; an empty dictionary for None."""
    if attack is None:
        return {}
    return {"epsilon": attack.epsilon, "norm": "" if attack.norm == "linf" else attack.norm}
