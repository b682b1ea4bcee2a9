"""Measures of sharpness, margin and capacity other than the paper's, on the clean and the robust loss."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from robust_flatness.config.data import DataSpec
from robust_flatness.config.kinds import imported
from robust_flatness.config.measures import AttackSpec, MeasureSpec, Setting
from robust_flatness.config.values import Count, Positive, Precision, Size, parse_list
from robust_flatness.config.variants import BASELINE
from robust_flatness.errors import UndefinedError, warn
from robust_flatness.measuring.base import SPLITS, Measure, Measured, pgd, splits_of
from robust_flatness.measuring.cost import attack_passes
from robust_flatness.runtime.progress import told
from robust_flatness.seeding import derive_seed
from robust_flatness.tables.columns import FLATTER, Column

if TYPE_CHECKING:
    from robust_flatness.checkpoints import Checkpoint as Network
    from robust_flatness.data import Dataset

SIZES = ("small", "large")
LOSSES = {"ce": "clean loss", "rloss": "robust loss"}
#: What columns and words of measures on test examples have besides.
ON_TEST, WORDS_ON_TEST = "test_", ", on test examples"


@dataclass(frozen=True)
class Entry:
    """A measure of `robust_flatness.sharpness`: its function there, what it is called, what it costs.

    `cost(spec)` are passes for an example on the clean loss, `attacks(spec)` the attacks on all of them
    that it needs besides on the robust loss. `options(spec)` are further arguments.
    """

    function: str
    words: str
    cost: Callable[[Any], int]
    attacks: Callable[[Any], int] = lambda spec: 1
    options: Callable[[Any], dict[str, Any]] = lambda spec: {}


def _adaptive() -> Iterator[tuple[str, Entry]]:
    """Adaptive sharpness at both radii, on logits as they are and normalised."""
    for index, size in enumerate(SIZES):
        for normalised in (False, True):
            suffix = f"{size}{'_normalised' if normalised else ''}"
            words = f"{size} radius{', logits normalised' if normalised else ''}"
            yield (
                f"adaptive_linf_worst_{suffix}",
                Entry(
                    "adaptive_linf_worst",
                    f"adaptive worst-case sharpness, {words}",
                    lambda spec: 2 * spec.adaptive_steps,
                    lambda spec: 3,
                    lambda spec, index=index, normalised=normalised: {
                        "rho": spec.worst_rho[index], "steps": spec.adaptive_steps, "normalised": normalised,
                    },
                ),
            )  # fmt: skip
            yield (
                f"adaptive_average_{suffix}",
                Entry(
                    "adaptive_average",
                    f"adaptive average-case sharpness, {words}",
                    lambda spec: spec.samples,
                    lambda spec: spec.samples + 1,
                    lambda spec, index=index, normalised=normalised: {
                        "rho": spec.average_rho[index], "samples": spec.samples, "normalised": normalised,
                    },
                ),
            )  # fmt: skip


#: Measures of a loss: columns `<name>_ce` and `<name>_rloss`.
OF_LOSSES: dict[str, Entry] = {
    "hessian_eigenvalue": Entry(
        "hessian_eigenvalue", "largest Hessian eigenvalue, all weights", lambda s: 100
    ),
    "hessian_trace": Entry(
        "hessian_trace",
        "trace of the Hessian",
        lambda s: 2 * s.vectors,
        options=lambda s: {"samples": s.vectors},
    ),
    "fisher_trace": Entry("fisher_trace", "trace of the Fisher matrix", lambda s: 2),
    "fisher_rao": Entry("fisher_rao", "Fisher-Rao norm", lambda s: 2),
    "relative_flatness": Entry("relative_flatness", "relative flatness of the last layer", lambda s: 1),
    "sam_one_step": Entry(
        "sam", "SAM's sharpness, one step", lambda s: 2, lambda s: 3, lambda s: {"rho": s.sam_rho, "steps": 1}
    ),
    "sam": Entry(
        "sam",
        "SAM's sharpness",
        lambda s: 2 * s.steps,
        lambda s: 3,
        lambda s: {"rho": s.sam_rho, "steps": s.steps},
    ),
    "asam_one_step": Entry(
        "asam",
        "ASAM's sharpness, one step",
        lambda s: 2,
        lambda s: 3,
        lambda s: {"rho": s.asam_rho, "steps": 1},
    ),
    "asam": Entry(
        "asam",
        "ASAM's sharpness",
        lambda s: 2 * s.steps,
        lambda s: 3,
        lambda s: {"rho": s.asam_rho, "steps": s.steps},
    ),
    **dict(_adaptive()),
    "pacbayes_sigma": Entry(
        "pacbayes_sigma",
        "PAC-Bayes sharpness 1/σ²",
        lambda s: s.halvings * s.samples,
        lambda s: s.halvings * s.samples,
        lambda s: {"samples": s.samples, "iterations": s.halvings},
    ),
    "gradient_norm": Entry("gradient_norm", "norm of the gradient by the weights", lambda s: 1),
    "input_gradient_norm": Entry("input_gradient_norm", "norm of the gradient by the input", lambda s: 1),
    "margin": Entry("margin", "margin, 10th percentile", lambda s: 1),
}
#: Measures of the weights alone: columns of these names.
OF_WEIGHTS: dict[str, str] = {
    "weight_norm": "norm of the weights",
    "distance_from_init": "distance from the initial weights",
    "spectral_product": "product of spectral norms",
}
NAMES = (*OF_LOSSES, *OF_WEIGHTS)


def _two(value: tuple[float, ...]) -> tuple[float, ...]:
    if len(value) != 2 or value[0] >= value[1]:
        raise ValueError("name two radii, the smaller one first")
    return value


TwoRadii = Annotated[tuple[Positive, ...], BeforeValidator(parse_list), AfterValidator(_two)]
Names = Literal["all"] | Annotated[tuple[str, ...], BeforeValidator(parse_list)]


class SharpnessSpec(MeasureSpec):
    """Sharpness of the last checkpoint on training and, beside it, test examples."""

    measures: Names = "all"
    own: dict[str, str] = Field(default_factory=dict)
    """Measures of one's own: name -> package.module:function, called as those of the kit are."""
    attack: AttackSpec
    train_examples: Count
    test_examples: Size = 0
    """0: on training examples alone."""
    test_measures: Names = "all"
    """Those made on test examples, too."""
    batch_size: Count = 128
    vectors: Count = 20
    """Random vectors of the trace."""
    samples: Count = 4
    """Draws of the noise in the weights."""
    steps: Count = 20
    """Steps of SAM's and ASAM's ascent."""
    adaptive_steps: Count = 20
    halvings: Count = 12
    """Bisections for PAC-Bayes' sigma."""
    sam_rho: Positive = 0.05
    asam_rho: Positive = 0.5
    worst_rho: TwoRadii = (0.001, 0.004)
    """Radii of adaptive sharpness, chosen on the baseline so that its loss rises by about 0.1 and 1."""
    average_rho: TwoRadii = (0.1, 0.3)
    precision: Precision = "float32"

    @classmethod
    def defaults(cls, setting: Setting) -> dict[str, Any]:
        return {"attack": setting.attack(steps=20, restarts=1), "train_examples": min(1000, setting.train)}

    def chosen(self) -> list[str]:
        """The kit's measures asked for, in the order of the tables."""
        return [name for name in NAMES if self.measures == "all" or name in self.measures]

    def of_losses(self, split: str) -> list[str]:
        """The measures of a loss that are made on a split, one's own last."""
        names = [*(name for name in self.chosen() if name in OF_LOSSES), *self.own]
        every = split == "train" or self.test_measures == "all"
        return [name for name in names if every or name in self.test_measures]

    def problems(self, data: DataSpec) -> Iterator[str]:
        if self.measures != "all":
            for name in self.measures:
                if name not in NAMES:
                    yield f"measures: unknown measure {name!r}; known are {', '.join(NAMES)}"
        if self.test_measures != "all" and not (self.test_examples and self.test_measures):
            yield (
                f"test_measures: {', '.join(self.test_measures) or 'none'} given with test_examples: "
                f"{self.test_examples}; name measures and more than 0 examples, or leave both out"
            )
        for name in () if self.test_measures == "all" else self.test_measures:
            if name not in self.of_losses("train"):
                known = ", ".join(self.of_losses("train"))
                yield f"test_measures: {name!r} is not measured on examples; those that are: {known}"
        for name, function in self.own.items():
            if name in NAMES or not name.isidentifier() or name.startswith(ON_TEST):
                yield (
                    f"own: {name!r} cannot name a measure; use letters, digits and '_', a new name, and no "
                    f"{ON_TEST!r} in front"
                )
            if function.count(":") != 1:
                yield f"own.{name}: {function!r} given; expected package.module:function"


