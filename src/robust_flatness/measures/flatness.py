"""Average- and worst-case flatness, in RLoss and in CE, at all radii: the block `flatness`."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from robust_flatness.config.measures import (
    AttackSpec,
    MeasureSettings,
    TestExamples,
    TrainExamples,
    attack_defaults,
)
from robust_flatness.config.values import Count, Positive, Precision, Radii, Spec
from robust_flatness.measures.base import CHECKPOINTS, FLATTER, LOSSES, SPLITS, Measure, Metric, Record
from robust_flatness.measures.cost import attack_passes
from robust_flatness.measures.examples import BATCH_SIZE, Examples, ball, pgd, splits_of
from robust_flatness.runtime.progress import stage
from robust_flatness.seeding import derive_seed

if TYPE_CHECKING:
    from robust_flatness.attacks import PGD
    from robust_flatness.network import Network


class AverageSettings(Spec):
    """Average-case flatness at the main radius, the first, and at those of the ablation."""

    xi: Radii = (0.5, 0.25, 0.75, 1.0)
    samples: Count = 10
    clean_samples: Count = 50
    """Samples for the clean loss (flatness in CE)."""
    scope: Literal["dataset", "batch"] = "dataset"
    batch_size: Count = BATCH_SIZE


class WorstSettings(Spec):
    """Worst-case flatness at the main radius, the first, and at those of the ablation."""

    xi: Radii = (0.003, 0.00075, 0.001, 0.005)
    steps: Count = 20
    restarts: Count = 10
    weight_step: Positive = 0.01
    scope: Literal["dataset", "batch"] = "dataset"
    batch_size: Count = BATCH_SIZE


#: The defaults, also of the functions in `average.py` and `worst.py`.
AVERAGE, WORST = AverageSettings(), WorstSettings()


class FlatnessSettings(MeasureSettings):
    """Flatness of a checkpoint, average- and worst-case, in RLoss and in CE."""

    attack: AttackSpec = attack_defaults(steps=20, restarts=10)
    """Attack of RLoss(w); each sample of the average-case measure attacks with one start."""
    average: AverageSettings = AVERAGE
    worst: WorstSettings = WORST
    test_examples: TestExamples
    train_examples: TrainExamples
    """0: the training split is left out."""
    precision: Precision = "float32"


#: Fields of the settings by metric.
CASES = {"avg_flatness": "average", "worst_flatness": "worst"}
METRICS = {
    metric: Metric(
        metric, f"{case}-case flatness in {{loss}}", "flatness", FLATTER, by_loss=True, splits=SPLITS,
        unnamed="test", radius="xi", main=f"{case}_xi", std=case == "average", compared=True,
        count="flatness_{split}_examples",
    )
    for metric, case in CASES.items()
} | {
    "average_xi": Metric("avg_flatness_xi", "radius of average-case flatness", "setting"),
    "worst_xi": Metric("worst_flatness_xi", "radius of worst-case flatness", "setting"),
    "reference": Metric(None, "{loss} at the unperturbed weights", "loss", splits=SPLITS),
    "reference_single": Metric(None, "{loss} by PGD with one start", "loss", splits=SPLITS),
}  # fmt: skip


def flatness(net: "Network", data: Examples, settings: FlatnessSettings) -> Iterator[Record]:
    """Flatness at the main radius on both splits in RLoss and CE; at the other radii in RLoss on test
    examples, except for the early-stopped checkpoint."""
    ablation = data.checkpoint != "best"
    yield from flatness_records(net, data, settings, splits_of(settings), ("rloss", "ce"), ablation)


def flatness_records(
    net: "Network", data: Examples, settings: FlatnessSettings, splits: Sequence[str], losses: Sequence[str],
    ablation: bool,
) -> Iterator[Record]:  # fmt: skip
    """Records of both cases, and of the references that they are relative to."""
    for metric, case in CASES.items():
        main, *others = getattr(settings, case).xi
        yield Record(f"{case}_xi", main)
        jobs = [(split, loss, main) for loss in losses for split in splits]
        jobs += [("test", "rloss", xi) for xi in others if ablation]
        for split, loss, xi in jobs:
            yield from case_records(net, data, settings, metric, split, loss, xi)
    for split, loss in itertools.product(splits, losses):
        attack, count = _attack(settings, loss), getattr(settings, f"{split}_examples")
        where = {"loss": loss, "split": split, **ball(attack), "n": count}
        for name, value in reference(data, settings, split, loss).items():
            if value is not None:
                yield Record(name, value, **where)


def case_records(
    net: "Network", data: Examples, settings: Any, metric: str, split: str, loss: str, xi: float,
    layer: str = "",
) -> Iterator[Record]:  # fmt: skip
    """Average- or worst-case flatness on one split at one radius, of all layers or of `layer` alone."""
    from robust_flatness.measures.average import average_flatness
    from robust_flatness.measures.worst import worst_flatness

    case, attack = CASES[metric], _attack(settings, loss)
    part, known = getattr(settings, case), reference(data, settings, split, loss)
    x, y = data.examples(split, getattr(settings, f"{split}_examples"))
    options: dict[str, Any] = {
        "attack": attack, "xi": xi, "batch_size": part.batch_size, "scope": part.scope,
        "seed": derive_seed(data.seed, "flatness", case), "precision": settings.precision,
        "weight_bound": data.weight_bound, "layers": [layer] if layer else None,
    }  # fmt: skip
    if case == "average":
        function, names = average_flatness, ("reference", "reference_single")
        options["samples"] = part.samples if loss == "rloss" else part.clean_samples
    else:
        function, names = worst_flatness, ("reference",)
        options |= {name: getattr(part, name) for name in ("steps", "restarts", "weight_step")}
    options |= {name: known.get(name) for name in names}
    key = "-".join(filter(None, (metric, loss, split, f"{xi:g}", layer.replace("/", ":"))))
    with stage(METRICS[metric].label.format(loss=LOSSES[loss])):
        result = data.keep(key, lambda: function(net, x, y, **options).as_json())
    known |= {name: result[name] for name in names}
    where = {"loss": loss, "split": split, "xi": xi, **ball(attack)}
    where |= {"coordinate": layer, "n": len(x)}
    yield Record(metric, result["value"], result["standard_error"] if case == "average" else None, **where)
    if case == "average" and result["std"] is not None:
        yield Record(f"{metric}_std", result["std"], **where)


def reference(data: Examples, settings: Any, split: str, loss: str) -> dict[str, float | None]:
    """RLoss(w) or the clean loss, where it has been measured with these settings; the measures fill it in."""
    count = getattr(settings, f"{split}_examples")
    return data.references.setdefault((split, count, _attack(settings, loss)), {})


def _attack(settings: Any, loss: str) -> "PGD | None":
    return pgd(settings.attack, settings.precision) if loss == "rloss" else None


def passes(settings: FlatnessSettings, held_out: int, snapshots: int) -> int:
    """Both cases on both splits of every checkpoint."""
    once = attack_passes(settings.attack)
    each = once + average_passes(settings.average, settings.attack) + worst_passes(settings.worst)
    return len(CHECKPOINTS) * (settings.test_examples + settings.train_examples) * each


def average_passes(settings: AverageSettings, attack: AttackSpec) -> int:
    """Passes for one example at all radii."""
    return len(settings.xi) * settings.samples * attack.steps + settings.clean_samples


def worst_passes(settings: WorstSettings) -> int:
    """Passes for one example at all radii."""
    return 2 * (len(settings.xi) + 1) * settings.steps * settings.restarts


MEASURE = Measure("flatness", FlatnessSettings, flatness, METRICS, passes)
