"""Average- and worst-case flatness, in RLoss and in CE, at all radii."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robust_flatness.config.measures import AttackSpec, MeasureSpec, Setting
from robust_flatness.config.values import Count, Positive, Precision, Radii, Size, Spec
from robust_flatness.measuring.base import CHECKPOINTS, SPLITS, Measure, Measured, pgd, splits_of
from robust_flatness.measuring.cost import attack_passes
from robust_flatness.runtime.progress import stage
from robust_flatness.seeding import derive_seed
from robust_flatness.tables.columns import FLATTER, Column

if TYPE_CHECKING:
    from torch import Tensor

    from robust_flatness.checkpoints import Checkpoint as Network
    from robust_flatness.data import Dataset


class AverageFlatnessSpec(Spec):
    """Average-case flatness: first radius the main one, the others the ablation's."""

    xi: Radii = (0.5, 0.25, 0.75, 1.0)
    samples: Count = 10
    clean_samples: Count = 50
    """Samples for the clean loss (flatness in CE)."""
    scope: Literal["dataset", "batch"] = "dataset"
    batch_size: Count = 128


class WorstFlatnessSpec(Spec):
    """Worst-case flatness: first radius the main one, the others the ablation's."""

    xi: Radii = (0.003, 0.00075, 0.001, 0.005)
    steps: Count = 20
    restarts: Count = 10
    weight_step: Positive = 0.01
    scope: Literal["dataset", "batch"] = "dataset"
    batch_size: Count = 128


class FlatnessSpec(MeasureSpec):
    """Flatness of a checkpoint, average- and worst-case, in RLoss and in CE."""

    attack: AttackSpec
    """Attack of RLoss(w); each sample of the average-case measure attacks with one start."""
    average: AverageFlatnessSpec = AverageFlatnessSpec()
    worst: WorstFlatnessSpec = WorstFlatnessSpec()
    test_examples: Count
    train_examples: Size
    """0: the training split is left out."""
    precision: Precision = "float32"

    @classmethod
    def defaults(cls, setting: Setting) -> dict[str, Any]:
        return {"attack": setting.attack(steps=20, restarts=10), **setting.examples(1000)}


#: The columns, by case and whether the examples are attacked.
COLUMNS = {
    (case, attacked): Column(
        f"{short}_flatness_{'rloss' if attacked else 'ce'}",
        f"{case}-case flatness in {'RLoss' if attacked else 'CE'}",
        kind="flatness", splits="train", radii=True, spread=case == "average", direction=FLATTER,
        compared=True,
    )
    for attacked in (True, False)
    for case, short in (("average", "avg"), ("worst", "worst"))
}  # fmt: skip


def flatness(
    checkpoint: "Network",
    dataset: "Dataset",
    spec: FlatnessSpec,
    seed: int,
    device: str = "cpu",
    state: Path | None = None,
    *,
    splits: Sequence[str] | None = None,
    clean: bool = True,
    test_rloss: float | None = None,
) -> Measured:
    """Average- and worst-case flatness in RLoss and, if `clean`, in CE.

    `state` is a folder in which finished parts are kept, to go on from there after an interruption.
    `test_rloss` is RLoss(w) of the test examples, where it is known, of the same attack.

    The main radius on every split; the other radii, for the ablation, on test examples and not
    for the early-stopped checkpoint.
    """
    splits = splits_of(spec) if splits is None else splits
    measured = Measured(
        {"avg_flatness_xi": spec.average.xi[0], "worst_flatness_xi": spec.worst.xi[0]}
        | {f"flatness_{split}_examples": getattr(spec, f"{split}_examples") for split in splits}
    )
    ablation = checkpoint.name != "best"
    if test_rloss is not None:
        single = test_rloss if spec.attack.restarts == 1 else None
        measured.details["reference_test_rloss"] = {"reference": test_rloss, "reference_single": single}
    for split, case, attacked, index in _flatness_jobs(spec, splits, clean, ablation):
        part = getattr(spec, case)
        count = getattr(spec, f"{split}_examples")
        x, y = dataset.images(split, count, device), dataset.labels(split, count, device)
        xi = part.xi[index]
        column = flatness_column(split, case, attacked, None if index == 0 else xi)
        known = measured.details.setdefault(f"reference_{split}_{'rloss' if attacked else 'ce'}", {})
        attack = pgd(spec.attack, spec.precision) if attacked else None
        with stage(COLUMNS[case, attacked].parse(column).words):
            result = of_case(
                case, checkpoint, x, y, part, seed, known, state and state / f"{checkpoint.name}-{column}",
                attack=attack, xi=xi, precision=spec.precision,
            )  # fmt: skip
        measured.values[column] = result["value"]
        measured.details[column] = {"perturbed": result["perturbed"], "xi": xi}
        if case == "average":
            measured.values[f"{column}_std"] = result["std"]
            measured.values[f"{column}_se"] = result["standard_error"]
    return measured


