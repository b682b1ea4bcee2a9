"""A whole experiment, validated once, before anything is planned.

Each job then gets its own slice as canonical JSON, so that a change of one measure's settings reruns that
measure alone.
"""

import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from robust_flatness.config.data import DataSpec
from robust_flatness.config.families import FamilySpec
from robust_flatness.config.measures import MeasureSpec
from robust_flatness.config.training import ModelSpec, TrainingSpec, TrainJob, rescaled_decay
from robust_flatness.config.values import (
    LONGEST_NAME,
    NAME,
    Count,
    Positive,
    Size,
    Spec,
    Variants,
    check_device,
    meant,
    parse,
    parse_list,
    shown,
)
from robust_flatness.config.variants import BASELINE, VariantOverride, VariantSpec, load_variants
from robust_flatness.errors import ConfigError
from robust_flatness.files import canonical_json
from robust_flatness.measuring.registry import MEASURES, MeasureSpecs

CONFIG_DIRECTORY = Path("config")


class ComputeSpec(Spec):
    """How jobs run. `threads` are torch's threads in a job, fixed here because another number
    gives other bits; `device` is `cpu`, `cuda`, `cuda:N`, `mps`, or `auto` for a GPU where there is
    one."""

    threads: Count = 1
    device: Annotated[str, AfterValidator(check_device)] = "cpu"


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
    training: dict[str, Any] | None = None
    minimum_batch_size: Count = 1
    """Floor for the batch sizes of the variants."""
    measures: MeasureSpecs | None = None
    compute: ComputeSpec = ComputeSpec()
    overrides: dict[str, VariantOverride] = Field(default_factory=dict)
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
    def _distinct(cls, value: Any) -> Any:
        if value not in ("all", None) and (not value or len(set(value)) < len(value)):
            raise ValueError("name at least one, each once")
        return value

    @model_validator(mode="after")
    def _check(self) -> "ExperimentSpec":
        needed = ("epsilon", "data", "model", "training", "measures")
        missing = [field for field in needed if getattr(self, field) is None]
        if missing and self.results_table is None:
            raise ValueError(
                f"{', '.join(missing)}: missing; an experiment needs {', '.join(needed)}, "
                "or a results_table to start from"
            )
        if self.merge and self.results_table is not None:
            raise ValueError(
                "merge: nothing is run that starts from a results_table; join tables with "
                "`robust-flatness merge`"
            )
        return self


