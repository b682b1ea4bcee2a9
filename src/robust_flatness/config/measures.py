"""Attacks, and what the settings of all measures share; each measure's own lie beside it in `measuring/`."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from robust_flatness.config.data import DataSpec
from robust_flatness.config.values import Count, Positive, Spec, Variants, parse_list


class AttackSpec(Spec):
    """PGD in the L-infinity ball of radius `epsilon` (inputs in [0, 1])."""

    epsilon: Annotated[Positive, Field(le=1)]
    step_size: Positive
    steps: Count
    restarts: Count = 1


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
        changed = self.model_fields_set - {"version"}
        if self.version == "standard" and changed:
            raise ValueError(
                f"{', '.join(sorted(changed))}: the standard AutoAttack has a fixed budget; "
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


class MeasureSpec(Spec):
    """Base of the settings of a measure, and of a part of it that has variants of its own.

    `variants` are the slugs it is made of. They decide which jobs there are and are no part of a job's
    settings, so they are left out where a spec is written.
    """

    variants: Variants = Field("all", exclude=True)

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
                    yield field, getattr(data, split), f"data.{split}"

    def problems(self, data: DataSpec) -> Iterator[str]:
        """What else does not fit the data: a field and what is wrong with it."""
        yield from ()