def of_case(
    case: str,
    checkpoint: "Network",
    x: "Tensor",
    y: "Tensor",
    part: AverageFlatnessSpec | WorstFlatnessSpec,
    seed: int,
    known: dict[str, float | None],
    file: Path | None,
    **options: Any,
) -> dict[str, Any]:
    """Average- or worst-case flatness with the settings `part`, as JSON's values (`FlatnessResult`).

    `known` holds RLoss(w) where it has been measured, and does so at the end. `file` keeps the result for the
    case of an interruption.
    """
    from robust_flatness.flatness import average_flatness, worst_flatness
    from robust_flatness.resumable import kept

    options |= {"seed": derive_seed(seed, "flatness", case)}
    options |= {"batch_size": part.batch_size, "scope": part.scope}
    options |= {"weight_bound": checkpoint.weight_bound, "reference": known.get("reference")}
    if case == "average":
        function, names = average_flatness, ("reference", "reference_single")
        options |= {
            "samples": part.clean_samples if options["attack"] is None else part.samples,
            "reference_single": known.get("reference_single"),
        }
    else:
        function, names = worst_flatness, ("reference",)
        options |= {name: getattr(part, name) for name in ("steps", "restarts", "weight_step")}
    result = kept(file, lambda: function(checkpoint.network, x, y, **options).as_json())
    known |= {name: result[name] for name in names}
    return result


def flatness_column(split: str, case: str, attacked: bool, xi: float | None = None) -> str:
    """Name of a flatness column; `xi` for a radius other than the main one.

    >>> flatness_column("train", "average", True), flatness_column("test", "worst", True, 0.00075)
    ('train_avg_flatness_rloss', 'worst_flatness_rloss_0.00075')
    """
    return COLUMNS[case, attacked].name(split, xi)


def _flatness_jobs(
    spec: FlatnessSpec, splits: Sequence[str], clean: bool, ablation: bool
) -> Iterator[tuple[str, str, bool, int]]:
    """(split, case, attacked, index of the radius), main radii first."""
    for case in ("average", "worst"):
        for attacked in (True, False) if clean else (True,):
            for split in splits:
                yield split, case, attacked, 0
        for index in range(1, len(getattr(spec, case).xi) if ablation else 1):
            yield "test", case, True, index


def passes(spec: FlatnessSpec, held_out: int, snapshots: int) -> int:
    """Both cases on both splits of every checkpoint."""
    each = attack_passes(spec.attack) + average_passes(spec.average, spec.attack) + worst_passes(spec.worst)
    return len(CHECKPOINTS) * (spec.test_examples + spec.train_examples) * each


def average_passes(spec: AverageFlatnessSpec, attack: AttackSpec) -> int:
    """Passes for one example at all radii."""
    return len(spec.xi) * spec.samples * attack.steps + spec.clean_samples


def worst_passes(spec: WorstFlatnessSpec) -> int:
    """Passes for one example at all radii."""
    return 2 * (len(spec.xi) + 1) * spec.steps * spec.restarts


MEASURE = Measure(
    name="flatness",
    spec=FlatnessSpec,
    function=flatness,
    passes=passes,
    columns=(
        *COLUMNS.values(),
        Column("avg_flatness_xi", "radius of average-case flatness", "setting"),
        Column("worst_flatness_xi", "radius of worst-case flatness", "setting"),
        *(
            Column(f"flatness_{split}_examples", f"{split} examples of flatness", "setting")
            for split in SPLITS
        ),
    ),
)
