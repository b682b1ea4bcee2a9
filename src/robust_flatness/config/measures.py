"""Settings of attacks, and the base class of the settings that each measure defines."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, Field, model_validator

from robust_flatness.config.data import DataSpec
from robust_flatness.config.values import AS_LIST, Count, Epsilon, Norm, Positive, Size, Spec, Variants

SPLITS = ("test", "train")
#: Examples per pass, unless stated otherwise.
BATCH_SIZE = 128
#: Default step size of PGD: epsilon divided by this, in either norm.
STEPS_TO_THE_EDGE = 4
#: Classes required by the loss of APGD-T (DLR).
LEAST_CLASSES = 4
#: Classes that AutoAttack targets by default, if there are as many others.
MOST_TARGETS = 9


class AttackSpec(Spec):
    """PGD in the ball of radius `epsilon` in `norm`, L-infinity or L2 (inputs in [0, 1])."""

    norm: Norm = "linf"
    epsilon: Epsilon
    step_size: Positive
    steps: Count
    restarts: Count = 1

    @property
    def passes(self) -> int:
        """Passes (forward and backward) for one example."""
        return self.steps * self.restarts

    @property
    def ball(self) -> dict[str, Any]:
        """The fields `epsilon` and `norm` of records."""
        return {"epsilon": self.epsilon, "norm": "" if self.norm == "linf" else self.norm}

    def scaled(self, factor: float) -> "AttackSpec":
        """Return the attack with `factor` times the radius (at most 1 in the L-infinity norm) and step."""
        radius, step_size = factor * self.epsilon, factor * self.step_size
        radius = min(1.0, radius) if self.norm == "linf" else radius
        return self.model_copy(update={"epsilon": radius, "step_size": step_size})


def attack_defaults(steps: int, restarts: int) -> Any:
    """Return the default of a field `attack: AttackSpec`; the experiment implies radius and step size."""
    return Field({"steps": steps, "restarts": restarts}, validate_default=True)


class FirstExamples(NamedTuple):
    """Annotation of a number of examples: the split that they are taken from, and the implied number, the
    first `most` or all if there are fewer (None: not implied)."""

    split: str
    most: int | None = None


#: Numbers of examples; 0 training examples leave the training split out.
TestExamples = Annotated[Count, FirstExamples("test", 1000)]
TrainExamples = Annotated[Size, FirstExamples("train", 1000)]
_Attack = Literal["pgd", "apgd-ce", "apgd-t", "fab-t", "square"]


class AutoAttackSpec(Spec):
    """AutoAttack; `version: standard` is the library's own, `reduced` the budget given here."""

    version: Literal["standard", "reduced"] = "standard"
    attacks: Annotated[tuple[_Attack, ...], AS_LIST] = ("apgd-ce", "apgd-t", "fab-t", "square")
    """`pgd` counts the successes of the measure's own PGD; the other attacks run on what is left."""
    iterations: Count = 100
    restarts: Count = 1
    queries: Count = 5000
    target_classes: Count | None = None
    """Classes targeted by APGD-T and FAB-T, at most K - 1; None: the library's choice, min(9, K - 1)."""

    @model_validator(mode="after")
    def _check(self) -> "AutoAttackSpec":
        changed = ", ".join(self.model_dump(exclude_defaults=True, exclude={"version"}))
        if self.version == "standard" and changed:
            raise ValueError(f"{changed}: version: standard has a fixed budget; write version: reduced")
        return self

    def problems(self, classes: int) -> Iterator[str]:
        """Yield the fields that do not fit this number of classes, and what is wrong with them."""
        if (self.target_classes or 0) >= classes:
            yield f"target_classes: {self.target_classes} given; at most {classes - 1} possible"
        if "apgd-t" in self.attacks and classes < LEAST_CLASSES:
            needs = f"apgd-t needs at least {LEAST_CLASSES} classes for its loss (DLR), there are {classes}"
            yield f"attacks: {needs}; write version: reduced, attacks: [apgd-ce, fab-t, square]"

    @property
    def description(self) -> str:
        """The budget in words, for results and tables."""
        if self.version == "standard":
            return "AutoAttack (standard)"
        budget = f"{self.iterations} iterations, {self.restarts} restart{'s' * (self.restarts > 1)}"
        if count := self.target_classes:
            budget += f", {count} target class{'es' * (count > 1)}"
        return f"AutoAttack (reduced: {'+'.join(self.attacks)}, {budget})"

    @property
    def passes(self) -> int:
        """Passes (forward and backward) for one example, if no attack succeeds. FAB takes two passes an
        iteration; Square's queries are forward passes, half of one."""
        targeted = self.iterations * (self.target_classes or MOST_TARGETS)
        passes = {"pgd": 0, "apgd-ce": self.iterations, "apgd-t": targeted, "fab-t": 2 * targeted}
        passes["square"] = self.queries // 2
        return self.restarts * sum(passes[name] for name in self.attacks)


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with `changes`; mappings in both are merged likewise."""
    nested = {name: value for name, value in changes.items() if isinstance(value, Mapping)}
    nested = {name: _merged(values.get(name) or {}, value) for name, value in nested.items()}
    return {**values, **changes, **nested}


class MeasureSettings(Spec):
    """Base class of the settings of a measure, and of a part of it that has variants of its own.
    A field whose default is a spec may be given in part; the rest is the default's. `variants` are the slugs
    that are measured, `overrides` the settings that differ for some of them; neither is part of a job's
    settings, so both are left out of JSON."""

    variants: Variants = Field("all", exclude=True)
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        filled = dict(values)
        for name, field in cls.model_fields.items():
            default = dict(field.default) if isinstance(field.default, BaseModel) else field.default
            if isinstance(values.get(name), Mapping) and isinstance(default, Mapping):
                filled[name] = {**default, **values[name]}
        return filled

    @model_validator(mode="after")
    def _check_overrides(self) -> Self:
        for slug in self.overrides:
            self.for_variant(slug)
        return self

    @classmethod
    def implied(cls, values: Mapping[str, Any], *, sizes: Mapping[str, int], **attack: Any) -> dict[str, Any]:
        """Return `values` completed by the settings that follow from the experiment: numbers of examples,
        given the `sizes` of the splits `test` and `train`, and fields of `attack` (ball and step size)."""
        counts = {name: min(e.most, sizes[e.split]) for name, e in cls._examples() if e.most is not None}
        given = values.get("attack", {})
        if "attack" in cls.model_fields and isinstance(given, Mapping):
            values = {**values, "attack": {**attack, **given}}
        return {**counts, **values}

    @classmethod
    def _examples(cls) -> list[tuple[str, FirstExamples]]:
        annotated = [(name, note) for name, field in cls.model_fields.items() for note in field.metadata]
        return [(name, note) for name, note in annotated if isinstance(note, FirstExamples)]

    @property
    def takes_snapshots(self) -> bool:
        """Whether a checkpoint is measured together with the snapshots of its training."""
        return False

    @property
    def splits(self) -> list[str]:
        """Names of the splits with a positive number of examples."""
        return [split for split in SPLITS if getattr(self, f"{split}_examples")]

    def passes(self, held_out: int) -> int:
        """Return the estimated cost of one checkpoint in passes (forward and backward through the network for
        one image), given the number of early-stopping images."""
        return 0

    def applies_to(self, slug: str) -> bool:
        """Whether a variant is measured."""
        return self.variants == "all" or slug in self.variants

    def parts(self) -> dict[str, "MeasureSettings"]:
        """Return the parts with variants of their own, by field."""
        return {name: value for name, value in self if isinstance(value, MeasureSettings)}

    def for_variant(self, slug: str) -> Self:
        """Return the settings of a job for `slug`: with its overrides, without parts of other variants."""
        dropped = {name: None for name, part in self.parts().items() if not part.applies_to(slug)}
        given = self.overrides.get(slug)
        changed = type(self).model_validate(_merged(self.model_dump(), given)) if given else self
        return changed.model_copy(update=dropped)

    def problems(self, data: DataSpec) -> Iterator[str]:
        """Yield what does not fit the data: a field and what is wrong with it."""
        for name, examples in self._examples():
            available, given = data.count(examples.split), getattr(self, name)
            if given > available:
                yield f"{name}: {given} examples requested, but data.{examples.split} has {available}"