def sharpness(
    checkpoint: "Network",
    dataset: "Dataset",
    spec: SharpnessSpec,
    seed: int,
    device: str = "cpu",
    state: Path | None = None,
) -> Measured:
    """All measures asked for, as `<name>_ce` and `<name>_rloss` on training examples and with the prefix
    `test_` on test examples; those of the weights as `<name>`. Standard errors have the suffix `_se`."""
    from robust_flatness import sharpness as library

    measured = Measured({f"sharpness_{split}_examples": getattr(spec, f"{split}_examples")
                         for split in splits_of(spec)})  # fmt: skip
    attack = pgd(spec.attack, spec.precision)
    own = {name: imported(path, f"measures.sharpness.own.{name}") for name, path in spec.own.items()}
    for split in splits_of(spec):
        count = getattr(spec, f"{split}_examples")
        x, y = dataset.images(split, count, device), dataset.labels(split, count, device)
        for name in told(spec.of_losses(split), "measure of sharpness"):
            entry = OF_LOSSES.get(name)
            function = getattr(library, entry.function) if entry else own[name]
            options = entry.options(spec) if entry else {}
            for loss in told(LOSSES, "loss"):
                with left_out_of(spec, name):
                    result = function(
                        checkpoint.model, x, y,
                        loss="ce" if loss == "ce" else attack, batch_size=spec.batch_size,
                        seed=derive_seed(seed, "sharpness"), **options,
                    )  # fmt: skip
                    column = f"{ON_TEST if split == 'test' else ''}{name}_{loss}"
                    measured.values[column] = result.value
                    if result.standard_error is not None:
                        measured.values[f"{column}_se"] = result.standard_error
    for name in set(spec.chosen()) & OF_WEIGHTS.keys():
        with left_out_of(spec, name):
            value = _of_weights(checkpoint, name, library)
            if value is not None:
                measured.values[name] = value
    return measured


