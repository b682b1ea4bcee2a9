"""An experiment with its variants resolved: the settings of each job.

A job gets its own settings as canonical JSON, so that a change of one measure's settings reruns that measure
alone.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from robust_flatness.config.measures import MeasureSettings
from robust_flatness.config.training import ModelSpec, TrainingSpec, TrainJob, rescaled_decay
from robust_flatness.config.values import Spec, meant, parse
from robust_flatness.config.variants import BASELINE, VariantSpec, check_sources, load_variants
from robust_flatness.errors import ConfigError
from robust_flatness.experiment.spec import ExperimentSpec
from robust_flatness.measures.registry import MEASURES

CATALOGUE = Path("config/variants.yaml")


class Experiment:
    """A validated experiment with its variants resolved. `spec` are the settings given, `catalogue` maps
    every slug to its `VariantSpec`, `variants` those that are requested, and `networks` the external networks
    among them."""

    def __init__(self, spec: ExperimentSpec, catalogue: Mapping[str, VariantSpec]):
        self.spec = spec
        self.networks = {slug: network.variant(slug) for slug, network in spec.models.items()}
        self.catalogue = {**catalogue, **spec.own_variants}
        problems = [*self._problems_of_names(catalogue)]
        if not problems:
            self.variants = {slug: self._resolved(slug) for slug in self._requested()} | self.networks
            self.catalogue |= self.networks
            problems += [] if spec.results_table else self._problems_of_jobs()
        if problems:
            raise ConfigError("\n".join(dict.fromkeys(problems)))

    @property
    def name(self) -> str:
        return self.spec.experiment

    def _problems_of_names(self, catalogue: Mapping[str, VariantSpec]) -> Iterator[str]:
        """Yield names of variants and networks that are unknown or not unique."""
        spec, classes = self.spec, self.spec.data.known_classes if self.spec.data else None
        for slug in (slug for slug in spec.own_variants if slug in catalogue):
            yield f"own_variants.{slug}: there is a variant of this name; change it under overrides"
        for slug in (slug for slug in spec.models if slug in self.catalogue):
            yield f"models.{slug}: there is a variant of this name; choose another one"
        requested = () if spec.variants == "all" else spec.variants
        for field, slugs in (("overrides", spec.overrides), ("variants", requested)):
            unknown = [slug for slug in slugs if slug not in self.catalogue]
            if unknown:
                yield f"{field}: {unknown_variants(unknown, self.catalogue)}"
        for slug, network in spec.models.items():
            if classes and network.known_classes not in (None, classes):
                has = f"{network.model!r} has {network.known_classes} classes"
                yield f"models.{slug}.model: {has}, the data have {classes}"

    def _requested(self) -> Sequence[str]:
        """Return the slugs requested; "all" leaves derived variants out if results are read from a table."""
        if self.spec.variants != "all":
            return self.spec.variants
        trained = [slug for slug, variant in self.catalogue.items() if variant.trained]
        derived = [slug for slug, variant in self.catalogue.items() if not variant.trained]
        return trained if self.spec.results_table else [*trained, *derived]

    def _resolved(self, slug: str) -> VariantSpec:
        override = self.spec.overrides.get(slug)
        return self.catalogue[slug].overridden(override) if override else self.catalogue[slug]

    @cached_property
    def measures(self) -> dict[str, MeasureSettings]:
        """The settings of each measure, in the registry's order."""
        given = {name: getattr(self.spec.measures, name) for name in MEASURES}
        return {name: settings for name, settings in given.items() if settings is not None}

    def _problems_of_jobs(self) -> Iterator[str]:
        """Yield settings of measures and trainings that cannot be used."""
        for slug, variant in self.variants.items():
            if variant.derived_from and variant.derived_from not in self.variants:
                yield f"variants: {slug!r} is derived from {variant.derived_from!r}; add that variant"
        for name, settings in self.measures.items():
            for problem in self._problems_of_measure(name, settings):
                yield f"measures.{name}.{problem}"
        try:
            check_sources(self.spec.own_variants, "own_variants", self.catalogue)
            _ = self.train_jobs
        except ConfigError as error:
            yield from str(error).splitlines()

    def _problems_of_measure(self, name: str, settings: MeasureSettings) -> Iterator[str]:
        parts = {"": settings} | {f"{field}.": part for field, part in settings.parts().items()}
        for field, part in parts.items():
            named = () if part.variants == "all" else part.variants
            unknown = [slug for slug in named if slug not in self.catalogue]
            if unknown:
                yield f"{field}variants: {unknown_variants(unknown, self.catalogue)}"
            untrained = [slug for slug in named if slug in self.variants and not self.variants[slug].trained]
            if MEASURES[name].of_snapshots and untrained:
                yield f"{field}variants: {untrained} given, but only trained variants have snapshots"
        attack = getattr(settings, "attack", None)
        if attack is not None and not math.isclose(attack.epsilon, self.spec.epsilon, rel_tol=1e-4):
            yield f"attack.epsilon: {attack.epsilon:g} given, but epsilon is {self.spec.epsilon:g}"
        if attack is not None and attack.norm != self.spec.norm:
            yield f"attack.norm: {attack.norm} given, but norm is {self.spec.norm}"
        yield from settings.problems(self.spec.data)

    @cached_property
    def train_jobs(self) -> dict[str, TrainJob]:
        """The training of each trained variant, with the first seed (see `train_job`)."""
        jobs, problems, seen = {}, [], {}
        for slug, variant in self.variants.items():
            if variant.trained:
                try:
                    jobs[slug] = self._train_job(slug, variant)
                except ConfigError as error:
                    problems.append(str(error))
        if problems:
            raise ConfigError("\n".join(problems))
        for slug, job in jobs.items():
            twin = seen.setdefault(job.model_copy(update={"variant": ""}).json_text(), slug)
            if twin != slug:
                equal = f"{twin!r} and {slug!r} come out equal in this experiment"
                raise ConfigError(f"variants: {equal}; give one of them other values under overrides")
        return jobs

    def _train_job(self, slug: str, variant: VariantSpec) -> TrainJob:
        where, data = f"variant {slug!r}", self.spec.data
        values = self.spec.training.model_dump()
        for field in variant.scale:
            values[field] = self._scaled(f"{where}: scale.{field}", values, field, variant)
        training = parse(TrainingSpec, values | variant.set, where)
        if training.norm != self.spec.norm:
            raise ConfigError(
                f"{where}: norm: {training.norm} given, but that of the experiment is {self.spec.norm}"
            )
        batch_size = min(max(training.batch_size, self.spec.minimum_batch_size), data.count("train"))
        changed: dict[str, Any] = {"batch_size": batch_size}
        override = self.spec.overrides.get(slug)
        given = override is not None and "weight_averaging" in override.set
        if training.weight_averaging is not None and not given:
            steps = training.epochs * math.ceil(data.count("train") / batch_size)
            changed["weight_averaging"] = rescaled_decay(training.weight_averaging, steps)
        if training.unlabeled_fraction and not data.count("unlabeled"):
            raise ConfigError(f"{where}: needs unlabelled images, but data.unlabeled is 0")
        model = parse(ModelSpec, {**self.spec.model.model_dump(), **variant.model}, f"{where}: model")
        training = training.model_copy(update=changed)
        return TrainJob(variant=slug, seed=self.spec.seeds[0], model=model, training=training)

    @staticmethod
    def _scaled(where: str, values: Mapping[str, Any], field: str, variant: VariantSpec) -> float:
        """Return the baseline's value of a field times the variant's factor; integers are rounded."""
        value, factor = values.get(field), variant.scale[field]
        if field not in values:
            allowed = ", ".join(values)
            raise ConfigError(f"{where}: unknown field{meant(field, values)}; allowed are {allowed}")
        if field in variant.set:
            raise ConfigError(f"{where}: the variant sets {variant.set[field]}; give the new value under set")
        if not isinstance(value, int | float):
            raise ConfigError(f"{where}: not a number that can be scaled")
        if not math.isfinite(value * factor):
            raise ConfigError(f"{where}: {value} times {factor:g} is too large")
        if isinstance(value, int) and not isinstance(value, bool):
            return max(2 if field == "batch_size" else 1, round(value * factor))
        return value * factor

    @cached_property
    def baseline(self) -> TrainJob:
        """The AT baseline that the variants change; pseudo-labels are predicted with its settings."""
        return TrainJob(variant="baseline", seed=0, model=self.spec.model, training=self.spec.training)

    def seeds_of(self, slug: str) -> tuple[int, ...]:
        """Return the seeds that a variant is trained and measured with: one for an external network."""
        if slug in self.networks:
            return self.spec.seeds[:1]
        return (self.spec.baseline_seeds if slug == BASELINE else None) or self.spec.seeds

    def train_job(self, slug: str, seed: int) -> TrainJob:
        """Return the training of a variant with a seed."""
        return self.train_jobs[slug].model_copy(update={"seed": seed})

    def settings_of(self, step: str, slug: str, seed: int) -> Spec:
        """Return the settings of a job: `data`, `baseline`, `train` or a measure, for a variant and seed."""
        if self.spec.results_table is not None:
            raise ConfigError(f"{self.name}: starts from a results table; it has no steps")
        if step == "train":
            if slug not in self.train_jobs:
                raise ConfigError(f"variant: {slug!r} is not trained in {self.name}")
            return self.train_job(slug, seed)
        if slug not in self.catalogue:
            raise ConfigError(f"variant: {unknown_variants([slug], self.catalogue)}")
        steps = {"data": self.spec.data, "baseline": self.baseline}
        steps |= {name: settings.for_variant(slug) for name, settings in self.measures.items()}
        if step not in steps:
            raise ConfigError(f"{step!r} is not a step of {self.name}; use {', '.join(['train', *steps])}")
        return steps[step]

    def measures_of(self, slug: str) -> list[str]:
        """Return the measures that apply to a variant, whether or not it is requested."""
        trained = self.catalogue[slug].trained
        names = [name for name, settings in self.measures.items() if settings.applies_to(slug)]
        return [name for name in names if trained or not MEASURES[name].of_snapshots]

    def job_behind(self, slug: str) -> TrainJob:
        """Return the training that a variant's weights come from, whether or not it is requested."""
        source = self.catalogue[slug].derived_from or slug
        return self.train_jobs.get(source) or self._train_job(source, self._resolved(source))


def unknown_variants(unknown: Sequence[str], known: Iterable[str]) -> str:
    """Return the message for variants that do not exist."""
    names = ", ".join(map(repr, unknown)) + meant(unknown[0], known)
    return f"unknown variant {names}; known are {', '.join(known)} (config/variants.yaml)"


def load_experiment(values: Mapping[str, Any], variants_path: Path = CATALOGUE) -> Experiment:
    """Return the experiment of a merged configuration (YAML plus command line). A ConfigError has one line
    per problem: a field that is missing, unknown or out of range, an unknown variant, two variants that come
    out equal."""
    return make_experiment(values, load_variants(variants_path))


def make_experiment(values: Mapping[str, Any], catalogue: Mapping[str, VariantSpec]) -> Experiment:
    """As `load_experiment`, with a catalogue that has been read already."""
    return Experiment(parse(ExperimentSpec, dict(values)), catalogue)
