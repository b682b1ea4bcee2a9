"""The fields of an experiment."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from robust_flatness.config.data import DataSpec
from robust_flatness.config.families import FamilySpec
from robust_flatness.config.measures import Setting
from robust_flatness.config.networks import NetworkSpec
from robust_flatness.config.training import ModelSpec
from robust_flatness.config.values import (
    LONGEST_NAME,
    NAME,
    Count,
    Positive,
    Size,
    Spec,
    Variants,
    check_device,
    parse_list,
)
from robust_flatness.config.variants import VariantOverride
from robust_flatness.measuring.registry import MeasureSpecs, with_defaults


class ComputeSpec(Spec):
    """How jobs run. `threads` are torch's threads in a job, fixed here because another number
    gives other bits; `device` is `cpu`, `cuda`, `cuda:N`, `mps`, or `auto` for a GPU where there is
    one; `hours` is the longest that a job may ask for: a longer training is cut into several."""

    threads: Count = 1
    device: Annotated[str, AfterValidator(check_device)] = "cpu"
    hours: Annotated[Positive, Field(ge=0.5)] = 24


class ExperimentSpec(Spec):
    """A whole experiment, as validated from its YAML and the command line."""

    experiment: str
    description: str = ""
    seeds: Annotated[tuple[Size, ...], BeforeValidator(parse_list)] = (0,)
    baseline_seeds: Annotated[tuple[Size, ...], BeforeValidator(parse_list)] | None = None
    """Seeds of the variant `at`, whose curves are judged over seeds; None: as the others'."""
    variants: Variants = "all"
    results_table: str | None = None
    """Start from this table: nothing is trained or measured."""
    merge: tuple[str, ...] = ()
    """Tables of other runs of this experiment, e.g. of another machine: folders whose rows join this
    run's."""
    epsilon: Annotated[Positive, Field(le=1)] | None = None
    data: DataSpec | None = None
    model: ModelSpec | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    """Changes of the paper's AT baseline (`TrainingSpec`)."""
    minimum_batch_size: Count = 1
    """Floor for the batch sizes of the variants."""
    measures: MeasureSpecs | None = None
    compute: ComputeSpec = ComputeSpec()
    overrides: dict[str, VariantOverride] = Field(default_factory=dict)
    own_variants: dict[str, Any] = Field(default_factory=dict)
    """Variants of the experiment's own, as in config/variants.yaml."""
    models: dict[str, NetworkSpec] = Field(default_factory=dict)
    """Networks of others, by name: measured as the variants are, drawn and listed beside them."""
    families: dict[str, FamilySpec] = Field(default_factory=dict)
    """Families of the experiment's own, or others of the catalogue's names, as in config/families.yaml."""

    @field_validator("experiment")
    @classmethod
    def _name(cls, value: str) -> str:
        if not NAME.fullmatch(value) or len(value) > LONGEST_NAME:
            raise ValueError(
                f"use at most {LONGEST_NAME} letters, digits, '.', '_' and '-', "
                "starting with a letter or digit"
            )
        if value == "published":
            raise ValueError("'published' is the folder of the paper's printed numbers; choose another name")
        return value

    @field_validator("variants", "seeds", "baseline_seeds")
    @classmethod
    def _distinct(cls, value: Any, info: ValidationInfo) -> Any:
        needed = info.field_name != "variants"  # networks of others may do
        if value not in ("all", None) and (len(set(value)) < len(value) or (needed and not value)):
            raise ValueError("name at least one, each once")
        return value

    @model_validator(mode="before")
    @classmethod
    def _implied(cls, values: Any) -> Any:
        """Fill in what threat model, data and training imply for the measures."""
        if not isinstance(values, Mapping) or values.get("results_table") is not None:
            return values
        return {**values, "measures": with_defaults(values.get("measures"), Setting.of(values))}

    @model_validator(mode="after")
    def _check(self) -> "ExperimentSpec":
        needed = ("epsilon", "data", "model")
        missing = [field for field in needed if getattr(self, field) is None]
        if missing and self.results_table is None:
            raise ValueError(
                f"{', '.join(missing)}: missing; an experiment needs {', '.join(needed)}, "
                "or a results_table to start from"
            )
        if not self.variants and not self.models:
            raise ValueError("variants: name at least one, or networks of others under models")
        if self.models and self.results_table is not None:
            raise ValueError("models: nothing is measured that starts from a results_table; leave them out")
        if self.merge and self.results_table is not None:
            raise ValueError(
                "merge: nothing is run that starts from a results_table; join tables with "
                "`robust-flatness merge`"
            )
        return self


def schema() -> dict[str, Any]:
    """The JSON schema of an experiment's YAML. What the rest of an experiment implies is not required."""
    described = ExperimentSpec.model_json_schema()
    for name, part in described["$defs"].items():
        if name not in ("DataSpec", "ModelSpec"):
            part.pop("required", None)
    return described