@contextlib.contextmanager
def left_out_of(spec: SharpnessSpec, name: str) -> Iterator[None]:
    """Where all measures are asked for, one that is not defined for the network is left out, with a warning;
    one that is asked for by name is an error."""
    try:
        yield
    except UndefinedError as error:
        if spec.measures != "all":
            raise
        warn(f"{name}: not measured; {error}")


def _of_weights(checkpoint: "Network", name: str, library: Any) -> float | None:
    if name != "distance_from_init":
        return getattr(library, name)(checkpoint.model).value
    initial = checkpoint.initial()
    return None if initial is None else library.distance_from_init(checkpoint.model, initial).value


def passes(spec: SharpnessSpec, held_out: int, snapshots: int) -> int:
    """Clean and robust loss on both splits."""
    once = attack_passes(spec.attack)
    return sum(
        getattr(spec, f"{split}_examples")
        * sum(
            2 * OF_LOSSES[name].cost(spec) + once * OF_LOSSES[name].attacks(spec)
            for name in spec.of_losses(split)
            if name in OF_LOSSES
        )
        for split in SPLITS
    )


def _columns() -> Iterator[Column]:
    """Of each measure on each loss: on training examples, which is what a measure of generalisation may
    see, and on test examples beside it."""
    for name, entry in OF_LOSSES.items():
        way = "higher is more robust" if name == "margin" else FLATTER
        for loss, words in LOSSES.items():
            stem, text = f"{name}_{loss}", f"{entry.words}, {words}"
            yield Column(stem, text, direction=way, spread=True)
            yield Column(ON_TEST + stem, text + WORDS_ON_TEST, direction=way, spread=True)
    for name, words in OF_WEIGHTS.items():
        yield Column(name, words)
    for split in SPLITS:
        yield Column(f"sharpness_{split}_examples", f"{split} examples of sharpness", "setting")


MEASURE = Measure(
    name="sharpness",
    spec=SharpnessSpec,
    function=sharpness,
    passes=passes,
    columns=tuple(_columns()),
    checkpoints=("last",),
    by_default=(BASELINE,),
)
