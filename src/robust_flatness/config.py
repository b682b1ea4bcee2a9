"""The experiment: typed specs of data, model, training, attacks and measures.

An experiment's YAML is validated once, before anything is planned. Each job then gets its own
slice as canonical JSON, so that a change of one measure's settings reruns that measure alone.
This module imports neither torch nor numpy: planning must start in a fraction of a second.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from robust_flatness.errors import ConfigError
from robust_flatness.files import canonical_json

CONFIG_DIRECTORY = Path("config")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: Names become folders.
LONGEST_NAME = 100

#: Number of examples in scikit-learn's bundled handwritten digits, known without loading them.
DIGITS_EXAMPLES = 1797
DIGITS_CLASSES = 10


def parse_number(value: Any) -> Any:
    """Numbers as people write them: 8, 0.5, "1e-3", "8/255", "0.15/4". Anything else is returned
    unchanged, for the validation to complain about."""
    if isinstance(value, bool):
        raise ValueError("expected a number")
    if isinstance(value, str):
        parts = value.split("/")
        try:
            numbers = [float(part) for part in parts]
            if len(numbers) == 2 and numbers[1] != 0:
                return numbers[0] / numbers[1]
            if len(numbers) == 1:
                return int(value) if re.fullmatch(r"\s*[+-]?\d+\s*", value) else numbers[0]
        except ValueError:
            pass
    return value


def check_radii(value: tuple[float, ...]) -> tuple[float, ...]:
    """Radii name columns of the results, the first is the main one: at least one, each once."""
    if not value or len(set(value)) < len(value):
        raise ValueError("name at least one radius, each once")
    return value


def parse_list(value: Any) -> Any:
    """A list, also from "a,b,c" or a single value, as the command line gives them."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int | float) else value


Real = Annotated[float, BeforeValidator(parse_number), Field(allow_inf_nan=False)]
Positive = Annotated[Real, Field(gt=0)]
NonNegative = Annotated[Real, Field(ge=0)]
Probability = Annotated[Real, Field(ge=0, le=1)]
Integer = Annotated[int, BeforeValidator(parse_number), Field(lt=2**63)]
Count = Annotated[Integer, Field(ge=1)]
Size = Annotated[Integer, Field(ge=0)]
Radii = Annotated[tuple[Positive, ...], BeforeValidator(parse_list), AfterValidator(check_radii)]
Precision = Literal["float32", "bfloat16"]


