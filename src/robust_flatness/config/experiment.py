"""A whole experiment, validated once, before anything is planned.

Each job then gets its own slice as canonical JSON, so that a change of one measure's settings reruns that
measure alone.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from robust_flatness.config.measures import STEPS_TO_THE_EDGE, MeasureSpec, Setting
from robust_flatness.config.networks import NetworkVariant, parse_networks
from robust_flatness.config.specs import ExperimentSpec
from robust_flatness.config.training import ModelSpec, TrainingSpec, TrainJob, rescaled_decay
from robust_flatness.config.values import (
    Problems,
    Spec,
    meant,
    parse,
    shown,
)
from robust_flatness.config.values import parse_variants as parse_variants_field
from robust_flatness.config.variants import (
    BASELINE,
    VariantSpec,
    load_variants,
    parse_variants,
)
from robust_flatness.errors import ConfigError
from robust_flatness.files import canonical_json
from robust_flatness.measuring.registry import MEASURES

CONFIG_DIRECTORY = Path("config")


class Experiment:
    """A validated experiment with its variants resolved.

    `spec` is the experiment as given, `variants` maps each slug asked for to its `VariantSpec`; the networks
    of others among them are `networks`.
    """

    def __init__(self, spec: ExperimentSpec, catalogue: Mapping[str, VariantSpec]):
        self.spec = spec
        problems = Problems()
        self.catalogue = dict(catalogue)
        with problems.collected():
            self.catalogue |= parse_variants(spec.own_variants, known=catalogue)
        with problems.collected():
            _require_known("overrides", spec.overrides, self.catalogue)
        self.variants: dict[str, VariantSpec] = {}
        with problems.collected():
            self.variants = self._asked_for()
        self.networks: dict[str, NetworkVariant] = {}
        with problems.collected():
            classes = spec.data.known_classes if spec.data else None
            self.networks = parse_networks(spec.models, self.catalogue, classes)
        self.catalogue |= self.networks
        self.variants |= self.networks
        if spec.results_table is None:
            for name, measure in self.measures.items():
                for problem in self._problems_of(name, measure):
                    problems.lines.append(f"measures.{name}.{problem}")
            with problems.collected():
                _ = self.train_jobs
        problems.raise_if_any()

    @property
    def name(self) -> str:
        return self.spec.experiment

    def _asked_for(self) -> dict[str, VariantSpec]:
        """The variants with their overrides. Derived models come along when all variants are asked for;
        named alone, they need the model they are made from."""
        sources = {slug: variant.derived_from for slug, variant in self.catalogue.items()}
        asked = self.spec.variants
        if asked == "all":
            trained = [slug for slug, source in sources.items() if source is None]
            derived = [slug for slug, source in sources.items() if source is not None]
            asked = (*trained, *(derived if self.spec.results_table is None else ()))
        _require_known("variants", asked, self.catalogue)
        for slug in asked if self.spec.results_table is None else ():
            if sources[slug] is not None and sources[slug] not in asked:
                raise ConfigError(f"variants: {slug!r} is made from {sources[slug]!r}; add that variant")
        return {slug: self._resolved(slug) for slug in asked}

    def _resolved(self, slug: str) -> VariantSpec:
        variant = self.catalogue[slug]
        override = self.spec.overrides.get(slug)
        return variant.overridden(override) if override else variant

    @cached_property
    def measures(self) -> dict[str, MeasureSpec]:
        """What is measured: the settings of each measure, in the registry's order."""
        given = {name: getattr(self.spec.measures, name) for name in MEASURES}
        return {name: spec for name, spec in given.items() if spec is not None}

    def _problems_of(self, name: str, spec: MeasureSpec) -> Iterator[str]:
        """What is wrong with the settings of a measure: a field and why."""
        parts = {"": spec} | {f"{field}.": part for field, part in spec.parts().items()}
        for field, part in parts.items():
            named = () if part.variants == "all" else part.variants
            unknown = [slug for slug in named if slug not in self.catalogue]
            if unknown:
                yield f"{field}variants: {unknown_variants(unknown, self.catalogue)}"
            untrained = [slug for slug in named if slug in self.variants and not self.variants[slug].trained]
            if MEASURES[name].of_snapshots and untrained:
                yield (
                    f"{field}variants: {', '.join(map(repr, untrained))} given, but only trained variants "
                    "have snapshots"
                )
        attack = getattr(spec, "attack", None)
        if attack is not None and not math.isclose(attack.epsilon, self.spec.epsilon, rel_tol=1e-4):
            yield (
                f"attack.epsilon: {attack.epsilon:g} given, but the experiment's epsilon is "
                f"{self.spec.epsilon:g}; leave it out here"
            )
        for field, most, where in spec.limits(self.spec.data):
            if getattr(spec, field) > most:
                given = getattr(spec, field)
                yield f"{field}: {given} examples asked for, but the split has {most} ({where})"
        yield from spec.problems(self.spec.data)

    @cached_property
    def train_jobs(self) -> dict[str, TrainJob]:
        """The training of each variant that is trained, for the first seed (see `train_job`)."""
        jobs, problems = {}, Problems()
        _ = self.baseline
        for slug, variant in self.variants.items():
            if variant.trained:
                with problems.collected():
                    jobs[slug] = self._train_job(slug, variant)
        problems.raise_if_any()
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
        """The seeds that a variant is trained and measured with; the first where nothing is trained."""
        if slug in self.networks:
            return self.spec.seeds[:1]
        own = self.spec.baseline_seeds if slug == BASELINE else None
        return own or self.spec.seeds

    def train_job(self, slug: str, seed: int) -> TrainJob:
        return self.train_jobs[slug].model_copy(update={"seed": seed})

    def settings_of(self, step: str, slug: str, seed: int) -> Spec:
        """What a job of one step gets: `data`, `baseline`, `train` or a measure, of a variant and seed.

        Raises
        ------
        ConfigError
            If the experiment has no such step, or there is no such variant.
        """
        if self.spec.results_table is not None:
            raise ConfigError(f"{self.name}: starts from a results table; it has no steps")
        if step == "train":
            if slug not in self.train_jobs:
                raise ConfigError(f"variant: {slug!r} is not trained in {self.name}")
            return self.train_job(slug, seed)
        steps = {"data": self.spec.data, "baseline": self.baseline}
        steps |= {name: measure.for_variant(slug) for name, measure in self.measures.items()}
        if step not in steps:
            raise ConfigError(f"{step!r} is no step of {self.name}; it has {', '.join(['train', *steps])}")
        if slug not in self.catalogue:
            raise ConfigError(f"variant: {unknown_variants([slug], self.catalogue)}")
        return steps[step]

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
        batch_size = min(batch_size, self.spec.data.count("train"))
        training = training.model_copy(update={"batch_size": batch_size})
        if training.weight_averaging is not None and "weight_averaging" not in self._applied_as_given(slug):
            steps = training.epochs * math.ceil(self.spec.data.count("train") / training.batch_size)
            decay = rescaled_decay(training.weight_averaging, steps)
            training = training.model_copy(update={"weight_averaging": decay})
        if training.unlabeled_fraction and not self.spec.data.count("unlabeled"):
            raise ConfigError(f"{where}: needs unlabelled images, but data.unlabeled is 0")
        model = parse(ModelSpec, {**self.spec.model.model_dump(), **variant.model}, f"{where}: model")
        return TrainJob(variant=slug, seed=self.spec.seeds[0], model=model, training=training)

    def _applied_as_given(self, slug: str) -> set[str]:
        override = self.spec.overrides.get(slug)
        return set(override.set) if override else set()

    @cached_property
    def baseline(self) -> TrainJob:
        """The AT baseline that the variants change; pseudo-labels are predicted with its settings."""
        return TrainJob(
            variant="baseline",
            seed=0,
            model=self.spec.model,
            training=parse_baseline(self.spec.training, self.spec.epsilon),
        )

    def measured_by(self, measure: str) -> list[str]:
        """Slugs that a measure is made of."""
        return [slug for slug in self.variants if measure in self.measures_of(slug)]

    def measures_of(self, slug: str) -> list[str]:
        """Measures that are made of a variant, whether or not it is asked for."""
        return [
            name
            for name, spec in self.measures.items()
            if spec.applies_to(slug) and (self.catalogue[slug].trained or not MEASURES[name].of_snapshots)
        ]

    def job_behind(self, slug: str) -> TrainJob:
        """The training that a variant's weights come from, whether or not it is asked for.

        Raises
        ------
        ConfigError
            If the variant cannot be trained in this experiment.
        """
        source = self.catalogue[slug].derived_from or slug
        if source in self.train_jobs:
            return self.train_jobs[source]
        return self._train_job(source, self._resolved(source))


