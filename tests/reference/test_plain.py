"""The measures against the plain implementation of the benchmark, number by number."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robust_flatness.attacks import PGD
from robust_flatness.flatness import Neighborhood, average_flatness, worst_flatness
from robust_flatness.network import Network
from robust_flatness.seeding import generator

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(params=["linf", "l2"])
def attack(request):
    sizes = {"linf": (0.05, 0.02), "l2": (0.7, 0.3)}[request.param]
    return PGD(*sizes, 4, restarts=2, norm=request.param)


def budget(attack, *more):
    return attack.epsilon, attack.step_size, *more, attack.norm


def test_pgd(plain, model, data, attack):
    stream = torch.Generator().manual_seed(5)
    starts = [attack.start(data[0], stream) for _ in range(attack.restarts)]
    found = attack(model, *data, batch_size=5, generator=torch.Generator().manual_seed(5))
    theirs = plain.pgd_losses(model, *data, starts, *budget(attack, attack.steps))
    torch.testing.assert_close(found.loss, torch.tensor(theirs, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    lengths = (found.x_adv - data[0]).flatten(1).norm(torch.inf if attack.norm == "linf" else 2, dim=1)
    assert 0.9 * attack.epsilon < lengths.max() <= attack.epsilon + 1e-12
    assert ((found.x_adv == 0) | (found.x_adv == 1)).any()


@pytest.mark.parametrize("number", [None, 0, 1], ids=["all layers", "a weight", "a bias"])
def test_average_flatness(plain, model, data, attack, number):
    ball = Neighborhood(Network(model, data[0]), 0.4)
    layers = ball.names if number is None else ball.names[number : number + 1]
    nus, starts = [], []
    for sample in range(2):
        nu = ball.on_sphere(generator(3, "directions", sample, 0))
        nus.append({name: part for name, part in zip(ball.names, nu, strict=True) if name in layers})
        starts.append(attack.start(data[0], generator(3, "starts", sample)))
    theirs = plain.average_losses(model, *data, nus, starts, *budget(attack, attack.steps, 5))
    options = {"attack": attack, "layers": layers, "batch_size": 5, "seed": 3}
    ours = average_flatness(model, *data, xi=0.4, samples=2, **options)
    torch.testing.assert_close(ours.perturbed, torch.tensor(theirs, dtype=torch.float64), rtol=1e-9, atol=0)


def test_worst_flatness(plain, model, data, attack):
    ball = Neighborhood(Network(model, data[0]), 0.02)
    nu = dict(zip(ball.names, ball.in_ball(generator(3, "worst directions", 0, 0)), strict=True))
    start = attack.start(data[0], generator(3, "worst starts", 0))
    theirs = plain.worst_loss(model, *data, nu, start, 0.02, 0.01, *budget(attack, 6, 5))
    ours = worst_flatness(model, *data, attack=attack, xi=0.02, steps=6, restarts=1, batch_size=5, seed=3)
    assert ours.perturbed.item() == pytest.approx(theirs, rel=1e-9)


def test_the_benchmark_runs_and_checks_equality():
    command = [sys.executable, BENCHMARKS / "run.py", "--quick", "--repetitions", "1", "--threads", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("average-case flatness") == 3  # plain in two precisions, frozen
    assert "amx_bf16" in result.stdout


def test_parts_run_and_fail_alone(tmp_path):
    output = tmp_path / "report.json"
    parts = ["machine", "epoch", "rloss", "flatness", "autoattack"]
    options = ["--device", "cpu", "--quick", "--output", output, "--parts", *parts]
    subprocess.run([sys.executable, BENCHMARKS / "gpu.py", *options], check=True, capture_output=True)
    report = json.loads(output.read_text())
    assert list(report) == parts
    assert not [name for name, part in report.items() if "FAILED" in part]
