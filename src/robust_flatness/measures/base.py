"""Interface of a measure: data, records, description of its metrics, entry in the registry.
Nothing here or in a module of a measure imports torch at its top: planning reads the registry."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from robust_flatness.config import measures as config
from robust_flatness.config.values import Count, Precision, Size
from robust_flatness.runtime.progress import track
from robust_flatness.seeding import derive_seed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robust_flatness.attacks import PGD
    from robust_flatness.attacks.pgd import Loss
    from robust_flatness.measures.objective import Objective
    from robust_flatness.network import Network
else:
    Network = "Network"

#: The checkpoints of a training, beside its snapshots.
CHECKPOINTS = ("last", "best")
LOSSES = {"ce": "CE", "rloss": "RLoss"}
FLATTER, MORE_ROBUST = "lower is flatter", "lower is more robust"


class Record(NamedTuple):
    """One measured number; errors are in per cent, losses in nats.

    `metric` is a key of the measure's `metrics`, or that with the suffix `_std`. `loss` is `ce` (clean) or
    `rloss` (robust), `split` is `test`, `train` or `early_stopping`, `xi` the relative radius in weight
    space, `epsilon` the radius of the attack, `norm` the norm of its ball (`l2`; empty: L-infinity),
    `coordinate` a layer's name, a position along a direction or, as `a,b`, on a plane, or a multiple of the
    radius, `se` the standard error, `n` the number of examples. Fields that do not apply stay empty.
    """

    metric: str
    value: float
    se: float | None = None
    loss: str = ""
    split: str = ""
    xi: float | None = None
    epsilon: float | None = None
    norm: str = ""
    coordinate: str | float = ""
    n: int | None = None


@dataclass(frozen=True)
class Metric:
    """Description of a metric: its column in `models.csv`, its axis label, and what a low value means.

    `column` is the stem of the column name (None: in the records only), `label` the axis label, in which
    `{loss}` stands for CE or RLoss. `kind` is `error` (per cent), `loss` (nats, at least 0), `flatness`,
    `number` (any value) or `setting` (of the measurement). `splits` are those that are measured.

    The column name has the split as a prefix unless it is `unnamed`, the loss as a suffix if `by_loss`, and
    the value of the record's field `radius` (`xi`, or `coordinate`: a multiple of epsilon) as another suffix
    unless it is the main one, which the metric `main` records. `compared` metrics enter the table of
    correlations. `count` is the column of the number of examples.
    """

    column: str | None
    label: str
    kind: Literal["error", "loss", "flatness", "number", "setting"] = "number"
    direction: str = ""
    by_loss: bool = False
    splits: tuple[str, ...] = ("",)
    unnamed: str = ""
    radius: Literal["", "xi", "coordinate"] = ""
    main: str = ""
    compared: bool = False
    count: str = ""

    def name(self, split: str = "", loss: str = "", radius: float | None = None) -> str:
        """Return the name of the column; `radius` is None at the main radius."""
        prefix = f"{split}_" if split and split != self.unnamed else ""
        suffix = f"_{loss}" if self.by_loss else ""
        return prefix + self.column + suffix + ("" if radius is None else f"_{radius:g}")

    def words(self, split: str = "", loss: str = "", radius: float | None = None) -> str:
        """Return the axis label for a split, loss and radius; `radius` is None at the main radius."""
        label = self.label.format(loss=LOSSES.get(loss, loss))
        if split and not self.unnamed:
            label = f"{split.replace('_', '-')} {label}"
        elif split and split != self.unnamed:
            label += f" on {'training' if split == 'train' else split} examples"
        if radius is not None:
            label += f" (ξ = {radius:g})" if self.radius == "xi" else f" at {radius:g} ε"
        return label


@dataclass(frozen=True)
class Measure:
    """Registry entry of a measure.

    `function(net, data, settings)` yields the records of one network, a `Network`, with its data as
    `Examples`. `checkpoints` are measured for each variant or, if `of_snapshots`, the snapshots of each
    trained one. `by_default` lists the variants measured if the experiment has no block `measures`,
    `held_out` states whether early-stopping images are required. Increment `version`, part of the fingerprint
    of results, when the numbers change.
    """

    name: str
    settings: type[config.MeasureSettings]
    function: Callable[[Any, Any, Any], Iterator[Record]]
    metrics: dict[str, Metric]
    checkpoints: tuple[str, ...] = ("last",)
    by_default: tuple[str, ...] | Literal["all"] = "all"
    held_out: bool = False
    of_snapshots: bool = False
    version: int = 1

    def passes(self, settings: config.MeasureSettings, held_out: int, snapshots: int) -> int:
        """Return the estimated cost of a network with this many early-stopping images and snapshots."""
        return (snapshots if self.of_snapshots else len(self.checkpoints)) * settings.passes(held_out)


class OnBothLosses(config.MeasureSettings):
    """Settings shared by measures of both the clean and the robust loss."""

    attack: config.AttackSpec = config.attack_defaults(steps=20, restarts=1)
    train_examples: config.TrainExamples
    test_examples: Annotated[Size, config.FirstExamples("test")] = 0
    """0: on training examples alone."""
    batch_size: Count = config.BATCH_SIZE
    precision: Precision = "float32"


@dataclass
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

    dataset: Any
    device: str = "cpu"
    seed: int = 0
    checkpoint: str = "own"
    weight_bound: float | None = None
    initial_weights: Callable[[], dict[str, "Tensor"] | None] = lambda: None
    folder: Path | None = None
    loss: "Loss | None" = None
    snapshots: Mapping[int, Callable[[], "nn.Module"]] = field(default_factory=dict)
    keep: Callable[[str, Callable[[], Any]], Any] = lambda name, compute: compute()
    references: dict[Any, dict[str, float | None]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    example_values: dict[str, dict[str, list]] = field(default_factory=dict)
    _objectives: dict[Any, "Objective"] = field(default_factory=dict)

    def examples(self, split: str, count: int | None = None) -> tuple["Tensor", "Tensor"]:
        """Return images and labels of the first `count` examples of a split (None: all)."""
        images = self.dataset.images(split, count, self.device)
        return images, self.dataset.labels(split, count, self.device)

    def objectives(
        self, net: Network, split: str, settings: OnBothLosses
    ) -> Iterator[tuple["Objective", dict[str, Any]]]:
        """Yield the clean and the robust loss on a split, with the fields common to their records. Objectives
        are cached, so that measures of equal settings share the adversarial examples."""
        from robust_flatness.measures.objective import Objective

        count, seed = getattr(settings, f"{split}_examples"), self.derived_seed("sharpness")
        attack = pgd(settings.attack, settings.precision)
        losses = [("ce", "ce", {}), ("rloss", attack, settings.attack.ball)]
        for name, loss, ball in track(losses, "loss"):
            key = split, count, loss, settings.batch_size
            if key not in self._objectives:
                x, y = self.examples(split, count)
                self._objectives[key] = Objective(net, x, y, loss, settings.batch_size, seed)
            yield self._objectives[key], {"loss": name, "split": split, **ball, "n": count}

    def derived_seed(self, *names: str) -> int:
        """Return the seed of the random stream called `names`."""
        return derive_seed(self.seed, *names)


def pgd(attack: config.AttackSpec, precision: str) -> "PGD":
    """Return the `PGD` attack with these settings."""
    from robust_flatness.attacks import PGD

    return PGD(**attack.model_dump(), precision=precision)