def parse_baseline(training: Mapping[str, Any], epsilon: float) -> TrainingSpec:
    """The AT baseline's training; what is evaluated with is what the baseline is trained with."""
    values = {"epsilon": epsilon, "step_size": epsilon / STEPS_TO_THE_EDGE, "steps": 7, **training}
    for name in ("epsilon", "step_size", "steps"):
        values.setdefault(f"evaluation_{name}", values[name])
    return parse(TrainingSpec, values, "training")


def unknown_variants(unknown: Sequence[str], known: Iterable[str]) -> str:
    """That some variants are not known, and which are."""
    return (
        f"unknown variant {', '.join(map(repr, unknown))}{meant(unknown[0], known)}; "
        f"known are {', '.join(known)} (config/variants.yaml)"
    )


def _require_known(field: str, slugs: Iterable[str], known: Mapping[str, Any]) -> None:
    unknown = [slug for slug in slugs if slug not in known]
    if unknown:
        raise ConfigError(f"{field}: {unknown_variants(unknown, known)}")


def load_experiment(values: Mapping[str, Any], variants_path: Path | None = None) -> Experiment:
    """Validate a merged configuration (YAML plus command line) as an experiment.

    Raises
    ------
    ConfigError
        If a field is missing, unknown or out of range, a variant is unknown, or two variants
        come out equal: a line for each problem.
    """
    return make_experiment(values, load_variants(variants_path or CONFIG_DIRECTORY / "variants.yaml"))


