"""What an entry of the registry says, and what a measure returns."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from robust_flatness.config.measures import AttackSpec, MeasureSettings
from robust_flatness.tables.columns import Column

SPLITS = ("test", "train")
CHECKPOINTS = ("last", "best")
#: In place of checkpoints: every snapshot of a training.
SNAPSHOTS = ("snapshots",)


@dataclass
class Measured:
    """`values` go into the results table; `details`, the distribution behind them, stay in the
    measure's file."""

    values: dict[str, float | int | str] = field(default_factory=dict)
    details: dict = field(default_factory=dict)


class Function(Protocol):
    """Measures one network: `function(checkpoint, dataset, spec, seed, device, state) -> Measured`. The
    checkpoint is a `models.checkpoint.Network`, one of this kit or anyone's.

    `values` are flat, in the names of the results table (errors in per cent, losses in nats). All
    variants are measured with the same examples, starts and directions, which derive from `seed`.
    `state` is a folder in which unfinished work may be kept. Torch is imported inside the function:
    planning reads the registry and does without.
    """

    def __call__(
        self, checkpoint: Any, dataset: Any, spec: Any, seed: int, device: str = "cpu", state: Any = None
    ) -> Measured: ...


@dataclass(frozen=True)
class Measure:
    """A measure: all that the config, the command line, the workflow and the tables know of it.

    `passes(spec, held_out, snapshots)` is the number of passes (forward and backward through the network
    for one image) of a job, with `held_out` images for early stopping and at most that many snapshots.
    `columns` are its columns of the results table, with their words. `rows` names the entry of
    `details` whose rows become the table `<name>.csv`, in which the columns `row_keys` tell those of a
    checkpoint apart.
    """

    name: str
    spec: type[MeasureSettings]
    function: Function
    passes: Callable[[Any, int, int], int]
    columns: tuple[Column, ...]
    checkpoints: tuple[str, ...] = CHECKPOINTS
    by_default: tuple[str, ...] | Literal["all"] = "all"
    """Variants that it is made of in an experiment that does not say what is measured. What is made of all
    of them comes along in every experiment."""
    rows: str | None = None
    row_keys: tuple[str, ...] = ()
    held_out: bool = False
    """Whether it needs the images of early stopping."""
    examples: bool = False
    """Whether `details["examples"]` holds values of single examples: split -> column -> list."""

    @property
    def of_snapshots(self) -> bool:
        """Whether it is made of every snapshot of a training, so of trained models alone."""
        return self.checkpoints == SNAPSHOTS

    def weights(self, stopped: bool = True) -> tuple[str, ...]:
        """The checkpoints that must be there; snapshots lie beside the last one. Without an early-stopped
        one, as networks of others are (not `stopped`), the last alone."""
        return self.checkpoints if stopped and not self.of_snapshots else CHECKPOINTS[:1]

    def outputs(self, stopped: bool = True) -> tuple[str, ...]:
        """The files of a job, below the folder of a variant and seed."""
        if self.of_snapshots:
            return f"{self.name}.csv", *((f"{self.name}-examples.csv",) if self.examples else ())
        return tuple(f"measures/{checkpoint}/{self.name}.json" for checkpoint in self.weights(stopped))


def splits_of(spec: Any) -> list[str]:
    """The splits of which examples are asked for."""
    return [split for split in SPLITS if getattr(spec, f"{split}_examples")]


def pgd(spec: AttackSpec, precision: str):
    """The attack of a spec."""
    from robust_flatness.attacks import PGD

    return PGD(spec.epsilon, spec.step_size, spec.steps, spec.restarts, precision=precision)