class Experiment:
    """A validated experiment with its variants resolved.

    `spec` is the experiment as given, `variants` maps each slug asked for to its `VariantSpec`.
    """

    def __init__(self, spec: ExperimentSpec, catalogue: Mapping[str, VariantSpec]):
        self.spec = spec
        self.catalogue = dict(catalogue)
        trained = [slug for slug, variant in catalogue.items() if variant.derived_from is None]
        asked = trained if spec.variants == "all" else list(spec.variants)
        self._require_known("variants", asked, catalogue)
        self._require_known("overrides", spec.overrides, catalogue)
        self.variants = {slug: self._resolved(slug) for slug in asked}
        if spec.results_table is None:
            self._add_derived()
            self._check_measures()
            _ = self.train_jobs

    @property
    def name(self) -> str:
        return self.spec.experiment

    @staticmethod
    def _require_known(field: str, slugs: Iterable[str], known: Iterable[str]) -> None:
        unknown = [slug for slug in slugs if slug not in known]
        if unknown:
            raise ConfigError(
                f"{field}: unknown variant {', '.join(map(repr, unknown))}{meant(unknown[0], known)}; "
                f"known are {', '.join(known)} (config/variants.yaml)"
            )

    def _resolved(self, slug: str) -> VariantSpec:
        variant = self.catalogue[slug]
        override = self.spec.overrides.get(slug)
        return variant.overridden(override) if override else variant

    def _add_derived(self) -> None:
        """Derived models come along when all variants are asked for; named alone, they need the
        model they are made from."""
        if self.spec.variants == "all":
            derived = [s for s, v in self.catalogue.items() if v.derived_from in self.variants]
            self.variants.update({slug: self._resolved(slug) for slug in derived})
        for slug, variant in self.variants.items():
            if variant.derived_from is not None and variant.derived_from not in self.variants:
                raise ConfigError(
                    f"variants: {slug!r} is made from {variant.derived_from!r}; add that variant"
                )

    @cached_property
    def measures(self) -> dict[str, MeasureSpec]:
        """What is measured: the settings of each measure, in the registry's order."""
        given = {name: getattr(self.spec.measures, name) for name in MEASURES}
        return {name: spec for name, spec in given.items() if spec is not None}

    def _check_measures(self) -> None:
        data = self.spec.data
        for name, spec in self.measures.items():
            for field, part in {
                "": spec,
                **{f".{field}": part for field, part in spec.parts().items()},
            }.items():
                if part.variants != "all":
                    self._require_known(f"measures.{name}{field}.variants", part.variants, self.catalogue)
            derived = [s for s, variant in self.variants.items() if variant.derived_from is not None]
            untrained = [slug for slug in derived if spec.variants != "all" and slug in spec.variants]
            if MEASURES[name].of_snapshots and untrained:
                raise ConfigError(
                    f"measures.{name}.variants: {', '.join(map(repr, untrained))} given, but only trained "
                    "variants have snapshots"
                )
            attack = getattr(spec, "attack", None)
            if attack is not None and not math.isclose(attack.epsilon, self.spec.epsilon, rel_tol=1e-4):
                raise ConfigError(
                    f"measures.{name}.attack.epsilon: {attack.epsilon:g} given, but the experiment's "
                    f"epsilon is {self.spec.epsilon:g}; give both the same value (and step_size with them)"
                )
            for field, most, where in spec.limits(data):
                if getattr(spec, field) > most:
                    raise ConfigError(
                        f"measures.{name}.{field}: {getattr(spec, field)} examples asked for, but the "
                        f"split has {most} ({where})"
                    )
            for problem in spec.problems(data):
                raise ConfigError(f"measures.{name}.{problem}")

    @cached_property
    def train_jobs(self) -> dict[str, TrainJob]:
        """The training of each variant that is trained, for the first seed (see `train_job`)."""
        jobs = {
            slug: self._train_job(slug, variant)
            for slug, variant in self.variants.items()
            if variant.derived_from is None
        }
        seen: dict[str, str] = {}
        for slug, job in jobs.items():
            key = canonical_json({"m": job.model.model_dump(), "t": job.training.model_dump(mode="json")})
            if key in seen:
                raise ConfigError(
                    f"variants: {seen[key]!r} and {slug!r} come out equal in this experiment; "
                    f"give one of them other values under overrides"
                )
            seen[key] = slug
        return jobs

    def seeds_of(self, slug: str) -> tuple[int, ...]:
        """The seeds that a variant is trained and measured with."""
        own = self.spec.baseline_seeds if slug == BASELINE else None
        return own or self.spec.seeds

    def train_job(self, slug: str, seed: int) -> TrainJob:
        return self.train_jobs[slug].model_copy(update={"seed": seed})

    def _train_job(self, slug: str, variant: VariantSpec) -> TrainJob:
        where = f"variant {slug!r}"
        allowed = TrainingSpec.model_fields.keys()
        unknown = [key for key in (*variant.scale, *variant.set) if key not in allowed]
        if unknown:
            raise ConfigError(
                f"{where}: unknown field {', '.join(map(repr, unknown))}; allowed are {', '.join(allowed)}"
            )
        for field in variant.scale.keys() & variant.set.keys():
            raise ConfigError(
                f"{where}: scale.{field}: the variant sets {field} to {shown(variant.set[field])}; "
                f"give the new value under set instead"
            )
        values = self.baseline.training.model_dump()
        for field, factor in variant.scale.items():
            integer = isinstance(values[field], int) and not isinstance(values[field], bool)
            if not isinstance(values[field], int | float):
                raise ConfigError(f"{where}: scale.{field}: not a number that can be scaled")
            scaled = values[field] * factor
            if not math.isfinite(scaled):
                raise ConfigError(f"{where}: scale.{field}: {values[field]} times {factor:g} is too large")
            least = 2 if field == "batch_size" else 1
            values[field] = max(least, round(scaled)) if integer else scaled
        values.update(variant.set)
        training = parse(TrainingSpec, values, where)
        batch_size = max(training.batch_size, self.spec.minimum_batch_size)
        batch_size = min(batch_size, self.spec.data.train)
        training = training.model_copy(update={"batch_size": batch_size})
        if training.weight_averaging is not None and "weight_averaging" not in self._applied_as_given(slug):
            steps = training.epochs * math.ceil(self.spec.data.train / training.batch_size)
            decay = rescaled_decay(training.weight_averaging, steps)
            training = training.model_copy(update={"weight_averaging": decay})
        if training.unlabeled_fraction and not self.spec.data.unlabeled:
            raise ConfigError(f"{where}: needs unlabelled images, but data.unlabeled is 0")
        model = parse(ModelSpec, {**self.spec.model.model_dump(), **variant.model}, f"{where}: model")
        return TrainJob(variant=slug, seed=self.spec.seeds[0], model=model, training=training)

    def _applied_as_given(self, slug: str) -> set[str]:
        override = self.spec.overrides.get(slug)
        return set(override.set) if override else set()

    @cached_property
    def baseline(self) -> TrainJob:
        """The AT baseline that the variants change; pseudo-labels are predicted with its settings."""
        values = {"epsilon": self.spec.epsilon, "steps": 7, **self.spec.training}
        for name in ("epsilon", "step_size", "steps"):
            if name in values:
                values.setdefault(f"evaluation_{name}", values[name])
        training = parse(TrainingSpec, values, "training")
        return TrainJob(variant="baseline", seed=0, model=self.spec.model, training=training)

    def measured_by(self, measure: str) -> list[str]:
        """Slugs that a measure is made of."""
        spec = self.measures.get(measure)
        if spec is None:
            return []
        trained_only = MEASURES[measure].of_snapshots
        return [
            slug
            for slug, variant in self.variants.items()
            if spec.applies_to(slug) and not (trained_only and variant.derived_from is not None)
        ]


def load_experiment(values: Mapping[str, Any], variants_path: Path | None = None) -> Experiment:
    """Validate a merged configuration (YAML plus command line) as an experiment.

    Raises
    ------
    ConfigError
        If a field is missing, unknown or out of range, a variant is unknown, or two variants
        come out equal.
    """
    catalogue = load_variants(variants_path or CONFIG_DIRECTORY / "variants.yaml")
    return Experiment(parse(ExperimentSpec, dict(values)), catalogue)
