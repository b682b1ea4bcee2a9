"""Sharpness, margin and capacity, other than by the paper's measures: the block `sharpness`."""

import contextlib
import copy
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from robust_flatness.config.data import DataSpec
from robust_flatness.config.kinds import imported
from robust_flatness.config.measures import AttackSpec, FirstExamples, MeasureSettings, attack_defaults
from robust_flatness.config.values import Count, Positive, Precision, Size, parse_list
from robust_flatness.config.variants import BASELINE
from robust_flatness.errors import UndefinedError, warn
from robust_flatness.measures.base import FLATTER, LOSSES, SPLITS, Measure, Metric, Record
from robust_flatness.measures.cost import attack_passes
from robust_flatness.measures.examples import BATCH_SIZE, Examples, ball, pgd, splits_of
from robust_flatness.runtime.progress import track
from robust_flatness.seeding import derive_seed

if TYPE_CHECKING:
    from robust_flatness.measures.objective import Estimate, Objective
    from robust_flatness.network import Network


@dataclass(frozen=True)
class Entry:
    """A measure of a loss: `file.function` in this package, and its axis label without the loss.

    `cost(settings)` are passes for one example on the clean loss, `attacks(settings)` the attacks on all
    examples that the robust loss takes in addition if nothing is shared, `options(settings)` arguments.
    """

    function: str
    label: str
    cost: Callable[[Any], int]
    attacks: Callable[[Any], int] = lambda s: 1
    options: Callable[[Any], dict[str, Any]] = lambda s: {}


def _adaptive(index: int, normalised: bool) -> dict[str, Entry]:
    """Worst- and average-case adaptive sharpness at a radius, on logits as they are or normalised."""
    size = ("small", "large")[index]
    name = f"{size}_normalised" if normalised else size
    label = f"{size} radius, logits normalised" if normalised else f"{size} radius"
    return {
        f"adaptive_linf_worst_{name}": Entry(
            "perturbed.adaptive_linf_worst", f"adaptive worst-case sharpness, {label}",
            lambda s: 2 * s.adaptive_steps, lambda s: 3,
            lambda s: {"rho": s.worst_rho[index], "steps": s.adaptive_steps, "normalised": normalised},
        ),
        f"adaptive_average_{name}": Entry(
            "perturbed.adaptive_average", f"adaptive average-case sharpness, {label}",
            lambda s: s.samples, lambda s: s.samples + 1,
            lambda s: {"rho": s.average_rho[index], "samples": s.samples, "normalised": normalised},
        ),
    }  # fmt: skip


#: Measures of a loss: columns `<name>_ce` and `<name>_rloss`.
OF_LOSSES: dict[str, Entry] = {
    "hessian_eigenvalue": Entry(
        "derivatives.hessian_eigenvalue", "largest Hessian eigenvalue, all weights", lambda s: 100
    ),
    "hessian_trace": Entry(
        "derivatives.hessian_trace", "trace of the Hessian", lambda s: 2 * s.vectors,
        options=lambda s: {"samples": s.vectors},
    ),
    "fisher_trace": Entry("derivatives.fisher_trace", "trace of the Fisher matrix", lambda s: 2),
    "fisher_rao": Entry("derivatives.fisher_rao", "Fisher-Rao norm", lambda s: 2),
    "relative_flatness": Entry(
        "derivatives.relative_flatness", "relative flatness of the last layer", lambda s: 1
    ),
    "sam_one_step": Entry(
        "perturbed.sam", "SAM's sharpness, one step", lambda s: 2, lambda s: 3,
        lambda s: {"rho": s.sam_rho, "steps": 1},
    ),
    "sam": Entry(
        "perturbed.sam", "SAM's sharpness", lambda s: 2 * s.steps, lambda s: 3,
        lambda s: {"rho": s.sam_rho, "steps": s.steps},
    ),
    "asam_one_step": Entry(
        "perturbed.asam", "ASAM's sharpness, one step", lambda s: 2, lambda s: 3,
        lambda s: {"rho": s.asam_rho, "steps": 1},
    ),
    "asam": Entry(
        "perturbed.asam", "ASAM's sharpness", lambda s: 2 * s.steps, lambda s: 3,
        lambda s: {"rho": s.asam_rho, "steps": s.steps},
    ),
    **_adaptive(0, normalised=False),
    **_adaptive(0, normalised=True),
    **_adaptive(1, normalised=False),
    **_adaptive(1, normalised=True),
    "pacbayes_sigma": Entry(
        "perturbed.pacbayes_sigma", "PAC-Bayes sharpness 1/σ²",
        lambda s: s.halvings * s.samples, lambda s: s.halvings * s.samples,
        lambda s: {"samples": s.samples, "iterations": s.halvings},
    ),
    "gradient_norm": Entry("derivatives.gradient_norm", "norm of the gradient by the weights", lambda s: 1),
    "input_gradient_norm": Entry(
        "derivatives.input_gradient_norm", "norm of the gradient by the input", lambda s: 1
    ),
    "margin": Entry("capacity.margin", "margin, 10th percentile", lambda s: 1),
}  # fmt: skip
#: Measures of the weights alone: columns of these names.
OF_WEIGHTS = {
    "weight_norm": "norm of the weights",
    "distance_from_init": "distance from the initial weights",
    "spectral_product": "product of spectral norms",
}
NAMES = (*OF_LOSSES, *OF_WEIGHTS)