class Spec(BaseModel):
    """Base of all specs: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def json_text(self) -> str:
        """Canonical JSON, as handed to a job."""
        return canonical_json(self.model_dump(mode="json"))


class DataSpec(Spec):
    """A dataset and the sizes of its disjoint splits.

    `train` labelled training images, `unlabeled` images whose labels are withheld,
    `early_stopping` images for choosing the checkpoint (and the Hessian), `test` images for
    the measures.
    """

    name: Literal["digits", "npz"]
    path: str | None = None
    train: Count
    unlabeled: Size = 0
    early_stopping: Count
    test: Count
    classes: Annotated[Integer, Field(ge=2)] | None = None
    """Number of classes K; None: the highest training label plus one (`npz`), 10 (`digits`)."""

    @model_validator(mode="after")
    def _check(self) -> "DataSpec":
        if self.name == "npz" and not self.path:
            raise ValueError("path: the dataset 'npz' needs the path of an .npz file")
        if self.name == "digits":
            if self.path:
                raise ValueError(f"path: {self.path!r} given, but 'digits' comes with scikit-learn")
            if self.classes not in (None, DIGITS_CLASSES):
                raise ValueError(f"classes: {self.classes} given, but 'digits' has {DIGITS_CLASSES}")
            total = self.train + self.unlabeled + self.early_stopping + self.test
            if total > DIGITS_EXAMPLES:
                raise ValueError(
                    f"train + unlabeled + early_stopping + test = {total}, "
                    f"but 'digits' has {DIGITS_EXAMPLES} images; reduce one of them"
                )
        return self

    @property
    def known_classes(self) -> int | None:
        """The number of classes where it is known without reading the data."""
        return DIGITS_CLASSES if self.name == "digits" else self.classes


class ModelSpec(Spec):
    """An architecture: `name` as in `robust_flatness.models.MODELS`, `width` channels in the
    first stage; `dropout` is the probability in every residual block."""

    name: Literal["resnet18", "small-resnet"]
    width: Count
    activation: Literal["relu", "mish", "silu", "gelu"] = "relu"
    dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.0


class AttackSpec(Spec):
    """PGD in the L-infinity ball of radius `epsilon` (inputs in [0, 1])."""

    epsilon: Annotated[Positive, Field(le=1)]
    step_size: Positive
    steps: Count
    restarts: Count = 1


class AugmentationSpec(Spec):
    """Crops after zero padding by up to `crop` pixels, flips, AutoAugment's CIFAR-10 policy, and a
    square of `cutout` pixels (0: none) filled with the channel means."""

    crop: Size = 0
    flip: bool = False
    autoaugment: bool = False
    cutout: Size = 0


class TrainingSpec(Spec):
    """Adversarial training and everything the variants change in it.

    Section references are to Stutz et al., ICCV 2021; defaults are the AT baseline where it
    does not depend on the dataset.
    """

    epochs: Count
    batch_size: Annotated[Integer, Field(ge=2)]
    """At least 2: batch norm has no statistics of one image."""
    optimizer: Literal["sgd", "adam", "entropy-sgd"] = "sgd"
    learning_rate: Positive
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative
    langevin_steps: Count = 1
    """Entropy-SGD: inner steps L of stochastic gradient Langevin dynamics."""
    schedule: Literal["multi-step", "constant", "cyclic"] = "multi-step"
    milestones: Annotated[tuple[Annotated[Real, Field(gt=0, lt=1)], ...], BeforeValidator(parse_list)] = (
        0.4,
        0.6,
        0.8,
    )
    """Multi-step: fractions of the epochs at which the rate is multiplied by 0.1."""
    cycles: Count = 1
    """Cyclic: number of triangular cycles, each from 0 to the learning rate and back to 0."""

    epsilon: Annotated[Positive, Field(le=1)]
    step_size: Positive
    steps: Count = 7
    stop_after_flip: Annotated[Integer, Field(ge=0)] | None = None
    """PGD-tau: an example's attack stops tau iterations after its label flips."""
    attack_incorrect: bool = True
    """False: examples misclassified when clean stay clean ("ignore incorrect")."""
    attack_predicted_label: bool = False
    """PGD against the label predicted on the clean example ("prevent label leaking")."""

    objective: Literal["at", "trades", "mart", "self-supervision"] = "at"
    objective_weight: NonNegative = 0.0
    """lambda of TRADES, MART and self-supervision."""
    adversarial_fraction: Probability = 1.0
    """Share of each batch that is attacked; below 1 with self-supervision only."""
    weight_perturbation: NonNegative = 0.0
    """AT-AWP: size xi of the adversarial weight perturbation, relative to each layer's norm."""
    label_smoothing: Probability = 0.0
    label_noise: Probability = 0.0
    weight_clipping: Positive | None = None
    weight_averaging: Annotated[Real, Field(ge=0, lt=1)] | None = None
    """Decay per step of the exponential moving average of the weights, already rescaled to the
    number of steps (see `rescaled_decay`)."""
    unlabeled_fraction: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    """Share of each batch drawn from the unlabelled pool, with pseudo-labels."""
    augmentation: AugmentationSpec = AugmentationSpec()

    snapshots: Count = 12
    """At least this many snapshots over the training, evenly spaced, and one after the last epoch."""
    early_stopping_restarts: Count = 5
    """Restarts of the PGD that chooses the early-stopped checkpoint."""
    history_examples: Count = 1280
    """Test images of the training curves."""
    evaluation_epsilon: Annotated[Positive, Field(le=1)]
    evaluation_step_size: Positive
    evaluation_steps: Count
    """PGD of early stopping and training curves: the threat model's radius and the baseline's steps,
    whatever is trained with."""
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _check(self) -> "TrainingSpec":
        for field, given, objectives in (
            ("label_smoothing", self.label_smoothing > 0, ("at", "trades", "self-supervision")),
            ("attack_predicted_label", self.attack_predicted_label, ("at", "mart")),
            ("attack_incorrect: false", not self.attack_incorrect, ("at", "trades", "mart")),
            ("stop_after_flip", self.stop_after_flip is not None, ("at", "mart")),
            ("adversarial_fraction < 1", self.adversarial_fraction < 1, ("self-supervision",)),
        ):
            if given and self.objective not in objectives:
                raise ValueError(
                    f"{field}: not defined with objective {self.objective!r}; "
                    f"allowed with {', '.join(objectives)}"
                )
        if self.optimizer == "entropy-sgd" and self.momentum:
            raise ValueError(
                f"momentum: {self.momentum} with optimizer 'entropy-sgd'; it runs without momentum, set 0"
            )
        return self

    def snapshot_epochs(self) -> list[int]:
        """Epochs (from 0) after which a snapshot is taken: 0, k, 2k, ... and the last."""
        interval = max(1, self.epochs // self.snapshots)
        return sorted({*range(0, self.epochs, interval), self.epochs - 1})


class AutoAttackSpec(Spec):
    """AutoAttack; `version: standard` is the library's own, `reduced` the budget given here."""

    version: Literal["standard", "reduced"] = "standard"
    attacks: Annotated[
        tuple[Literal["apgd-ce", "apgd-t", "fab-t", "square"], ...], BeforeValidator(parse_list)
    ] = ("apgd-ce", "apgd-t", "fab-t", "square")
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
        targets = f", {self.target_classes} target classes" if self.target_classes else ""
        return (
            f"AutoAttack (reduced: {'+'.join(self.attacks)}, {self.iterations} iterations, "
            f"{self.restarts} restart{'s' * (self.restarts > 1)}{targets})"
        )


class RobustnessSpec(Spec):
    """Robustness of a checkpoint: PGD for RLoss, AutoAttack for RErr, clean error and loss."""

    attack: AttackSpec
    autoattack: AutoAttackSpec | None = AutoAttackSpec()
    test_examples: Count
    train_examples: Count
    clean_test_examples: Count
    clean_train_examples: Count
    batch_size: Count = 128
    precision: Precision = "float32"


class AverageFlatnessSpec(Spec):
    """Average-case flatness: first radius the main one, the others the ablation's."""

    xi: Radii
    samples: Count = 10
    clean_samples: Count = 50
    """Samples for the clean loss (flatness in CE)."""
    scope: Literal["dataset", "batch"] = "dataset"
    batch_size: Count = 128


class WorstFlatnessSpec(Spec):
    """Worst-case flatness: first radius the main one, the others the ablation's."""

    xi: Radii
    steps: Count = 20
    restarts: Count = 10
    weight_step: Positive = 0.01
    scope: Literal["dataset", "batch"] = "dataset"
    batch_size: Count = 128


class FlatnessSpec(Spec):
    """Flatness of a checkpoint, average- and worst-case, in RLoss and in CE."""

    attack: AttackSpec
    """Attack of RLoss(w); each sample of the average-case measure attacks with one start."""
    average: AverageFlatnessSpec
    worst: WorstFlatnessSpec
    test_examples: Count
    train_examples: Count
    precision: Precision = "float32"


class HessianSpec(Spec):
    """Extreme eigenvalues of the Hessian of the mean clean loss on the early-stopping images."""

    eigenvalues: Annotated[Integer, Field(ge=2)] = 4
    tolerance: Positive = 0.01
    batch_size: Count = 128


class LandscapeSpec(Spec):
    """RLoss along directions in weight space, at `points` values of s in [-1, 1]."""

    points: Annotated[Integer, Field(ge=3)] = 51
    attack: AttackSpec
    random_directions: Count = 10
    adversarial_directions: Count = 10
    random_scale: Positive = 0.5
    adversarial_scale: Positive = 0.025
    hessian_scale: Positive = 0.5
    adversarial_steps: Count = 20
    examples: Count = 128
    precision: Precision = "float32"


class SeriesSpec(Spec):
    """Loss, flatness and eigenvalue at every snapshot of a training."""

    attack: AttackSpec
    average: AverageFlatnessSpec
    worst: WorstFlatnessSpec
    hessian: HessianSpec | None = None
    """Set for the variants of `hessian_series_variants` only."""
    test_examples: Count
    train_examples: Count
    precision: Precision = "float32"


class VariantSpec(Spec):
    """A training variant: changes relative to the AT baseline.

    `scale` multiplies a number of the baseline, `set` replaces a field of `TrainingSpec`, `model`
    one of `ModelSpec`. A variant with `derived_from` is made from another one's checkpoints by
    scaling its convolutions by `convolution_scale`, without training.
    """

    label: str
    family: str
    scale: dict[str, Positive | Literal[0]] = Field(default_factory=dict)
    set: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)
    derived_from: str | None = None
    convolution_scale: Positive | None = None

    def overridden(self, override: "VariantOverride") -> "VariantSpec":
        """This variant with an experiment's own values; a value set there replaces a scaled one."""
        kept = {k: v for k, v in self.scale.items() if k not in override.set}
        return self.model_copy(
            update={
                "scale": {**kept, **override.scale},
                "set": {**self.set, **override.set},
                "model": {**self.model, **override.model},
            }
        )


