"""Flatness in RLoss with one layer perturbed at a time."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_flatness.config.measures import AttackSpec, MeasureSpec, Setting
from robust_flatness.config.values import Count, Precision
from robust_flatness.measuring.base import Measure, Measured, pgd
from robust_flatness.measuring.flatness import (
    AverageFlatnessSpec,
    WorstFlatnessSpec,
    average_passes,
    of_case,
    worst_passes,
)
from robust_flatness.runtime.progress import stage, told
from robust_flatness.tables.columns import Column

if TYPE_CHECKING:
    from robust_flatness.checkpoints import Checkpoint as Network
    from robust_flatness.data import Dataset

#: Layers of a network that is not known yet, for its cost: as a ResNet-18 has.
USUAL = 22


class LayersSpec(MeasureSpec):
    """Flatness in RLoss layer by layer, on test examples, at the first radius of each case."""

    attack: AttackSpec
    average: AverageFlatnessSpec = AverageFlatnessSpec(xi=(0.5,))
    worst: WorstFlatnessSpec | None = None
    """None: the average case alone."""
    test_examples: Count
    precision: Precision = "float32"

    @classmethod
    def defaults(cls, setting: Setting) -> dict[str, Any]:
        return {
            "attack": setting.attack(steps=20, restarts=10),
            "test_examples": min(1000, setting.test),
        }


def layers(
    checkpoint: "Network",
    dataset: "Dataset",
    spec: LayersSpec,
    seed: int,
    device: str = "cpu",
    state: Path | None = None,
) -> Measured:
    r"""Flatness of each layer l: that of the neighbourhood in which it alone moves,

    .. math:: \|\nu^{(l)}\|_2 \le \xi\,\|w^{(l)}\|_2, \qquad \nu^{(m)} = 0 \text{ for } m \ne l.

    A layer is one tensor of the neighbourhood (docs/method.md); weight and bias are two. On equal seeds
    :math:`\nu^{(l)}` is that of the measures of all layers at once. In `details["layers"]` a row for each:
    `layer` (its name), `numbers` (in it), `avg_flatness_rloss` and its `_se`, and, if asked for,
    `worst_flatness_rloss`.
    """
    from robust_flatness.flatness import perturbed_parameters

    x = dataset.images("test", spec.test_examples, device)
    y = dataset.labels("test", spec.test_examples, device)
    attack = pgd(spec.attack, spec.precision)
    net, rows, known = checkpoint.network, [], {}
    cases = {"avg_flatness_rloss": ("average", spec.average), "worst_flatness_rloss": ("worst", spec.worst)}
    with stage("flatness layer by layer"):
        for number, name in enumerate(told(perturbed_parameters(net), "layer")):
            row = {"layer": name, "numbers": net.weights([name])[name].numel()}
            for column, (case, part) in cases.items():
                if part is not None:
                    found = of_case(
                        case, checkpoint, x, y, part, seed, known,
                        state and state / f"{checkpoint.name}-{column}-{number}",
                        attack=attack, xi=part.xi[0], precision=spec.precision, layers=[name],
                    )  # fmt: skip
                    row[column] = found["value"]
                    if case == "average":
                        row[f"{column}_se"] = found["standard_error"]
            rows.append(row)
    return Measured({"layers_test_examples": spec.test_examples}, {"layers": rows, **known})


def passes(spec: LayersSpec, held_out: int, snapshots: int) -> int:
    """The measures of all layers at once, as often as there are layers."""
    each = average_passes(spec.average, spec.attack)
    each += worst_passes(spec.worst) if spec.worst else 0
    return USUAL * spec.test_examples * each


MEASURE = Measure(
    name="layers",
    spec=LayersSpec,
    function=layers,
    passes=passes,
    columns=(Column("layers_test_examples", "test examples of flatness layer by layer", "setting"),),
    checkpoints=("last",),
    rows="layers",
    row_keys=("layer",),
    by_default=(),
)