def of_loss(label: str, name: str, direction: str = FLATTER) -> Metric:
    """The metric of a measure of a loss, the kit's or a user's."""
    return Metric(
        name, f"{label}, {{loss}}", direction=direction, by_loss=True, splits=SPLITS, unnamed="train",
        count="sharpness_{split}_examples",
    )  # fmt: skip


METRICS = {
    name: of_loss(entry.label, name, "higher is more robust" if name == "margin" else FLATTER)
    for name, entry in OF_LOSSES.items()
} | {name: Metric(name, label) for name, label in OF_WEIGHTS.items()}


def _two(value: tuple[float, ...]) -> tuple[float, ...]:
    if len(value) != 2 or value[0] >= value[1]:
        raise ValueError("name two radii, the smaller one first")
    return value


TwoRadii = Annotated[tuple[Positive, ...], BeforeValidator(parse_list), AfterValidator(_two)]
Known = Literal["all"] | Annotated[tuple[Literal[NAMES], ...], BeforeValidator(parse_list)]
Names = Literal["all"] | Annotated[tuple[str, ...], BeforeValidator(parse_list)]


class SharpnessOptions(MeasureSettings):
    """Options of the measures; their defaults are also those of the functions."""

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


DEFAULTS = SharpnessOptions()


class SharpnessSettings(SharpnessOptions):
    """Sharpness of the last checkpoint on training and, beside it, test examples."""

    measures: Known = "all"
    own: dict[str, str] = Field(default_factory=dict)
    """Measures of the user: name -> package.module:function, called as those of the kit are."""
    attack: AttackSpec = attack_defaults(steps=20, restarts=1)
    train_examples: Annotated[Count, FirstExamples("train", 1000)]
    test_examples: Annotated[Size, FirstExamples("test")] = 0
    """0: on training examples alone."""
    test_measures: Names = "all"
    """Those taken on test examples, too."""
    batch_size: Count = BATCH_SIZE
    precision: Precision = "float32"

    def chosen(self) -> list[str]:
        """The kit's measures asked for, in the order of the tables."""
        return [name for name in NAMES if self.measures == "all" or name in self.measures]

    def of_losses(self, split: str) -> list[str]:
        """The measures of a loss that are taken on a split, the user's last."""
        names = [*(name for name in self.chosen() if name in OF_LOSSES), *self.own]
        every = split == "train" or self.test_measures == "all"
        return [name for name in names if every or name in self.test_measures]

    def problems(self, data: DataSpec) -> Iterator[str]:
        yield from super().problems(data)
        if self.test_measures != "all":
            if not (self.test_examples and self.test_measures):
                yield "test_measures: name measures and set test_examples above 0, or leave both out"
            for name in self.test_measures:
                if name not in (known := self.of_losses("train")):
                    yield f"test_measures: {name!r} given; those measured on examples: {', '.join(known)}"
        for name, function in self.own.items():
            if name in NAMES or not name.isidentifier() or name.startswith("test_"):
                yield f"own: {name!r} cannot name a measure; give a new identifier without 'test_' in front"
            if function.count(":") != 1:
                yield f"own.{name}: {function!r} given; expected package.module:function"