def make_experiment(values: Mapping[str, Any], catalogue: Mapping[str, VariantSpec]) -> Experiment:
    """As `load_experiment`, with a catalogue that is read already."""
    problems = Problems()
    with problems.collected():
        return Experiment(parse(ExperimentSpec, dict(values)), catalogue)
    if not any(line.startswith(("training", "variant")) for line in problems.lines):
        problems.lines += _problems_beside(values, catalogue)
    problems.raise_if_any()
    raise AssertionError("an experiment without problems was returned above")


def _problems_beside(values: Mapping[str, Any], catalogue: Mapping[str, VariantSpec]) -> list[str]:
    """Problems of the training and of the names of variants, where other fields kept these from being
    looked at."""
    problems = Problems()
    training = values.get("training")
    if isinstance(training, Mapping):
        with problems.collected():
            parse_baseline(training, Setting.of(values).epsilon)
    own = values.get("own_variants")
    known = {**catalogue, **(own if isinstance(own, Mapping) else {})}
    for field, names in (("variants", values.get("variants")), ("overrides", values.get("overrides"))):
        slugs = parse_variants_field(names) if field == "variants" else names
        if isinstance(slugs, list | tuple | Mapping):
            with problems.collected():
                _require_known(field, [slug for slug in slugs if isinstance(slug, str)], known)
    return problems.lines