class VariantOverride(Spec):
    """An experiment's own values for one variant, where the scale of its network asks for it."""

    scale: dict[str, Positive | Literal[0]] = Field(default_factory=dict)
    set: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)


class TrainJob(Spec):
    """Everything a training depends on besides its data file."""

    variant: str
    seed: Size
    model: ModelSpec
    training: TrainingSpec


#: Updates of the published training: 150 epochs of 391 batches.
PUBLISHED_STEPS = 58650


def rescaled_decay(decay: float, steps: int) -> float:
    """Decay per step that forgets as much over `steps` updates as `decay` does over the published
    58,650: decay^(58650 / steps)."""
    return decay ** (PUBLISHED_STEPS / steps)


class MeasureSpecs(Spec):
    """What is measured. `hessian`, `landscape` and `series` apply to the variants named."""

    robustness: RobustnessSpec
    flatness: FlatnessSpec
    hessian: HessianSpec | None = None
    hessian_variants: Annotated[tuple[str, ...], BeforeValidator(parse_list)] = ()
    landscape: LandscapeSpec | None = None
    landscape_variants: Annotated[tuple[str, ...], BeforeValidator(parse_list)] = ()
    series: SeriesSpec | None = None
    series_variants: Annotated[tuple[str, ...], BeforeValidator(parse_list)] = ()
    hessian_series_variants: Annotated[tuple[str, ...], BeforeValidator(parse_list)] = ()