def sharpness(net: "Network", data: Examples, settings: SharpnessSettings) -> Iterator[Record]:
    """All measures asked for, on both losses and splits, with shared adversarial examples; those of the
    weights once."""
    pgd_attack, seed = pgd(settings.attack, settings.precision), derive_seed(data.seed, "sharpness")
    own = {name: imported(path, f"measures.sharpness.own.{name}") for name, path in settings.own.items()}
    for split in splits_of(settings):
        count = getattr(settings, f"{split}_examples")
        for name in track(settings.of_losses(split), "measure of sharpness"):
            for loss in track(LOSSES, "loss"):
                attack = None if loss == "ce" else pgd_attack
                objective = data.objective(net, split, count, attack, settings.batch_size, seed)
                with _left_out(settings, name):
                    if name in own:
                        result = _of_user(own[name], objective)
                    else:
                        result = _function(OF_LOSSES[name]).of(objective, **OF_LOSSES[name].options(settings))
                    where = {"loss": loss, "split": split, **ball(attack), "n": count}
                    yield Record(name, result.value, result.standard_error, **where)
    for name in settings.chosen():
        if name in OF_WEIGHTS:
            with _left_out(settings, name):
                yield from _of_weights(net, data, name)


def _function(entry: Entry) -> Callable[..., "Estimate"]:
    file, _, function = entry.function.partition(".")
    return getattr(importlib.import_module(f"{__package__}.{file}"), function)


def _of_user(function: Callable[..., "Estimate"], objective: "Objective") -> "Estimate":
    """Call a measure of the user; one made by `of_objective` shares the adversarial examples."""
    if hasattr(function, "of"):
        return function.of(objective)
    module = copy.deepcopy(objective.net.module).requires_grad_(True)
    options = {"batch_size": objective.batch_size, "seed": objective.seed}
    return function(module, objective.x, objective.y, loss=objective.attack or "ce", **options)


def _of_weights(net: "Network", data: Examples, name: str) -> Iterator[Record]:
    """The measure `name` of the weights; nothing if the initial weights it needs are unknown."""
    from robust_flatness.measures.sharpness import capacity

    if name != "distance_from_init":
        yield Record(name, getattr(capacity, name)(net).value)
    elif (initial := data.initial_weights()) is not None:
        yield Record(name, capacity.distance_from_init(net, initial).value)


@contextlib.contextmanager
def _left_out(settings: SharpnessSettings, name: str) -> Iterator[None]:
    """Where all measures are asked for, leave out one that is undefined for the network, with a warning."""
    try:
        yield
    except UndefinedError as error:
        if settings.measures != "all":
            raise
        warn(f"{name}: not measured; {error}")


def passes(settings: SharpnessSettings, held_out: int, snapshots: int) -> int:
    """Clean and robust loss on both splits. The measures share two attacks of each split: at least one of
    every measure's attacks is among them."""
    once, total = attack_passes(settings.attack), 0
    for split in SPLITS:
        entries = [OF_LOSSES[name] for name in settings.of_losses(split) if name in OF_LOSSES]
        attacks = 2 + sum(entry.attacks(settings) - 1 for entry in entries)
        each = sum(2 * entry.cost(settings) for entry in entries) + once * attacks
        total += getattr(settings, f"{split}_examples") * each
    return total


MEASURE = Measure(
    "sharpness", SharpnessSettings, sharpness, METRICS, passes, checkpoints=("last",), by_default=(BASELINE,)
)
