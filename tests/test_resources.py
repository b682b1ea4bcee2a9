"""Time limits of jobs: they grow with the work, and the experiments of the kit get sensible ones."""

from pathlib import Path

from robust_flatness.config import ModelSpec, load_experiment, load_yaml
from robust_flatness.measuring.cost import (
    OVERHEAD_MINUTES,
    minutes,
    training_passes,
)
from robust_flatness.measuring.registry import MEASURES

ROOT = Path(__file__).parents[1]
DIGITS = load_experiment(load_yaml(ROOT / "config/digits.yaml"), ROOT / "config/variants.yaml")
SMALL, LARGE = ModelSpec(name="small-resnet", width=16), ModelSpec(name="resnet18", width=64)


def test_limits_grow_with_work_width_and_without_a_gpu():
    assert minutes(0, SMALL, "cpu") == OVERHEAD_MINUTES
    assert minutes(1e8, SMALL, "cpu") > minutes(1e7, SMALL, "cpu")
    assert minutes(1e7, LARGE.model_copy(update={"width": 128}), "cuda") > minutes(1e7, LARGE, "cuda")
    assert minutes(1e7, LARGE, "cpu") > minutes(1e7, LARGE, "cuda")


def test_trainings_count_epochs_images_and_steps():
    at, longer = DIGITS.train_jobs["at"], DIGITS.train_jobs["pgd-14"]
    assert training_passes(longer, 150) / training_passes(at, 150) == 15 / 8
    assert training_passes(at, 300) == 2 * training_passes(at, 150)


def test_a_training_at_paper_scale_fits_a_day_of_one_gpu():
    job = DIGITS.train_jobs["at"]
    paper = job.model_copy(update={"training": job.training.model_copy(update={"epochs": 150, "steps": 7})})
    hours = minutes(training_passes(paper, 50_000), LARGE, "cuda") / 60
    assert 8 < hours < 24


def test_digits_jobs_are_short():
    """A scheduler starts short jobs sooner; each takes less than two minutes on one core."""
    passes = [
        MEASURES[name].passes(spec, DIGITS.spec.data.early_stopping, 13)
        for name, spec in DIGITS.measures.items()
    ]
    passes += [training_passes(job, DIGITS.spec.data.train) for job in DIGITS.train_jobs.values()]
    for count in passes:
        assert OVERHEAD_MINUTES < minutes(count, DIGITS.spec.model, "cpu") < 60
