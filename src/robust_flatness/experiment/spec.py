"""The fields of an experiment, and the settings that follow from them."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from robust_flatness.config.data import DataSpec, InputPath
from robust_flatness.config.measures import STEPS_TO_THE_EDGE
from robust_flatness.config.networks import NetworkSpec
from robust_flatness.config.training import ModelSpec, TrainingSpec
from robust_flatness.config.values import Count, Device, Epsilon, Name, Norm, Real, Seeds, Spec, Variants
from robust_flatness.config.variants import FamilySpec, VariantOverride, VariantSpec
from robust_flatness.measures.registry import MEASURES, MeasureSpecs


class ComputeSpec(Spec):
    """Resources of a job. `threads` of torch are fixed because rounding depends on their number; `device` is
    `cpu`, `cuda`, `cuda:N`, `mps`, or `auto` for a GPU if there is one; `hours` is the longest time that a
    job may request: a longer training is split into several jobs."""

    threads: Count = 1
    device: Device = "cpu"
    hours: Annotated[Real, Field(ge=0.5)] = 24


class ExperimentSpec(Spec):
    """A whole experiment, as validated from its YAML and the command line."""

    experiment: Name
    description: str = ""
    seeds: Seeds = (0,)
    baseline_seeds: Seeds | None = None
    """Seeds of the variant `at`, for statistics over seeds; None: `seeds`."""
    variants: Variants = "all"
    results_table: InputPath | None = None
    """Table of results to start from, without training or measuring."""
    norm: Norm = "linf"
    """Threat model: the norm in which `epsilon` bounds perturbations, `linf` or `l2`."""
    epsilon: Epsilon | None = None
    data: DataSpec | None = None
    model: ModelSpec | None = None
    training: TrainingSpec | None = Field(None, validate_default=True)
    """Changes of the paper's AT baseline."""
    minimum_batch_size: Count = 1
    """Lower bound of the variants' batch sizes."""
    measures: MeasureSpecs | None = Field(None, validate_default=True)
    compute: ComputeSpec = ComputeSpec()
    overrides: dict[str, VariantOverride] = Field(default_factory=dict)
    own_variants: dict[Name, VariantSpec] = Field(default_factory=dict)
    """The experiment's own variants, as in config/variants.yaml."""
    models: dict[Name, NetworkSpec] = Field(default_factory=dict)
    """External networks by name: measured as the variants are, drawn and listed beside them."""
    families: dict[str, FamilySpec] = Field(default_factory=dict)
    """The experiment's own families, as in config/families.yaml; they replace those of the same name."""

    @field_validator("training", mode="before")
    @classmethod
    def _complete_training(cls, given: Any, info: ValidationInfo) -> Any:
        """Set the radius of the threat model unless another one is given."""
        epsilon = info.data.get("epsilon") or 1.0  # a missing or invalid epsilon is reported by itself
        threat = {"norm": info.data.get("norm", "linf"), "epsilon": epsilon}
        return {**threat, **(given or {})} if isinstance(given, Mapping | None) else given

    @field_validator("measures", mode="before")
    @classmethod
    def _complete_measures(cls, given: Any, info: ValidationInfo) -> Any:
        """Set what threat model, data and training imply."""
        if given is None and info.data.get("results_table") is None:
            given = {name: {"variants": entry.by_default} for name, entry in MEASURES.items()}
        if not isinstance(given, Mapping):
            return given
        given = {name: {} for name, entry in MEASURES.items() if entry.by_default == "all"} | dict(given)
        data, training = info.data.get("data"), info.data.get("training")
        epsilon = info.data.get("epsilon") or 1.0
        implied = {
            "sizes": {split: data.count(split) if data else 1 for split in ("test", "train")},
            "norm": info.data.get("norm", "linf"),
            "epsilon": epsilon,
            "step_size": training.step_size if training else epsilon / STEPS_TO_THE_EDGE,
        }
        for name in MEASURES.keys() & given.keys():
            if isinstance(given[name], Mapping):
                given[name] = MEASURES[name].settings.implied(given[name], **implied)
        return given

    @model_validator(mode="after")
    def _check(self) -> "ExperimentSpec":
        if self.experiment == "published":
            raise ValueError("experiment: 'published' holds the printed numbers; choose another name")
        needed = ("epsilon", "data", "model")
        missing = ", ".join(field for field in needed if getattr(self, field) is None)
        if missing and self.results_table is None:
            raise ValueError(f"{missing}: missing; give {', '.join(needed)}, or a results_table")
        if self.training is not None and self.training.norm != self.norm:
            raise ValueError(f"training.norm: {self.training.norm} given, but norm is {self.norm}")
        if self.data and self.minimum_batch_size > (images := self.data.count("train")):
            raise ValueError(f"minimum_batch_size: {self.minimum_batch_size} given, data.train has {images}")
        if not self.variants and not self.models:
            raise ValueError("variants: name at least one, or external networks under models")
        if self.models and self.results_table is not None:
            raise ValueError("models: cannot be measured in an experiment that starts from a results_table")
        return self


def schema() -> dict[str, Any]:
    """Return the JSON schema of an experiment's YAML, in which implied settings are not required."""
    described = ExperimentSpec.model_json_schema()
    for name, part in described["$defs"].items():
        if name not in ("DataSpec", "ModelSpec"):
            part.pop("required", None)
    return described
