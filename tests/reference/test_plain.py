"""The measures against the plain implementation of the benchmark, number by number."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from robust_flatness.architectures import build_model
from robust_flatness.attacks import PGD, random_start
from robust_flatness.config import ModelSpec
from robust_flatness.flatness import Neighborhood, average_flatness, worst_flatness
from robust_flatness.network import Network
from robust_flatness.seeding import generator

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ATTACK = PGD(0.05, 0.02, 4, restarts=2)


@pytest.fixture(params=["resnet", "plain net"])
def setup(request):
    g = torch.Generator().manual_seed(0)
    x = torch.rand(9, 1, 8, 8, dtype=torch.float64, generator=g)
    y = torch.randint(0, 4, (9,), generator=g)
    if request.param == "plain net":
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 5, 2), nn.Tanh(),
            nn.Flatten(), nn.Linear(20, 4),
        ).double()  # fmt: skip
        return model, x, y
    model = build_model(ModelSpec(name="small-resnet", width=2), 4, [0.5], [0.3], g).double().eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.uniform_(0.2, 2, generator=g)
    return model, x, y


def test_pgd(plain, setup):
    model, x, y = setup
    stream = torch.Generator().manual_seed(5)
    starts = [random_start(x, ATTACK.epsilon, stream) for _ in range(ATTACK.restarts)]
    found = ATTACK(model, x, y, batch_size=4, generator=torch.Generator().manual_seed(5))
    theirs = plain.pgd_losses(model, x, y, starts, ATTACK.epsilon, ATTACK.step_size, ATTACK.steps)
    torch.testing.assert_close(found.loss, torch.tensor(theirs, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_average_flatness(plain, setup):
    model, x, y = setup
    ball = Neighborhood(Network(model, x), 0.4)
    nus = [ball.on_sphere(generator(3, "directions", sample, 0)) for sample in range(2)]
    theirs = plain.average_losses(
        model, x, y,
        [dict(zip(ball.names, nu, strict=True)) for nu in nus],
        [random_start(x, ATTACK.epsilon, generator(3, "starts", sample)) for sample in range(2)],
        ATTACK.epsilon, ATTACK.step_size, ATTACK.steps, 4,
    )  # fmt: skip
    ours = average_flatness(model, x, y, attack=ATTACK, xi=0.4, samples=2, batch_size=4, seed=3)
    torch.testing.assert_close(ours.perturbed, torch.tensor(theirs, dtype=torch.float64), rtol=1e-9, atol=0)


def test_worst_flatness(plain, setup):
    model, x, y = setup
    ball = Neighborhood(Network(model, x), 0.02)
    nu = dict(zip(ball.names, ball.in_ball(generator(3, "worst directions", 0, 0)), strict=True))
    start = random_start(x, ATTACK.epsilon, generator(3, "worst starts", 0))
    theirs = plain.worst_loss(model, x, y, nu, start, 0.02, 0.01, ATTACK.epsilon, ATTACK.step_size, 6, 4)
    ours = worst_flatness(model, x, y, attack=ATTACK, xi=0.02, steps=6, restarts=1, batch_size=4, seed=3)
    assert ours.perturbed.item() == pytest.approx(theirs, rel=1e-9)


def test_the_benchmark_runs_and_checks_equality():
    result = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), "--quick", "--repetitions", "1", "--threads", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("average-case flatness") == 3  # plain in two precisions, frozen
    assert "amx_bf16" in result.stdout


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def test_parts_run_and_fail_alone(tmp_path):
    output = tmp_path / "report.json"
    parts = ["machine", "epoch", "rloss", "flatness", "autoattack"]
    subprocess.run(
        [sys.executable, SCRIPT, "--device", "cpu", "--quick", "--output", output, "--parts", *parts],
        check=True, capture_output=True,
    )  # fmt: skip
    report = json.loads(output.read_text())
    assert list(report) == parts
    assert not [name for name, part in report.items() if "FAILED" in part]
