"""Quantities: names in tables and figures of records with equal metric, loss, split and radius.

A quantity has a column name, as in `models.csv`, and words, as on an axis. Names are generated from records
and looked up here; they are never parsed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

from robust_flatness.measures import base
from robust_flatness.measures.base import Metric
from robust_flatness.measures.registry import MEASURES
from robust_flatness.measures.sharpness.block import of_loss
from robust_flatness.training.history import HISTORY

#: Tables of an experiment under `results/<experiment>/`: `records` of all networks, `networks` (a row for
#: each checkpoint: variant, training settings, provenance), `history` (training curves), `examples` (values
#: of single examples).
TABLES = ("records", "networks", "history", "examples")
KEYS = ("variant", "seed", "checkpoint")
#: Prefix of the columns of `networks.csv` that hold the provenance.
PROVENANCE = "run_"
#: Values of single examples: robust loss by PGD, and whether PGD and AutoAttack succeed (0 or 1).
OF_EXAMPLES = ("rloss", "rerr_pgd", "rerr_aa")
EXAMPLES = (*KEYS, "split", "example", *OF_EXAMPLES)
#: Family of variants that config/variants.yaml does not know.
OTHER = "other"
MORE_ROBUST = "lower is more robust"
SPREADS = {
    "std": "standard deviation of {}",
    "se": "standard error of {}",
    "seed_sd": "{}, standard deviation over seeds",
    "seed_se": "{}, standard error over seeds",
}


@dataclass(frozen=True)
class Quantity:
    """One metric on one loss and split at one radius, or a spread of it (a key of `SPREADS`). `radius` is
    that of the weights' neighbourhood, or the attack's as a multiple of the experiment's, if not the main."""

    measure: str
    metric: str
    loss: str = ""
    split: str = ""
    radius: float | None = None
    spread: str = ""
    early_stopped: bool = False

    @property
    def description(self) -> Metric:
        return metric_of(self.measure, self.metric)

    @property
    def name(self) -> str:
        """Name of the column."""
        name = self.description.name(self.split, self.loss, self.radius)
        return ("best_" if self.early_stopped else "") + name + (f"_{self.spread}" if self.spread else "")

    @property
    def words(self) -> str:
        """Label of an axis."""
        words = self.description.words(self.split, self.loss, self.radius)
        words = SPREADS.get(self.spread, "{}").format(words)
        return words + (", early-stopped" if self.early_stopped else "")


_EXAMPLES = "test RLoss on examples classified"
#: Metrics that are computed from others, or stand in the training curves alone.
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
    """The description of a metric; one that is not registered is a user's measure of a loss."""
    known = MEASURES[measure].metrics if measure in MEASURES else OTHER_METRICS
    return known.get(metric) or of_loss(metric, metric, direction="")


@cache
def main_quantities() -> tuple[Quantity, ...]:
    """Every quantity of the registry at its main radius; of those with the same name, the first."""
    found: dict[str, Quantity] = {}
    measures = [measure for measure in MEASURES.values() if not measure.of_snapshots]
    metrics = [(m.name, metric, described) for m in measures for metric, described in m.metrics.items()]
    for measure, metric, description in [*metrics, *(("", *item) for item in OTHER_METRICS.items())]:
        if description.column is not None:
            for loss in base.LOSSES if description.by_loss else ("",):
                for split in description.splits:
                    quantity = Quantity(measure, metric, loss, split)
                    found.setdefault(quantity.name, quantity)
    return tuple(found.values())


@cache
def _by_name() -> dict[str, Quantity]:
    """The quantities registered, those at the main radius to begin with."""
    return {quantity.name: quantity for quantity in main_quantities()}


def register(quantity: Quantity) -> str:
    """Note a quantity under the name of its column and return that name; the first one of a name stays."""
    return _by_name().setdefault(quantity.name, quantity).name


def lookup(name: str) -> Quantity | None:
    """The quantity whose column has this name; None where no record of it has been read."""
    return _by_name().get(name)


def with_spread(name: str, spread: str) -> str:
    """Register and return the column of a spread of `name` (a key of `SPREADS`)."""
    quantity = lookup(name)
    return register(replace(quantity, spread=spread)) if quantity else f"{name}_{spread}"


def early_stopped(name: str) -> str:
    """Register and return the column of `name` at the early-stopped checkpoint, beside the last one's."""
    quantity = lookup(name)
    return register(replace(quantity, early_stopped=True)) if quantity else f"best_{name}"


def is_measure(name: str) -> bool:
    """Whether a column holds a measured number, at the checkpoint of its row."""
    quantity = lookup(name)
    described = quantity and quantity.measure in MEASURES and quantity.description.kind != "setting"
    return bool(described) and not quantity.early_stopped and not quantity.spread.startswith("seed")


def describe(name: str) -> str:
    """The label of a column, as on the axes of figures; an unknown name as it is."""
    quantity = lookup(name)
    return quantity.words if quantity else name


def direction(name: str) -> str:
    """What a low value of a column means, such as "lower is flatter"; "" where nothing is said."""
    quantity = lookup(name)
    return quantity.description.direction if quantity and not quantity.spread else ""


def named(kind: str) -> tuple[str, ...]:
    """Columns of a kind (`error`, `loss`, `flatness`) at the main radius, those on test examples first;
    flatness is given on test examples alone."""
    splits = ("test",) if kind == "flatness" else ("test", "train")
    of_kind = [q for q in main_quantities() if q.measure in MEASURES and q.description.kind == kind]
    main = [q for q in of_kind if q.description.radius != "coordinate"]
    return tuple(q.name for split in splits for q in main if q.split == split)


def columns_of(columns: Iterable[str]) -> dict[str, Quantity]:
    """Register and return the quantities of the columns of a wide table that hold measures. Users give these
    names, in a table or in the rules of claims; any radius but the main one is part of the name (`_<xi>`)."""
    known = {q.name: q for q in main_quantities() if q.measure in MEASURES}
    found = {}
    for name in columns:
        spread = next((s for s in ("se", "std") if name.endswith(f"_{s}") and name not in known), "")
        stem = name.removesuffix(f"_{spread}") if spread else name
        if stem not in known:
            main, _, radius = stem.rpartition("_")
            if main not in known or not known[main].description.radius or not is_number(radius):
                continue
            known[stem] = replace(known[main], radius=float(radius))
        found[name] = replace(known[stem], spread=spread)
        register(found[name])
    return found


def is_number(cell: str) -> bool:
    """Whether a cell is a number or empty."""
    try:
        return bool(float(cell or "nan")) or True
    except ValueError:
        return False


def is_known(name: str) -> bool:
    """Whether records, training curves or settings of trainings may have a column of this name."""
    return name.startswith("setting_") or name in HISTORY or bool(lookup(name) or columns_of([name]))


def compared() -> tuple[str, ...]:
    """Columns that the table of correlations sets against RLoss and RErr, on test examples."""
    return tuple(q.name for q in main_quantities() if q.description.compared and q.split in ("", "test"))


ERRORS, LOSSES, FLATNESS = map(named, ("error", "loss", "flatness"))
HESSIAN = ("hessian_max", "hessian_min", "convexity")