class ComputeSpec(Spec):
    """How jobs run. `threads` are torch's threads in a job, fixed here because another number
    gives other bits; `device` is `cpu` or `cuda`."""

    threads: Count = 1
    device: Literal["cpu", "cuda"] = "cpu"


class ExperimentSpec(Spec):
    """A whole experiment, as validated from its YAML and the command line."""

    experiment: str
    description: str = ""
    seeds: Annotated[tuple[Size, ...], BeforeValidator(parse_list)] = (0,)
    variants: Literal["all"] | Annotated[tuple[str, ...], BeforeValidator(parse_list)] = "all"
    results_table: str | None = None
    """Start from this table: nothing is trained or measured."""
    epsilon: Annotated[Positive, Field(le=1)] | None = None
    data: DataSpec | None = None
    model: ModelSpec | None = None
    training: dict[str, Any] | None = None
    minimum_batch_size: Count = 1
    """Floor for the batch sizes of the variants."""
    measures: MeasureSpecs | None = None
    compute: ComputeSpec = ComputeSpec()
    overrides: dict[str, VariantOverride] = Field(default_factory=dict)

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

    @field_validator("variants", mode="before")
    @classmethod
    def _variants(cls, value: Any) -> Any:
        parsed = value if value == "all" else parse_list(value)
        return "all" if parsed == ["all"] else parsed

    @field_validator("variants", "seeds")
    @classmethod
    def _distinct(cls, value: Any) -> Any:
        if value != "all" and (not value or len(set(value)) < len(value)):
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

    def _check_measures(self) -> None:
        measures = self.spec.measures
        for field in ("hessian", "landscape", "series", "hessian_series"):
            slugs = getattr(measures, f"{field}_variants")
            self._require_known(f"measures.{field}_variants", slugs, self.catalogue)
            if slugs and getattr(measures, field.removeprefix("hessian_"), None) is None:
                raise ConfigError(
                    f"measures.{field}_variants: {', '.join(slugs)} given, but what to measure is missing; "
                    f"add measures.{field.removeprefix('hessian_')}"
                )
        for name in ("robustness", "flatness", "landscape", "series"):
            part = getattr(measures, name)
            if part is not None and not math.isclose(part.attack.epsilon, self.spec.epsilon, rel_tol=1e-4):
                raise ConfigError(
                    f"measures.{name}.attack.epsilon: {part.attack.epsilon:g} given, but the experiment's "
                    f"epsilon is {self.spec.epsilon:g}; give both the same value (and step_size with them)"
                )
        data = self.spec.data
        autoattack, classes = measures.robustness.autoattack, data.known_classes
        if autoattack and autoattack.target_classes and classes and autoattack.target_classes >= classes:
            raise ConfigError(
                f"measures.robustness.autoattack.target_classes: {autoattack.target_classes} given; "
                f"at most {classes - 1} with {classes} classes"
            )
        if measures.landscape is not None and measures.landscape.examples > data.test:
            raise ConfigError(
                f"measures.landscape.examples: {measures.landscape.examples} examples asked for, but the "
                f"split has {data.test} (data.test)"
            )
        limits = {"test_examples": data.test, "train_examples": data.train}
        limits |= {f"clean_{key}": limit for key, limit in limits.items()}
        for name in ("robustness", "flatness", "series"):
            part = getattr(measures, name)
            for key, limit in limits.items():
                if part is not None and getattr(part, key, 0) > limit:
                    raise ConfigError(
                        f"measures.{name}.{key}: {getattr(part, key)} examples asked for, but the "
                        f"split has {limit} (data.{'test' if 'test' in key else 'train'})"
                    )

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
        """Slugs to which `hessian`, `landscape`, `series` or `hessian_series` applies."""
        measures = self.spec.measures
        if getattr(measures, measure.removeprefix("hessian_"), None) is None:
            return []
        return [slug for slug in getattr(measures, f"{measure}_variants") if slug in self.variants]


