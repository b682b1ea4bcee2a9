"""Attacks, and what the settings of all measures share; each measure's own lie beside it in `measuring/`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from robust_flatness.config.data import DataSpec
from robust_flatness.config.values import Count, Positive, Spec, Variants, parse_list, parse_number

#: PGD's steps from the centre of the ball to its edge, where no step size is given.
STEPS_TO_THE_EDGE = 4


class AttackSpec(Spec):
    """PGD in the L-infinity ball of radius `epsilon` (inputs in [0, 1])."""

    epsilon: Annotated[Positive, Field(le=1)]
    step_size: Positive
    steps: Count
    restarts: Count = 1


#: Classes that the loss of APGD-T (DLR) needs.
LEAST_CLASSES = 4


class AutoAttackSpec(Spec):
    """AutoAttack; `version: standard` is the library's own, `reduced` the budget given here."""

    version: Literal["standard", "reduced"] = "standard"
    attacks: Annotated[
        tuple[Literal["pgd", "apgd-ce", "apgd-t", "fab-t", "square"], ...], BeforeValidator(parse_list)
    ] = ("apgd-ce", "apgd-t", "fab-t", "square")
    """`pgd` counts what the measure's own PGD has found; the attacks after it work on what is left."""
    iterations: Count = 100
    restarts: Count = 1
    queries: Count = 5000
    target_classes: Count | None = None
    """Classes targeted by APGD-T and FAB-T, at most K - 1; None: the library's choice, min(9, K - 1)."""

    @model_validator(mode="after")
    def _check(self) -> "AutoAttackSpec":
        budget = {name: field.default for name, field in type(self).model_fields.items() if name != "version"}
        changed = [name for name, default in budget.items() if getattr(self, name) != default]
        if self.version == "standard" and changed:
            raise ValueError(
                f"{', '.join(changed)}: the standard AutoAttack has a fixed budget; "
                "write version: reduced to change it"
            )
        return self

    @property
    def description(self) -> str:
        """The budget in words, for results and tables."""
        if self.version == "standard":
            return "AutoAttack (standard)"
        count = self.target_classes
        targets = f", {count} target class{'es' * (count > 1)}" if count else ""
        return (
            f"AutoAttack (reduced: {'+'.join(self.attacks)}, {self.iterations} iterations, "
            f"{self.restarts} restart{'s' * (self.restarts > 1)}{targets})"
        )


@dataclass(frozen=True)
class Setting:
    """What an experiment has fixed before its measures: threat model, PGD's step, sizes of the splits."""

    epsilon: float
    step_size: float
    test: int
    train: int

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Setting":
        """From an experiment's values as they are written. One that is missing or cannot be used, which the
        validation tells of, is replaced by one that can."""
        training = _mapping(values.get("training"))
        epsilon = _number(values.get("epsilon"), 0.1)
        try:
            data = DataSpec.model_validate(values.get("data"))
            sizes = {split: data.count(split) for split in ("test", "train")}
        except ValidationError:
            sizes = {"test": 1, "train": 1}
        return cls(
            epsilon=epsilon,
            step_size=_number(training.get("step_size"), epsilon / STEPS_TO_THE_EDGE),
            **sizes,
        )

    def attack(self, steps: int, restarts: int) -> dict[str, Any]:
        """An attack of this threat model."""
        return {"epsilon": self.epsilon, "step_size": self.step_size, "steps": steps, "restarts": restarts}

    def examples(self, most: int, prefix: str = "") -> dict[str, int]:
        """The first `most` examples of both splits, or all where there are fewer."""
        return {
            f"{prefix}test_examples": min(most, self.test),
            f"{prefix}train_examples": min(most, self.train),
        }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Any, otherwise: float) -> float:
    try:
        number = parse_number(value)
        usable = isinstance(number, int | float) and 0 < number < 1e9
    except ValueError:
        usable = False
    return number if usable else otherwise


def completed(defaults: Mapping[str, Any], given: Any) -> Any:
    """`given` with what it lacks taken from `defaults`, in nested mappings too.

    >>> completed({"attack": {"steps": 20, "restarts": 10}, "samples": 10}, {"attack": {"steps": 5}})
    {'attack': {'steps': 5, 'restarts': 10}, 'samples': 10}
    """
    if not isinstance(given, Mapping):
        return given
    filled = {
        key: completed(defaults[key], value) if isinstance(defaults.get(key), Mapping) else value
        for key, value in given.items()
    }
    return {**defaults, **filled}


class MeasureSpec(Spec):
    """Base of the settings of a measure, and of a part of it that has variants of its own.

    `variants` are the slugs it is made of. They decide which jobs there are and are no part of a job's
    settings, so they are left out where a spec is written.
    """

    variants: Variants = Field("all", exclude=True)

    @classmethod
    def defaults(cls, setting: Setting) -> dict[str, Any]:
        """What an experiment's block need not say, since the rest of the experiment implies it."""
        return {}

    def applies_to(self, slug: str) -> bool:
        return self.variants == "all" or slug in self.variants

    def parts(self) -> dict[str, "MeasureSpec"]:
        """The parts with variants of their own, by field."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in values.items() if isinstance(value, MeasureSpec)}

    def for_variant(self, slug: str) -> Self:
        """These settings as a job for `slug` gets them: without the parts that are not made of it."""
        dropped = {name: None for name, part in self.parts().items() if not part.applies_to(slug)}
        return self.model_copy(update=dropped)

    def limits(self, data: DataSpec) -> Iterator[tuple[str, int, str]]:
        """(field, most that the data allows, where that is set) of every number of examples."""
        for split in ("test", "train"):
            for field in (f"{split}_examples", f"clean_{split}_examples"):
                if field in type(self).model_fields:
                    yield field, data.count(split), f"data.{split}"

    def problems(self, data: DataSpec) -> Iterator[str]:
        """What else does not fit the data: a field and what is wrong with it."""
        yield from ()
