"""An experiment with its variants resolved: the settings of each job.
A job gets its own settings alone, as canonical JSON, so that a change of one measure reruns that measure."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from robust_flatness.config.catalogue import OBJECTIVES
from robust_flatness.config.data import DataSpec
from robust_flatness.config.kinds import imported
from robust_flatness.config.measures import MeasureSettings
from robust_flatness.config.networks import LIBRARIES
from robust_flatness.config.training import ModelSpec, TrainingSpec, TrainJob, rescaled_decay
from robust_flatness.config.values import meant, parse
from robust_flatness.config.variants import BASELINE, VariantSpec, load_variants
from robust_flatness.errors import ConfigError
from robust_flatness.experiment.spec import ExperimentSpec
from robust_flatness.folders import repository
from robust_flatness.measures.registry import MEASURES


class Experiment:
    """A validated experiment. `spec` holds the settings given, `variants` the requested variants with the
    experiment's changes, `networks` the external networks among them, `catalogue` every variant by slug."""

    def __init__(self, spec: ExperimentSpec, catalogue: Mapping[str, VariantSpec]):
        self.spec, self.name = spec, spec.experiment
        self.networks = {slug: network.variant(slug) for slug, network in spec.models.items()}
        self.catalogue = {**catalogue, **spec.own_variants}
        _raise_all(self._problems_of_names(catalogue))
        self.variants = {slug: self._resolved(slug) for slug in self._requested()} | self.networks
        self.catalogue |= self.networks
        if spec.results_table is None:
            _raise_all(self._problems_of_jobs())

    def _problems_of_names(self, catalogue: Mapping[str, VariantSpec]) -> Iterator[str]:
        """Yield unknown and duplicate names of variants and networks."""
        spec = self.spec
        clashes = [f"own_variants.{slug}" for slug in spec.own_variants if slug in catalogue]
        clashes += [f"models.{slug}" for slug in spec.models if slug in self.catalogue]
        for field in clashes:
            yield f"{field}: there is a variant of this name; change it under overrides, or rename"
        requested = () if spec.variants == "all" else spec.variants
        for field, slugs in (("overrides", spec.overrides), ("variants", requested)):
            if unknown := [slug for slug in slugs if slug not in self.catalogue]:
                yield f"{field}: {unknown_variants(unknown, self.catalogue)}"

    def _requested(self) -> Sequence[str]:
        """Return the slugs requested. "all" leaves out derived variants if results are read from a table."""
        if self.spec.variants != "all":
            return self.spec.variants
        slugs = sorted(self.catalogue, key=lambda slug: not self.catalogue[slug].trained)
        return [slug for slug in slugs if self.catalogue[slug].trained or not self.spec.results_table]

    def _resolved(self, slug: str) -> VariantSpec:
        override = self.spec.overrides.get(slug)
        return self.catalogue[slug].overridden(override) if override else self.catalogue[slug]

    @cached_property
    def measures(self) -> dict[str, MeasureSettings]:
        """The settings of each measure, in the registry's order."""
        return {name: settings for name, settings in self.spec.measures if settings is not None}

    def _problems_of_jobs(self) -> Iterator[str]:
        """Yield unusable settings of variants, measures and trainings, and user's code that fails to load."""
        trained = {slug for slug, variant in self.variants.items() if variant.trained}
        objective = OBJECTIVES["at"].path
        code = [(self.spec.training.objective, "training.objective", objective)]
        code += [(network.model, f"models.{slug}.model") for slug, network in self.spec.models.items()]
        for slug, variant in self.variants.items():
            code.append((str(variant.set.get("objective")), f"variant {slug!r}: objective", objective))
            if variant.derived_from and variant.derived_from not in trained:
                yield f"variants: {slug!r} is derived from {variant.derived_from!r}; add that trained variant"
        for name, settings in self.measures.items():
            yield from (f"measures.{name}.{text}" for text in self._problems_of_measure(name, settings))
            code += [(p, f"measures.{name}.own.{key}") for key, p in getattr(settings, "own", {}).items()]
        code = [given for given in code if ":" in given[0] and not given[0].startswith(LIBRARIES)]
        checks = [partial(imported, *given) for given in code]
        for check in [*checks, lambda: self.train_jobs]:
            try:
                check()
            except ConfigError as error:
                yield from str(error).splitlines()

    @cached_property
    def _data(self) -> DataSpec:
        """The dataset with its number of classes, which is read if it is not given."""
        from robust_flatness.data.prepare import known_classes  # numpy

        data = self.spec.data
        return data if data.known_classes else data.model_copy(update={"classes": known_classes(data)})

    def _problems_of_measure(self, name: str, settings: MeasureSettings) -> Iterator[str]:
        parts = {"": settings} | {f"{field}.": part for field, part in settings.parts().items()}
        for field, part in parts.items():
            named = () if part.variants == "all" else part.variants
            for where, slugs in (("variants", named), ("overrides", part.overrides)):
                if unknown := [slug for slug in slugs if slug not in self.catalogue]:
                    yield f"{field}{where}: {unknown_variants(unknown, self.catalogue)}"
            if field and part.overrides:
                yield f"{field}overrides: {[*part.overrides]} given; give overrides to the measure itself"
        wanted = [slug for slug in self.variants if settings.applies_to(slug)]
        lacking = [slug for slug in wanted if name not in self.measures_of(slug)]
        if lacking and (settings.variants != "all" or lacking == wanted):
            kept = "snapshots are kept of trained variants with measures.series only"
            yield f"variants: {', '.join(lacking)} given, but {kept}; add them there"
        given = {f"overrides.{slug}.": settings.for_variant(slug) for slug in settings.overrides}
        for where, values in {"": settings, **given}.items():
            attack = getattr(values, "attack", None)
            if attack and not math.isclose(attack.epsilon, self.spec.epsilon, rel_tol=1e-4):
                yield f"{where}attack.epsilon: {attack.epsilon:g} given, but epsilon is {self.spec.epsilon:g}"
            if attack and attack.norm != self.spec.norm:
                yield f"{where}attack.norm: {attack.norm} given, but norm is {self.spec.norm}"
            yield from (f"{where}{text}" for text in values.problems(self._data))

    @cached_property
    def train_jobs(self) -> dict[str, TrainJob]:
        """The training of each trained variant, with the first seed (see `train_job`)."""
        jobs, problems, first = {}, [], {}
        for slug in (slug for slug, variant in self.variants.items() if variant.trained):
            try:
                jobs[slug] = self._train_job(slug)
            except ConfigError as error:
                problems += str(error).splitlines()
        for slug, job in jobs.items():
            twin = first.setdefault(job.model_copy(update={"variant": ""}).json_text(), slug)
            if twin != slug:
                equal = f"{twin!r} and {slug!r} come out equal in this experiment"
                problems.append(f"variants: {equal}; give one of them other values under overrides")
        _raise_all(problems)
        return jobs

    def _train_job(self, slug: str) -> TrainJob:
        where, data, variant = f"variant {slug!r}", self.spec.data, self._resolved(slug)
        values = self.spec.training.model_dump()
        for field, factor in variant.scale.items():
            value = getattr(self.spec.training, field, 1.0)  # an unknown field is reported with the others
            if field in variant.set or not isinstance(value, int | float):
                given = variant.set.get(field, value)
                raise ConfigError(f"{where}: scale.{field}: cannot scale {given!r}; give a value under set")
            values[field] = value * factor
            if type(value) is int and math.isfinite(values[field]):
                values[field] = max(2 if field == "batch_size" else 1, round(values[field]))
        training = parse(TrainingSpec, values | variant.set, where)
        if training.unlabeled_fraction and not data.count("unlabeled"):
            raise ConfigError(f"{where}: needs unlabelled images, but data.unlabeled is 0")
        if training.norm != self.spec.norm:
            raise ConfigError(f"{where}: norm: {training.norm} given, but norm is {self.spec.norm}")
        batch_size = min(max(training.batch_size, self.spec.minimum_batch_size), data.count("train"))
        changed: dict[str, Any] = {"batch_size": batch_size}
        override = self.spec.overrides.get(slug)
        given = override is not None and "weight_averaging" in override.set
        if training.weight_averaging is not None and not given:
            steps = training.epochs * math.ceil(data.count("train") / batch_size)
            changed["weight_averaging"] = rescaled_decay(training.weight_averaging, steps)
        model = parse(ModelSpec, {**self.spec.model.model_dump(), **variant.model}, f"{where}: model")
        training = training.model_copy(update=changed)
        return TrainJob(variant=slug, seed=self.spec.seeds[0], model=model, training=training)

    @cached_property
    def baseline(self) -> TrainJob:
        """The AT baseline that the variants change; pseudo-labels are predicted with its settings."""
        return TrainJob(variant="baseline", seed=0, model=self.spec.model, training=self.spec.training)

    def seeds_of(self, slug: str) -> tuple[int, ...]:
        """Return the seeds of a variant's training and measures: one for an external network."""
        if slug in self.networks:
            return self.spec.seeds[:1]
        return (self.spec.baseline_seeds if slug == BASELINE else None) or self.spec.seeds

    def train_job(self, slug: str, seed: int) -> TrainJob:
        """Return the training of a variant with a seed."""
        return self.train_jobs[slug].model_copy(update={"seed": seed})

    def measures_of(self, slug: str) -> dict[str, MeasureSettings]:
        """Return the measures that apply to a variant, requested or not, with its settings of each."""
        measures, trained = self.measures.items(), self.catalogue[slug].trained
        found = {name: given.for_variant(slug) for name, given in measures if given.applies_to(slug)}
        found = {name: given for name, given in found.items() if trained or not MEASURES[name].of_snapshots}
        kept = any(MEASURES[name].of_snapshots for name in found)
        return {name: given for name, given in found.items() if kept or not given.takes_snapshots}

    def job_behind(self, slug: str) -> TrainJob:
        """Return the training of a variant's weights, requested or not: the source's if it is derived."""
        return self._train_job(self.catalogue[slug].derived_from or slug)


def _raise_all(problems: Iterable[str]) -> None:
    """Raise `ConfigError` with one line per problem, if there is one."""
    if lines := dict.fromkeys(problems):
        raise ConfigError("\n".join(lines))


def unknown_variants(unknown: Sequence[str], known: Iterable[str]) -> str:
    """Return the error message for variants that do not exist."""
    names = ", ".join(map(repr, unknown)) + meant(unknown[0], known)
    return f"unknown variant {names}; known are {', '.join(known)} (config/variants.yaml)"


def load_experiment(values: Mapping[str, Any], variants_path: Path | None = None) -> Experiment:
    """Return the experiment of a merged configuration (YAML and command line), with the variants of a file
    (None: the repository's). A `ConfigError` has one line per problem: a field that is missing, unknown or
    out of range, an unknown variant, two equal variants."""
    catalogue = load_variants(variants_path or repository() / "config/variants.yaml")
    return Experiment(parse(ExperimentSpec, dict(values)), catalogue)
