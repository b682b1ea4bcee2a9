"""The experiment: typed specs of data, model, training, attacks and measures."""

import importlib

#: Where each name lives. Imported on first use: the settings of a measure lie beside it, in modules that
#: import rooms of this package.
_HOME = {
    "AttackSpec": "config.measures",
    "AugmentationSpec": "config.training",
    "AutoAttackSpec": "config.measures",
    "AverageFlatnessSpec": "measuring.flatness",
    "CLASSES": "config.data",
    "CONFIG_DIRECTORY": "config.experiment",
    "ComputeSpec": "config.specs",
    "ConfigError": "errors",
    "Count": "config.values",
    "DIGITS_EXAMPLES": "config.data",
    "DataSpec": "config.data",
    "EXAMPLES": "config.data",
    "Experiment": "config.experiment",
    "ExperimentSpec": "config.specs",
    "FlatnessSpec": "measuring.flatness",
    "HessianSpec": "measuring.hessian",
    "Integer": "config.values",
    "LONGEST_NAME": "config.values",
    "LandscapeSpec": "measuring.landscape",
    "MeasureSpec": "config.measures",
    "MeasureSpecs": "measuring.registry",
    "ModelSpec": "config.training",
    "NAME": "config.values",
    "NonNegative": "config.values",
    "Positive": "config.values",
    "Precision": "config.values",
    "Probability": "config.values",
    "Radii": "config.values",
    "Real": "config.values",
    "RobustnessSpec": "measuring.robustness",
    "SeriesSpec": "measuring.series",
    "Size": "config.values",
    "Spec": "config.values",
    "TrainJob": "config.training",
    "TrainingSpec": "config.training",
    "UNION_BRANCH": "config.values",
    "VariantOverride": "config.variants",
    "VariantSpec": "config.variants",
    "Variants": "config.values",
    "WorstFlatnessSpec": "measuring.flatness",
    "check_radii": "config.values",
    "load_experiment": "config.experiment",
    "load_variants": "config.variants",
    "make_experiment": "config.experiment",
    "load_yaml": "config.values",
    "meant": "config.values",
    "parse": "config.values",
    "parse_list": "config.values",
    "parse_number": "config.values",
    "rescaled_decay": "config.training",
    "shown": "config.values",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"robust_flatness.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
