"""Measures of sharpness, margin and capacity beyond the paper's: the block `sharpness`."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from robust_flatness.config.data import DataSpec
from robust_flatness.config.kinds import imported
from robust_flatness.config.measures import SPLITS, FirstExamples, MeasureSettings
from robust_flatness.config.values import AS_LIST, Count, Positive
from robust_flatness.config.variants import BASELINE
from robust_flatness.errors import ConfigError, UndefinedError, warn
from robust_flatness.measures.base import FLATTER, Examples, Measure, Metric, Network, OnBothLosses, Record
from robust_flatness.runtime.progress import track

TwoRadii = Annotated[tuple[Positive, Positive], AS_LIST, AfterValidator(lambda radii: tuple(sorted(radii)))]


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


@dataclass(frozen=True)
class Entry:
    """Specification of a measure of a loss: its axis label without the loss; its cost for one example,
    `passes` on the clean loss and, on the robust loss, also `attacks` if adversarial examples are not shared;
    and the `arguments` of its `function` in this package, by default the one of the same name."""

    label: str
    passes: int = 1
    attacks: int = 1
    arguments: dict[str, Any] = field(default_factory=dict)
    function: str = ""


def entries(s: SharpnessOptions) -> dict[str, Entry]:
    """Return the measures of a loss by name (columns `<name>_ce` and `<name>_rloss`) with these settings."""
    found = {
        "hessian_eigenvalue": Entry("largest Hessian eigenvalue, all weights", 100),
        "hessian_trace": Entry("trace of the Hessian", 2 * s.vectors, arguments={"samples": s.vectors}),
        "fisher_trace": Entry("trace of the Fisher matrix", 2),
        "fisher_rao": Entry("Fisher-Rao norm", 2),
        "relative_flatness": Entry("relative flatness of the last layer"),
    }
    for function, rho in (("sam", s.sam_rho), ("asam", s.asam_rho)):
        for name, label, steps in ((f"{function}_one_step", ", one step", 1), (function, "", s.steps)):
            label = f"{function.upper()}'s sharpness{label}"
            found[name] = Entry(label, 2 * steps, 3, {"rho": rho, "steps": steps}, function)
    for size, worst, average in zip(("small", "large"), s.worst_rho, s.average_rho, strict=True):
        for ending, words in (("", ""), ("_normalised", ", logits normalised")):
            label, normalised = f"sharpness, {size} radius{words}", bool(ending)
            options = {"rho": worst, "steps": s.adaptive_steps, "normalised": normalised}
            found[f"adaptive_linf_worst_{size}{ending}"] = Entry(
                f"adaptive worst-case {label}", 2 * s.adaptive_steps, 3, options, "adaptive_linf_worst"
            )
            options = {"rho": average, "samples": s.samples, "normalised": normalised}
            found[f"adaptive_average_{size}{ending}"] = Entry(
                f"adaptive average-case {label}", s.samples, s.samples + 1, options, "adaptive_average"
            )
    draws, losses = {"samples": s.samples, "iterations": s.halvings}, s.halvings * s.samples
    return found | {
        "pacbayes_sigma": Entry("PAC-Bayes sharpness 1/σ²", losses, losses, draws),
        "gradient_norm": Entry("norm of the gradient by the weights"),
        "input_gradient_norm": Entry("norm of the gradient by the input"),
        "margin": Entry("margin, 10th percentile"),
    }


DEFAULTS = SharpnessOptions()
#: Measures of a loss at the default settings, and axis labels of measures of the weights alone.
OF_LOSSES = entries(DEFAULTS)
OF_WEIGHTS = {
    "weight_norm": "norm of the weights",
    "distance_from_init": "distance from the initial weights",
    "spectral_product": "product of spectral norms",
}
NAMES = (*OF_LOSSES, *OF_WEIGHTS)
#: Names that columns for splits, subsets, losses and spreads have, or begin or end with.
RESERVED = re.compile("^(test|train|early_stopping)(_|$)|^(in)?correct$|_(std|se|ce|rloss)$")


def of_loss(label: str, name: str, direction: str = FLATTER) -> Metric:
    """Return the metric of a built-in or user-defined measure of a loss."""
    count = "sharpness_{split}_examples"
    options = {"direction": direction, "by_loss": True, "splits": SPLITS, "unnamed": "train", "count": count}
    return Metric(name, f"{label}, {{loss}}", **options)


METRICS = {
    name: of_loss(entry.label, name, "higher is more robust" if name == "margin" else FLATTER)
    for name, entry in OF_LOSSES.items()
} | {name: Metric(name, label) for name, label in OF_WEIGHTS.items()}


class SharpnessSettings(SharpnessOptions, OnBothLosses):
    """Sharpness of the last checkpoint on training and, beside it, test examples."""

    measures: Literal["all"] | Annotated[tuple[Literal[NAMES], ...], AS_LIST] = "all"
    own: dict[str, str] = Field(default_factory=dict)
    """User-defined measures: name -> package.module:function, with the signature of built-in ones."""
    train_examples: Annotated[Count, FirstExamples("train", 1000)]
    test_measures: Literal["all"] | Annotated[tuple[str, ...], AS_LIST] = "all"
    """Measures that are also taken on test examples."""

    def chosen(self) -> list[str]:
        """Return the requested built-in measures, in the order of the tables."""
        return [name for name in NAMES if self.measures == "all" or name in self.measures]

    def of_losses(self, split: str) -> list[str]:
        """Return the measures of a loss that are taken on a split, user-defined ones last."""
        names = [*(name for name in self.chosen() if name in OF_LOSSES), *self.own]
        every = split == "train" or self.test_measures == "all"
        return [name for name in names if every or name in self.test_measures]

    def problems(self, data: DataSpec) -> Iterator[str]:
        from robust_flatness.measures.registry import MEASURES  # which imports this module

        yield from super().problems(data)
        if self.test_measures != "all":
            if not (self.test_examples and self.test_measures):
                yield "test_measures: name measures and set test_examples above 0, or leave both out"
            for name in self.test_measures:
                if name not in (known := self.of_losses("train")):
                    yield f"test_measures: {name!r} given; those measured on examples: {', '.join(known)}"
        taken = {metric.column for measure in MEASURES.values() for metric in measure.metrics.values()}
        for name, function in self.own.items():
            if name in taken or not name.isidentifier() or RESERVED.search(name):
                yield f"own: {name!r} is no identifier, or stands for other columns; choose another name"
            if function.count(":") != 1:
                yield f"own.{name}: {function!r} given; expected package.module:function"

    def passes(self, held_out: int) -> int:
        known, total = entries(self), 0
        for split in SPLITS:
            used = [known[name] for name in self.of_losses(split) if name in known]
            # measures share two attacks per split; each counts one of them among its own
            attacks = 2 + sum(entry.attacks - 1 for entry in used)
            each = sum(2 * entry.passes for entry in used) + self.attack.passes * attacks
            total += getattr(self, f"{split}_examples") * each
        return total


def sharpness(net: Network, data: Examples, settings: SharpnessSettings) -> Iterator[Record]:
    """Yield the measures of a loss, for both losses on each split with shared adversarial examples, then
    those of the weights. The distance from the initial weights is skipped if these are unknown."""
    from robust_flatness.measures.objective import call_on
    from robust_flatness.measures.sharpness import derivatives, perturbed

    functions = vars(derivatives) | vars(perturbed)
    own = {name: imported(path, f"measures.sharpness.own.{name}") for name, path in settings.own.items()}
    known = entries(settings)
    for split in settings.splits:
        for name in track(settings.of_losses(split), "measure of sharpness"):
            for objective, where in data.objectives(net, split, settings):
                with _skipping_undefined(settings, name):
                    if name in own:
                        result = call_on(objective, own[name])
                        if not isinstance(getattr(result, "value", None), int | float):
                            given = f"own.{name}: {settings.own[name]} returned {result!r:.80}"
                            raise ConfigError(f"measures.sharpness.{given}; expected an Estimate of numbers")
                    else:
                        entry = known[name]
                        result = functions[entry.function or name].of(objective, **entry.arguments)
                    yield Record(name, result.value, result.standard_error, **where)
    for name in (name for name in settings.chosen() if name in OF_WEIGHTS):
        arguments = (net, data.initial_weights()) if name == "distance_from_init" else (net,)
        if arguments[-1] is not None:
            with _skipping_undefined(settings, name):
                yield Record(name, functions[name](*arguments).value)


@contextlib.contextmanager
def _skipping_undefined(settings: SharpnessSettings, name: str) -> Iterator[None]:
    """Skip a measure that is undefined for the network, with a warning, unless it was named."""
    try:
        yield
    except UndefinedError as error:
        if settings.measures != "all":
            raise
        warn(f"{name}: not measured; {error}")


MEASURE = Measure("sharpness", SharpnessSettings, sharpness, METRICS, by_default=(BASELINE,), version=2)
