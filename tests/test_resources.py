"""What jobs cost: estimates and time limits grow with the work; the kit's experiments get sensible ones."""

from pathlib import Path

import pytest
import torch
from torch import nn

from robust_flatness.architectures import build_model
from robust_flatness.config import ModelSpec, load_yaml
from robust_flatness.config.catalogue import COSTS
from robust_flatness.experiment import load_experiment
from robust_flatness.measures.cost import OVERHEAD_MINUTES, minutes, parameters, seconds, training_passes
from robust_flatness.measures.registry import MEASURES
from robust_flatness.run.planning import START, plan

ROOT = Path(__file__).parents[1]


def experiment(name, **changes):
    values = load_yaml(ROOT / f"config/{name}.yaml") | changes
    return load_experiment(values, ROOT / "config/variants.yaml")


DIGITS = experiment("digits", variants="all")
SMALL, LARGE = ModelSpec(name="small-resnet", width=16), ModelSpec(name="resnet18", width=64)


@pytest.mark.parametrize("name", COSTS)
def test_networks_state_what_they_cost(name):
    """Multiply-adds of all convolutions and linear layers, and weights, counted."""
    stated, counted = COSTS[name], 0
    side, channels = stated["side"], 1 if stated["side"] == 8 else 3

    def count(layer, inputs, output):
        nonlocal counted
        counted += layer.weight.numel() * output[0, 0].numel() if output.ndim == 4 else layer.weight.numel()

    with torch.device("meta"):
        model = build_model(
            ModelSpec(name=name, width=stated["width"]), 10, (0.5,) * channels, (0.2,) * channels
        )
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(count)
        model.eval()(torch.zeros(1, channels, side, side))
    assert stated["multiply_adds"] == counted
    assert stated["parameters"] == sum(p.numel() for p in model.parameters())


def test_weights_grow_with_the_square_of_the_width():
    assert parameters(LARGE.model_copy(update={"width": 32})) == parameters(LARGE) / 4


def test_a_measured_training_takes_about_as_long_as_estimated():
    """30 epochs of PGD-7 on 1,000 images of 16x16 through width 16: 336 s on one core, a quarter of it to
    evaluate 15 snapshots; 150 epochs of ResNet-18 on an H100 in bfloat16 at 6.5 s each."""
    narrow = ModelSpec(name="resnet18", width=16)
    assert 200 < seconds(30 * 1000 * 8, narrow, 16, "cpu") < 336
    assert seconds(50_000 * 8, LARGE, 32, "cuda", "bfloat16", True) == pytest.approx(6.5, rel=0.1)


def test_limits_grow_with_work_width_and_without_a_gpu():
    assert minutes(0, SMALL, 8, "cpu") == OVERHEAD_MINUTES
    assert minutes(1e8, SMALL, 8, "cpu") > minutes(1e7, SMALL, 8, "cpu")
    assert minutes(1e7, LARGE.model_copy(update={"width": 128}), 32, "cuda") > minutes(1e7, LARGE, 32, "cuda")
    assert minutes(1e7, LARGE, 32, "cpu") > minutes(1e7, LARGE, 32, "cuda")


def test_trainings_count_epochs_images_and_steps():
    at, longer = DIGITS.train_jobs["at"], DIGITS.train_jobs["pgd-14"]
    assert training_passes(longer, 150) / training_passes(at, 150) == 15 / 8
    assert training_passes(at, 300) == 2 * training_passes(at, 150)


def test_a_training_at_paper_scale_fits_a_day_of_one_gpu():
    job = DIGITS.train_jobs["at"]
    paper = job.model_copy(update={"training": job.training.model_copy(update={"epochs": 150, "steps": 7})})
    hours = minutes(training_passes(paper, 50_000), LARGE, 32, "cuda") / 60
    assert 8 < hours < 24


def test_jobs_of_digits_are_short():
    """Of a quarter of an hour on one core, so that a scheduler starts them soon."""
    passes = [
        sum(
            MEASURES[name].passes(DIGITS.measures[name], DIGITS.spec.data.early_stopping, 13)
            for name in DIGITS.measures_of(slug)
        )
        for slug in DIGITS.variants
    ]
    passes += [training_passes(job, DIGITS.spec.data.train) for job in DIGITS.train_jobs.values()]
    for count in passes:
        assert OVERHEAD_MINUTES < minutes(count, DIGITS.spec.model, 8, "cpu") < 180


def test_a_plan_counts_every_job_of_the_paper():
    """74 trainings, two networks derived from them; each is measured in one job."""
    steps = plan(experiment("cifar10")).steps
    assert {name: len(jobs) for name, jobs in steps.items()} == {
        "train": 74,
        "measure": 76,
        "pseudo_label": 1,
    }
    assert all(job >= START for jobs in steps.values() for job in jobs)


def test_wall_time_is_bounded_by_the_work_and_by_the_longest_chain():
    paper = plan(experiment("cifar10"))
    total = sum(map(sum, paper.steps.values())) / 3600
    assert paper.wall_hours(1) == pytest.approx(total)
    assert paper.wall_hours(10_000) >= max(paper.steps["train"]) / 3600
    assert paper.wall_hours(64) < total / 20


def test_a_plan_says_disk_memory_and_machine():
    text = plan(DIGITS).text((1, 8))
    assert "on 1 core" in text
    assert "on 8 cores" in text
    assert "disk" in text
    assert "GPU" not in text.replace("H100", "")
    assert "GB of its GPU" in plan(DIGITS, "cuda").text()
