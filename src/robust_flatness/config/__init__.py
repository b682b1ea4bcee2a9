"""Typed settings of data, model, training, attacks and variants; `robust_flatness.experiment` joins them."""

from robust_flatness.config.data import DataSpec
from robust_flatness.config.measures import AttackSpec, AutoAttackSpec, MeasureSettings
from robust_flatness.config.training import (
    AugmentationSpec,
    ModelSpec,
    TrainingSpec,
    TrainJob,
    rescaled_decay,
)
from robust_flatness.config.values import (
    NAME,
    Count,
    Positive,
    Real,
    Spec,
    load_yaml,
    meant,
    parse,
    parse_list,
    parse_number,
)
from robust_flatness.config.variants import VariantOverride, VariantSpec, load_variants
from robust_flatness.errors import ConfigError

__all__ = [
    "NAME",
    "AttackSpec",
    "AugmentationSpec",
    "AutoAttackSpec",
    "ConfigError",
    "Count",
    "DataSpec",
    "MeasureSettings",
    "ModelSpec",
    "Positive",
    "Real",
    "Spec",
    "TrainJob",
    "TrainingSpec",
    "VariantOverride",
    "VariantSpec",
    "load_variants",
    "load_yaml",
    "meant",
    "parse",
    "parse_list",
    "parse_number",
    "rescaled_decay",
]
