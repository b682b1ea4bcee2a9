"""Quantities: a metric on a loss and split at a radius, its column in `models.csv` and its axis label. Column
names are generated from records and looked up here; suffixes of other names are parsed."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product

from robust_flatness.config.measures import SPLITS
from robust_flatness.measures.base import LOSSES as OF_LOSSES
from robust_flatness.measures.base import MORE_ROBUST, Metric
from robust_flatness.measures.registry import MEASURES
from robust_flatness.measures.sharpness.block import of_loss
from robust_flatness.training.history import HISTORY

#: Tables of an experiment in `results/<experiment>/`: `records`, `networks` (a row per checkpoint: variant,
#: training settings, provenance), `history` (training curves), `examples` (values of single examples).
TABLES = ("records", "networks", "history", "examples")
KEYS = ("variant", "seed", "checkpoint")
#: Prefix of the columns of `networks.csv` that hold the provenance.
PROVENANCE = "run_"
#: Values of single examples: robust loss by PGD, and whether PGD and AutoAttack succeed (0 or 1). Their split
#: is `test` or `train`, or at a multiple of epsilon `test_eps_<multiple>`.
OF_EXAMPLES = ("rloss", "rerr_pgd", "rerr_aa")
EXAMPLES = (*KEYS, "split", "example", *OF_EXAMPLES)
#: Family of variants that config/variants.yaml does not know.
OTHER = "other"
SPREADS = {"std": "standard deviation of {}", "se": "standard error of {}"}


@dataclass(frozen=True)
class Quantity:
    """A metric on a loss and split at a radius, or a spread of it (a key of `SPREADS`). `radius` is None at
    the main radius; else that of the weights' neighbourhood, or the attack's in multiples of the main one."""

    measure: str
    metric: str
    loss: str = ""
    split: str = ""
    radius: float | None = None
    spread: str = ""

    @property
    def description(self) -> Metric:
        return metric_of(self.measure, self.metric)

    @property
    def name(self) -> str:
        """Name of the column."""
        name = self.description.name(self.split, self.loss, self.radius)
        return f"{name}_{self.spread}" if self.spread else name

    @property
    def words(self) -> str:
        """Axis label."""
        words = self.description.words(self.split, self.loss, self.radius)
        return SPREADS.get(self.spread, "{}").format(words)


_EXAMPLES = "test RLoss on examples classified"
#: Metrics computed from others, or found in the training curves only.
OTHER_METRICS = {
    "rloss_gap": Metric("rloss_gap", "RLoss, test minus train"),
    "rerr_gap": Metric("rerr_gap", "RErr by PGD, test minus train (%)"),
    "rloss_overfitting": Metric("rloss_overfitting", "RLoss, last minus early-stopped"),
    "rloss": Metric("rloss", "RLoss", "loss", MORE_ROBUST, splits=("test", "train", "early_stopping")),
    "rerr": Metric("rerr", "RErr (%)", "error", MORE_ROBUST, splits=("test", "train", "early_stopping")),
    "correct": Metric("test_correct_rloss", f"{_EXAMPLES} correctly", "loss", MORE_ROBUST),
    "incorrect": Metric("test_incorrect_rloss", f"{_EXAMPLES} incorrectly", "loss", MORE_ROBUST),
    "epoch": Metric("normalised_epoch", "epoch (share of training)"),
    "learning_rate": Metric("learning_rate", "learning rate"),
}


def metric_of(measure: str, metric: str) -> Metric:
    """Return the description of a metric; an unregistered one is a user's measure of a loss."""
    known = MEASURES[measure].metrics if measure in MEASURES else OTHER_METRICS
    return known.get(metric) or of_loss(metric, metric, direction="")


def _main_quantities() -> dict[str, Quantity]:
    """Return every registered quantity at its main radius by column name; of equal names, the first."""
    measures = [measure for measure in MEASURES.values() if not measure.of_snapshots]
    described = [(measure.name, *metric) for measure in measures for metric in measure.metrics.items()]
    described += [("", *metric) for metric in OTHER_METRICS.items()]
    found: dict[str, Quantity] = {}
    for measure, metric, description in described:
        losses = OF_LOSSES if description.by_loss else ("",)
        for loss, split in product(losses, description.splits) if description.column is not None else ():
            quantity = Quantity(measure, metric, loss, split)
            found.setdefault(quantity.name, quantity)
    return found


#: Quantities by column name: at their main radius, and all that were registered since.
MAIN = _main_quantities()
_registered = dict(MAIN)


def register(quantity: Quantity) -> str:
    """Register a quantity and return its column name; an earlier quantity of this name is kept."""
    return _registered.setdefault(quantity.name, quantity).name


def lookup(name: str) -> Quantity | None:
    """Return the quantity of a column, None if there is none: a registered one, or one with a suffix for
    another radius (`_<xi>`) or for a spread (a key of `SPREADS`)."""
    stem, _, suffix = name.rpartition("_")
    if name in _registered or not stem:
        return _registered.get(name)
    main = lookup(stem)
    if main is None or main.spread:
        return None
    if suffix in SPREADS:
        return replace(main, spread=suffix)
    with suppress(ValueError):  # no number
        if main.description.radius and main.radius is None:
            return replace(main, radius=float(suffix))
    return None


def is_measure(name: str) -> bool:
    """Return whether a column holds a measured number, at the checkpoint of its row."""
    q = lookup(name)
    return q is not None and q.measure in MEASURES and q.description.kind != "setting"


def describe(name: str) -> str:
    """Return the label of a column, as on the axes of figures; an unknown name as it is. A prefix `best_`
    names the measure at the early-stopped checkpoint (`aggregate.with_differences`)."""
    quantity = lookup(name.removeprefix("best_"))
    return quantity.words + ", early-stopped" * name.startswith("best_") if quantity else name


def direction(name: str) -> str:
    """Return what a low value of a column means, such as "lower is flatter"; "" if unknown."""
    quantity = lookup(name)
    return quantity.description.direction if quantity and not quantity.spread else ""


def columns_of(columns: Iterable[str]) -> dict[str, Quantity]:
    """Return the quantities of the columns of a wide table that hold measures."""
    return {name: q for name in columns if (q := lookup(name)) and q.measure in MEASURES}


def is_known(name: str) -> bool:
    """Return whether this is a valid column name of records, training curves or training settings."""
    return name.startswith("setting_") or name in HISTORY or lookup(name) is not None


def _of_kind(kind: str) -> list[str]:
    """Return the columns of a kind at the main radius, those on test examples first."""
    main = [q for q in MAIN.values() if q.measure in MEASURES and q.description.radius != "coordinate"]
    return [q.name for split in SPLITS for q in main if (q.split, q.description.kind) == (split, kind)]


ERRORS, LOSSES = _of_kind("error"), _of_kind("loss")
