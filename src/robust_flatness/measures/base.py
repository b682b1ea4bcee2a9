"""Interface of a measure: its records, the description of its metrics, its entry in the registry."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

#: Checkpoints measured by default, and the marker of measures that run on every training snapshot.
CHECKPOINTS, SNAPSHOTS = ("last", "best"), ("snapshots",)
SPLITS = ("test", "train")
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
    `number` (any value) or `setting` (of the measurement). The column name has the split, one of `splits`, as
    a prefix unless it is `unnamed`, the loss as a suffix if `by_loss`, and the record field `radius`
    (`coordinate`: multiples of epsilon) as a suffix unless it equals the main radius, which the metric `main`
    records. `compared` metrics enter the table of correlations. `count` is the column of the number of
    examples.
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

    `function(net, data, settings)` yields the records of one network, with its data as `Examples`;
    `passes(settings, held_out, snapshots)` returns the cost in passes (forward and backward for one image).
    `checkpoints` are measured for each variant, `by_default` lists the variants measured if the experiment
    has no block `measures`, `held_out` states whether early-stopping images are required. Increment
    `version`, part of the fingerprint of results, when the numbers change.
    """

    name: str
    settings: type
    function: Callable[[Any, Any, Any], Iterator[Record]]
    metrics: dict[str, Metric]
    passes: Callable[[Any, int, int], int]
    checkpoints: tuple[str, ...] = CHECKPOINTS
    by_default: tuple[str, ...] | Literal["all"] = "all"
    held_out: bool = False
    version: int = 1

    @property
    def of_snapshots(self) -> bool:
        """Whether the measure runs on every training snapshot, and thus on trained variants only."""
        return self.checkpoints == SNAPSHOTS