UNION_BRANCH = re.compile(r"(function-|literal\[|tuple\[)")


def shown(value: Any, length: int = 200) -> str:
    """`value` as it is quoted in a message, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # integers of more than 4,300 digits; endless nesting
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= length else f"{text[:length]}..."


def meant(name: str, known: Iterable[str]) -> str:
    """`, did you mean ...?` where one of the names known is close to `name`."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _fields_at(spec: type[BaseModel], location: Iterable[str | int]) -> list[str]:
    """The fields of the spec that lies at `location` within `spec`; none where that is unclear."""
    for part in location:
        field = spec.model_fields.get(str(part))
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        nested = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if len(nested) != 1:
            return []
        spec = nested[0]
    return list(spec.model_fields)


def parse(spec: type[Spec], values: Any, where: str = "") -> Any:
    """`values` validated as `spec`.

    Raises
    ------
    ConfigError
        One line per problem: the field, the value given, what is allowed.
    """
    try:
        return spec.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            # branches of a union ("literal['all']", "function-before[...]") are no part of a field's name
            parts = (part for part in map(str, problem["loc"]) if not UNION_BRANCH.match(part))
            path = ".".join(part if part and part.isprintable() else repr(part) for part in parts)
            field = ".".join(part for part in (where, path) if part) or spec.__name__
            message = problem["msg"].removeprefix("Value error, ")
            given = (
                ""
                if problem["type"] in {"missing"} or isinstance(problem["input"], dict)
                else f" (given: {shown(problem['input'])})"
            )
            if problem["type"] == "extra_forbidden":
                allowed = _fields_at(spec, problem["loc"][:-1])
                message = f"unknown field{meant(str(problem['loc'][-1]), allowed)}"
                message += f"; allowed are {', '.join(allowed)}" if allowed else ""
            lines.append(f"{field}: {message}{given}")
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def load_variants(path: Path) -> dict[str, VariantSpec]:
    """The catalogue of variants from a YAML file: slug -> `VariantSpec`."""
    raw = load_yaml(path)
    for slug in raw:
        if not isinstance(slug, str) or not NAME.fullmatch(slug) or len(slug) > LONGEST_NAME:
            raise ConfigError(
                f"{path}: {shown(slug)} cannot name a variant; use at most {LONGEST_NAME} letters, digits, "
                "'.', '_' and '-', starting with a letter or digit"
            )
    catalogue = {slug: parse(VariantSpec, value, f"{path}: {slug}") for slug, value in raw.items()}
    for slug, variant in catalogue.items():
        if variant.derived_from is None:
            continue
        source = catalogue.get(variant.derived_from)
        if source is None or source.derived_from is not None:
            raise ConfigError(
                f"{path}: {slug}.derived_from: {variant.derived_from!r} given; "
                "expected a variant that is trained"
            )
        if variant.convolution_scale is None:
            raise ConfigError(f"{path}: {slug}.convolution_scale: missing; a derived variant needs it")
    return catalogue


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


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises
    ------
    ConfigError
        If the file is missing, is no YAML or holds something else.
    """
    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # impossible dates, endless nesting
        raise ConfigError(f"{path}: not valid YAML ({(str(error).splitlines() or ['?'])[0]})") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of fields, found {type(value).__name__}")
    return value
