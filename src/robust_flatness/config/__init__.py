"""Typed settings of data, model, training, attacks and variants; `robust_flatness.experiment` joins them."""

from robust_flatness.config.data import DataSpec
from robust_flatness.config.measures import AttackSpec, AutoAttackSpec, MeasureSettings
from robust_flatness.config.training import AugmentationSpec, ModelSpec, TrainingSpec, TrainJob
from robust_flatness.config.values import Count, Positive, Real, Spec, load_yaml, parse
from robust_flatness.config.variants import VariantSpec, load_variants
from robust_flatness.errors import ConfigError

__all__ = [
    "AttackSpec", "AugmentationSpec", "AutoAttackSpec", "ConfigError", "Count", "DataSpec", "MeasureSettings",
    "ModelSpec", "Positive", "Real", "Spec", "TrainJob", "TrainingSpec", "VariantSpec", "load_variants",
    "load_yaml", "parse",
]  # fmt: skip
