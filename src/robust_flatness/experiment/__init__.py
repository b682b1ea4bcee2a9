"""A whole experiment, validated once, before anything is planned."""

from robust_flatness.experiment.experiment import Experiment, load_experiment
from robust_flatness.experiment.spec import ComputeSpec, ExperimentSpec, schema

__all__ = ["ComputeSpec", "Experiment", "ExperimentSpec", "load_experiment", "schema"]
