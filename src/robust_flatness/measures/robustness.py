"""Errors and losses, clean, by PGD and by AutoAttack: the block `robustness`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from robust_flatness.config import measures as config
from robust_flatness.config.data import DataSpec
from robust_flatness.config.values import Count, Precision, Size
from robust_flatness.measures.base import MORE_ROBUST, Examples, Measure, Metric, Network, Record, pgd


class RobustnessSettings(config.MeasureSettings):
    """Robustness of a checkpoint: PGD for RLoss, AutoAttack for RErr, clean error and loss."""

    attack: config.AttackSpec = config.attack_defaults(steps=20, restarts=10)
    autoattack: config.AutoAttackSpec | None = config.AutoAttackSpec()
    test_examples: config.TestExamples
    recorded_test_examples: Annotated[
        Size, config.FirstExamples("test"), Field(exclude_if=lambda count: count == 0)
    ] = 0
    """Number of test examples whose individual losses and errors under attack are recorded. Means are over
    the first `test_examples`; as many are recorded if this is smaller."""
    train_examples: config.TrainExamples
    clean_test_examples: Annotated[Count, config.FirstExamples("test", 10_000)]
    clean_train_examples: Annotated[Size, config.FirstExamples("train", 10_000)]
    batch_size: Count = config.BATCH_SIZE
    precision: Precision = "float32"

    def problems(self, data: DataSpec) -> Iterator[str]:
        yield from super().problems(data)
        if self.autoattack and data.known_classes:
            yield from (f"autoattack.{text}" for text in self.autoattack.problems(data.known_classes))

    def passes(self, held_out: int) -> int:
        each = self.attack.passes + (self.autoattack.passes if self.autoattack else 0)
        return (max(self.test_examples, self.recorded_test_examples) + self.train_examples) * each


def _metric(name: str, label: str, kind: Any, direction: str = MORE_ROBUST, of: str = "robust") -> Metric:
    return Metric(name, label, kind, direction, splits=config.SPLITS, count=f"{of}_{{split}}_examples")


METRICS = {
    "err": _metric("err", "Err (%)", "error", "", "clean"),
    "rerr_pgd": _metric("rerr_pgd", "RErr, PGD (%)", "error"),
    "rerr_aa": _metric("rerr_aa", "RErr, AutoAttack (%)", "error"),
    "ce": _metric("ce", "CE", "loss", "", "clean"),
    "rloss_pgd": _metric("rloss_pgd", "RLoss", "loss"),
    "rloss_aa": _metric("rloss_aa", "CE on AutoAttack's examples", "loss"),
}


def robustness(net: Network, data: Examples, settings: RobustnessSettings) -> Iterator[Record]:
    """Yield Err, CE, RErr and RLoss on both splits, with standard errors over examples."""
    from robust_flatness.measures.losses import evaluate_robustness, mean_records

    if settings.autoattack:
        data.notes["autoattack"] = settings.autoattack.description
    for split in settings.splits:
        x, y = data.examples(split, getattr(settings, f"clean_{split}_examples"))
        options = {"batch_size": settings.batch_size, "loss": data.loss}
        result = evaluate_robustness(net, x, y, attack=None, **options)
        yield from mean_records(result.clean, ("err", "ce"), "ce", {"split": split, "n": len(x)})
        yield from robust_records(net, data, settings, split, settings.batch_size, settings.autoattack)


def robust_records(
    net: Network, data: Examples, settings: Any, split: str, batch_size: int,
    autoattack: config.AutoAttackSpec | None = None,
) -> Iterator[Record]:  # fmt: skip
    """Yield RErr and RLoss on one split; add the losses and errors of all attacked examples to `data`."""
    from robust_flatness.measures.losses import evaluate_robustness, mean_records

    count = getattr(settings, f"{split}_examples")
    x, y = data.examples(split, max(count, getattr(settings, f"recorded_{split}_examples", 0)))
    state = data.folder and Path(data.folder) / f"autoattack-{split}-{data.checkpoint}"
    result = evaluate_robustness(
        net, x, y, attack=pgd(settings.attack, settings.precision), autoattack=autoattack or False,
        batch_size=batch_size, seed=data.derived_seed("robustness", split), loss=data.loss, state_path=state,
    )  # fmt: skip
    where = {"split": split, **settings.attack.ball, "n": count}
    values = data.example_values.setdefault(split, {})
    for name, found, of_loss in (("pgd", result.pgd, "rloss"), ("aa", result.autoattack, "rloss_aa")):
        if found is not None:
            first, metrics = found.rows(slice(count)), (f"rerr_{name}", f"rloss_{name}")
            yield from mean_records(first, metrics, "rloss", where)
            values[of_loss], values[f"rerr_{name}"] = found.lists()


MEASURE = Measure("robustness", RobustnessSettings, robustness, METRICS, ("last", "best"))
