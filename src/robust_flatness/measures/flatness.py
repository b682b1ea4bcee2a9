"""Average- and worst-case flatness, in RLoss and in CE, at all radii: the block `flatness`."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from robust_flatness.config import measures as config
from robust_flatness.config.values import Count, Positive, Precision, Radii, Spec
from robust_flatness.measures.base import FLATTER, Examples, Measure, Metric, Network, Record, pgd


class AverageSettings(Spec):
    """Average-case flatness at the main radius, the first, and at those of the ablation."""

    xi: Radii = (0.5, 0.25, 0.75, 1.0)
    samples: Count = 10
    clean_samples: Count = 50
    """Samples for the clean loss (flatness in CE)."""
    scope: Literal["dataset", "batch"] = "dataset"
    batch_size: Count = config.BATCH_SIZE

    def passes(self, attack: config.AttackSpec) -> int:
        """Return the passes for one example at all radii."""
        return len(self.xi) * self.samples * attack.steps + self.clean_samples


class WorstSettings(Spec):
    """Worst-case flatness at the main radius, the first, and at those of the ablation."""

    xi: Radii = (0.003, 0.00075, 0.001, 0.005)
    steps: Count = 20
    restarts: Count = 10
    weight_step: Positive = 0.01
    scope: Literal["dataset", "batch"] = "dataset"
    batch_size: Count = config.BATCH_SIZE

    def passes(self) -> int:
        return 2 * (len(self.xi) + 1) * self.steps * self.restarts


#: The defaults, also of the functions in `cases.py`.
AVERAGE, WORST = AverageSettings(), WorstSettings()


class FlatnessSettings(config.MeasureSettings):
    """Flatness of a checkpoint, average- and worst-case, in RLoss and in CE."""

    attack: config.AttackSpec = config.attack_defaults(steps=20, restarts=10)
    """Attack that defines the robust loss; the average-case measure uses one start per sample."""
    average: AverageSettings = AVERAGE
    worst: WorstSettings = WORST
    test_examples: config.TestExamples
    train_examples: config.TrainExamples
    precision: Precision = "float32"

    def passes(self, held_out: int) -> int:
        each = self.attack.passes + self.average.passes(self.attack) + self.worst.passes()
        return (self.test_examples + self.train_examples) * each


#: Field of the settings for each metric.
CASES = {"avg_flatness": "average", "worst_flatness": "worst"}
METRICS = {
    metric: Metric(
        metric, f"{case}-case flatness in {{loss}}", "flatness", FLATTER, by_loss=True, splits=config.SPLITS,
        unnamed="test", radius="xi", main=f"{case}_xi", compared=True, count="flatness_{split}_examples",
    )
    for metric, case in CASES.items()
} | {
    "average_xi": Metric("avg_flatness_xi", "radius of average-case flatness", "setting"),
    "worst_xi": Metric("worst_flatness_xi", "radius of worst-case flatness", "setting"),
    "reference": Metric(None, "{loss} at the unperturbed weights", "loss", splits=config.SPLITS),
    "reference_single": Metric(None, "{loss} by PGD with one start", "loss", splits=config.SPLITS),
}  # fmt: skip


def flatness(
    net: Network, data: Examples, settings: FlatnessSettings, splits: Sequence[str] | None = None,
    losses: Sequence[str] = ("rloss", "ce"),
) -> Iterator[Record]:  # fmt: skip
    """Yield flatness at the main radius for all `splits` (None: those of the settings) and `losses`, at the
    other radii in RLoss on test examples (not for the early-stopped checkpoint), and reference losses."""
    splits = settings.splits if splits is None else splits
    for metric, case in CASES.items():
        main, *others = getattr(settings, case).xi
        yield Record(f"{case}_xi", main)
        jobs = [(split, loss, main) for loss in losses for split in splits]
        jobs += [("test", "rloss", xi) for xi in others if data.checkpoint != "best"]
        for split, loss, xi in jobs:
            yield from case_records(net, data, settings, metric, split, loss, xi)
    for split, loss in itertools.product(splits, losses):
        where = {"loss": loss, "split": split, "n": getattr(settings, f"{split}_examples")}
        where |= settings.attack.ball if loss == "rloss" else {}
        for name, value in reference(data, settings, split, loss).items():
            yield Record(name, value, **where)


def case_records(
    net: Network, data: Examples, settings: Any, metric: str, split: str, loss: str, xi: float,
    layer: str = "",
) -> Iterator[Record]:  # fmt: skip
    """Yield average- or worst-case flatness on one split at one radius, of all layers or of `layer` alone."""
    from robust_flatness.measures.cases import average_flatness, worst_flatness

    case, known = CASES[metric], reference(data, settings, split, loss)
    x, y = data.examples(split, getattr(settings, f"{split}_examples"))
    attack = pgd(settings.attack, settings.precision) if loss == "rloss" else None
    options = getattr(settings, case).model_dump(exclude={"xi", "clean_samples"}) | {
        "attack": attack, "xi": xi, "precision": settings.precision, "reference": known.get("reference"),
        "seed": data.derived_seed("flatness", case),
        "weight_bound": data.weight_bound, "layers": [layer] if layer else None, "loss": data.loss,
    }  # fmt: skip
    function, names = worst_flatness, ["value", "reference"]
    if case == "average":
        function, names = average_flatness, [*names, "reference_single", "std", "standard_error"]
        options["reference_single"] = known.get("reference_single")
        options["samples"] = options["samples"] if attack else settings.average.clean_samples

    def measured() -> dict[str, float | None]:
        result = function(net, x, y, **options)
        return {name: getattr(result, name) for name in names}

    key = "-".join(filter(None, (metric, loss, split, f"{xi:g}", layer.replace("/", ":"))))
    result = data.keep(key, measured)
    known |= {name: result[name] for name in names if name.startswith("reference")}
    where = {"loss": loss, "split": split, "xi": xi, "coordinate": layer, "n": len(x)}
    where |= settings.attack.ball if attack else {}
    yield Record(metric, result["value"], result.get("standard_error"), **where)
    if case == "average" and result["std"] is not None:
        yield Record(f"{metric}_std", result["std"], **where)


def reference(data: Examples, settings: Any, split: str, loss: str) -> dict[str, float]:
    """Return the cached losses at the unperturbed weights by name, a mapping that callers update in place."""
    attack = (settings.attack, settings.precision) if loss == "rloss" else None
    return data.references.setdefault((split, getattr(settings, f"{split}_examples"), attack), {})


MEASURE = Measure("flatness", FlatnessSettings, flatness, METRICS, ("last", "best"))
