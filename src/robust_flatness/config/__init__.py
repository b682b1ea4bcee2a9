"""The experiment: typed specs of data, model, training, attacks and measures."""

import importlib

#: Where each name lives. Imported on first use: the settings of a measure lie beside it, in modules that
#: import rooms of this package.
_HOME = {
    "AttackSpec": "config.measures",
    "AugmentationSpec": "config.training",
    "AutoAttackSpec": "config.measures",
    "AverageFlatnessSpec": "measuring.flatness",
    "ComputeSpec": "config.specs",
    "ConfigError": "errors",
    "Count": "config.values",
    "DataSpec": "config.data",
    "Experiment": "config.experiment",
    "ExperimentSpec": "config.specs",
    "FlatnessSpec": "measuring.flatness",
    "HessianSpec": "measuring.hessian",
    "LandscapeSpec": "measuring.landscape",
    "MeasureSpec": "config.measures",
    "ModelSpec": "config.training",
    "NAME": "config.values",
    "Positive": "config.values",
    "Real": "config.values",
    "RobustnessSpec": "measuring.robustness",
    "SeriesSpec": "measuring.series",
    "Spec": "config.values",
    "TrainJob": "config.training",
    "TrainingSpec": "config.training",
    "VariantOverride": "config.variants",
    "VariantSpec": "config.variants",
    "WorstFlatnessSpec": "measuring.flatness",
    "load_experiment": "config.experiment",
    "load_variants": "config.variants",
    "make_experiment": "config.experiment",
    "load_yaml": "config.values",
    "meant": "config.values",
    "parse": "config.values",
    "parse_list": "config.values",
    "parse_number": "config.values",
    "rescaled_decay": "config.training",
}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"robust_flatness.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
