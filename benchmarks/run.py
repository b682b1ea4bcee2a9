"""Time PGD and both flatness measures against other implementations, with one and with all threads.

    python benchmarks/run.py [--repetitions 3] [--quick]

The others are the usual implementation (`plain.py`), a frozen copy laid out channels-last without needless
gradients (`frozen.py`), and, for PGD, torchattacks and foolbox where they are installed. They take turns, so
that other load hits all of them, each in a process of its own forked after the network has been trained, so
that none profits from memory that another has allocated. Medians of the CPU time (of all threads) and of its
ratios are reported. Losses in single precision are checked to equal those of the plain and the frozen
implementation, those in bfloat16 to be within 1 %. The two libraries return adversarial examples, from which
clean and adversarial losses are computed as ours returns them.
"""

import argparse
import importlib
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
import frozen
import plain

from robust_flatness.architectures import build_model
from robust_flatness.attacks import PGD, random_start
from robust_flatness.config import ModelSpec
from robust_flatness.flatness import Neighborhood, average_flatness, perturbed_parameters, worst_flatness
from robust_flatness.network import Network
from robust_flatness.seeding import generator

#: Ratios asked for, by workload and precision.
TARGETS = {
    ("PGD, ResNet-18", "float32"): 1.7,
    ("PGD, ResNet-18", "bfloat16"): 5.0,
    ("average-case flatness", "float32"): 1.5,
    ("average-case flatness", "bfloat16"): 4.0,
    ("worst-case flatness", "float32"): 1.5,
    ("worst-case flatness", "bfloat16"): 4.0,
}
BATCH = 128


def small_net() -> nn.Module:
    """A convolutional net for 28x28 images, with biases and without batch norm."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def images(count: int, channels: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Ten classes of smooth random patterns with noise, in [0, 1]: something a net can learn."""
    g = generator(seed, "images")
    patterns = F.interpolate(torch.rand(10, channels, 5, 5, generator=g), size=size, mode="bicubic")
    y = torch.randint(0, 10, (count,), generator=g)
    noise = 0.15 * torch.randn(count, channels, size, size, generator=g)
    return (patterns[y] + noise).clamp(0, 1), y


def trained(model: nn.Module, channels: int, size: int, steps: int, batch: int = 64) -> nn.Module:
    """`model` after some steps of adversarial training with one signed step each."""
    g = generator(0, "weights")
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, generator=g)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            module.momentum = 0.5  # few steps
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for step in range(steps):
        x, y = (tensor[:batch] for tensor in images(64, channels, size, seed=0))
        noise = 0.1 * torch.randn(x.shape, generator=generator(step, "noise"))
        x = (x + noise).clamp(0, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), y), x)
        moved = (x.detach() + 8 / 255 * gradient.sign()).clamp(0, 1)
        optimizer.zero_grad()
        F.cross_entropy(model(moved), y).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return model.eval()


class Timed:
    """Repeated calls of a function in a process of its own."""

    def __init__(self, function: Callable[[], Any], threads: int):
        forked = multiprocessing.get_context("fork")
        self._pipe, theirs = forked.Pipe()
        self._process = forked.Process(target=self._serve, args=(function, theirs, threads), daemon=True)
        self._process.start()

    def __call__(self) -> tuple[float, Any]:
        """CPU seconds that a call takes, and its result."""
        self._pipe.send(None)
        return self._pipe.recv()

    def end(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()

    @staticmethod
    def _serve(function: Callable[[], Any], pipe: Connection, threads: int) -> None:
        torch.set_num_threads(threads)  # not in the parent: threads do not survive a fork
        while True:
            pipe.recv()
            begin = time.process_time()
            result = function()
            pipe.send((time.process_time() - begin, result))


def apart(function: Callable[[], list[Tensor]]) -> list[Tensor]:
    """The result of a function of ours, computed outside this process, from which the others are forked."""
    call = Timed(lambda: [tensor.numpy() for tensor in function()], threads=1)
    found = [torch.from_numpy(array) for array in call()[1]]
    call.end()
    return found


@dataclass(frozen=True)
class Workload:
    """A call of each other way by name, and one of ours in a precision; all return losses."""

    name: str
    others: dict[str, Callable[[], list[float]]]
    ours: Callable[[str], list[float]]
    most: int = 100
    """Repetitions at most."""
    unchecked: dict[str, Callable[[], list[float]]] = field(default_factory=dict)
    """Ways with starts of their own, whose results are close at best."""


def pgd_workload(name: str, model: nn.Module, x: Tensor, y: Tensor, steps: int, most: int = 100) -> Workload:
    """Highest loss of each example by PGD with one start."""
    attack = PGD(8 / 255, 0.007, steps)
    start = random_start(x, attack.epsilon, torch.Generator().manual_seed(0))

    def ours(precision: str) -> list[float]:
        chosen = PGD(8 / 255, 0.007, steps, precision=precision)
        return chosen(model, x, y, BATCH, torch.Generator().manual_seed(0)).loss.tolist()

    def plainly() -> list[float]:
        losses = []
        for i in range(0, len(x), BATCH):
            part = slice(i, i + BATCH)
            losses += plain.pgd_losses(model, x[part], y[part], [start[part]], 8 / 255, 0.007, steps)
        return losses

    def frozenly() -> list[float]:
        return frozen.pgd_losses(model, x, y, start, 8 / 255, 0.007, steps, BATCH)

    ways = {"plain": plainly, "frozen": frozenly}
    return Workload(name, ways, ours, most, libraries(model, x, y, steps))


def libraries(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> dict[str, Callable[[], list[float]]]:
    """PGD by torchattacks and foolbox, where they are installed, with the losses at what they find."""
    found: dict[str, Callable[[], list[float]]] = {}
    for name, attack in (("torchattacks", _torchattacks), ("foolbox", _foolbox)):
        try:
            importlib.import_module(name)
        except ImportError:
            continue

        def call(attack=attack) -> list[float]:
            losses = []
            for i in range(0, len(x), BATCH):
                part, labels = x[i : i + BATCH], y[i : i + BATCH]
                x_adv = attack(model.eval(), part, labels, steps)
                with torch.no_grad():
                    both = [F.cross_entropy(model(z), labels, reduction="none") for z in (part, x_adv)]
                losses += torch.maximum(*both).tolist()
            return losses

        found[name] = call
    return found


def _torchattacks(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    import torchattacks

    return torchattacks.PGD(model, eps=8 / 255, alpha=0.007, steps=steps)(x, y)


def _foolbox(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Tensor:
    import foolbox

    attack = foolbox.attacks.LinfPGD(abs_stepsize=0.007, steps=steps)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    return attack.run(wrapped, x, foolbox.criteria.Misclassification(y), epsilon=8 / 255)


def average_workload(model: nn.Module, x: Tensor, y: Tensor, steps: int, samples: int) -> Workload:
    """RLoss at random weights, one start each."""
    attack = PGD(0.1, 0.02, steps)

    def directions(sample: int) -> list[Tensor]:
        ball = Neighborhood(Network(model, x[:2]), 0.5)
        return ball.on_sphere(generator(0, "directions", sample, 0))

    starts = [random_start(x, 0.1, generator(0, "starts", sample)) for sample in range(samples)]
    nus = [apart(lambda sample=sample: directions(sample)) for sample in range(samples)]
    perturbations = [dict(zip(perturbed_parameters(model), nu, strict=True)) for nu in nus]

    def ours(precision: str) -> list[float]:
        return average_flatness(
            model, x, y, attack=attack, xi=0.5, samples=samples, batch_size=BATCH, precision=precision,
            reference=0.0, reference_single=0.0,
        ).perturbed.tolist()  # fmt: skip

    def plainly() -> list[float]:
        return plain.average_losses(model, x, y, perturbations, starts, 0.1, 0.02, steps, BATCH)

    def frozenly() -> list[float]:
        return frozen.average_losses(model, x, y, perturbations, starts, 0.1, 0.02, steps, BATCH)

    return Workload("average-case flatness", {"plain": plainly, "frozen": frozenly}, ours)


def worst_workload(model: nn.Module, x: Tensor, y: Tensor, steps: int) -> Workload:
    """Loss after joint ascent in weights and inputs, one start."""
    attack = PGD(0.1, 0.02, steps)

    def directions() -> list[Tensor]:
        ball = Neighborhood(Network(model, x[:2]), 0.003)
        return ball.in_ball(generator(0, "worst directions", 0, 0))

    nu = dict(zip(perturbed_parameters(model), apart(directions), strict=True))
    start = random_start(x, 0.1, generator(0, "worst starts", 0))

    def ours(precision: str) -> list[float]:
        return worst_flatness(
            model, x, y, attack=attack, xi=0.003, steps=steps, restarts=1, batch_size=BATCH,
            precision=precision, reference=0.0,
        ).perturbed.tolist()  # fmt: skip

    def plainly() -> list[float]:
        return [plain.worst_loss(model, x, y, nu, start, 0.003, 0.01, 0.1, 0.02, steps, BATCH)]

    def frozenly() -> list[float]:
        return [frozen.worst_loss(model, x, y, nu, start, 0.003, 0.01, 0.1, 0.02, steps, BATCH)]

    return Workload("worst-case flatness", {"plain": plainly, "frozen": frozenly}, ours)


def workload(name: str, quick: bool) -> Workload:
    """The comparison of that name; `quick` shortens attacks and data."""
    steps = 3 if quick else 20
    if name == "PGD, ResNet-18":
        wide = build_model(ModelSpec(name="resnet18", width=4 if quick else 64), 10, [0.5] * 3, [0.25] * 3)
        wide = trained(wide, 3, 32, 4 if quick else 12, batch=32)
        return pgd_workload(name, wide, *images(64, 3, 32, seed=0), 1 if quick else 10, most=2)
    small = trained(small_net(), 1, 28, 20 if quick else 200)
    x, y = images(200 if quick else 1000, 1, 28, seed=0)
    if name == "PGD, small net":
        return pgd_workload(name, small, x, y, steps)
    if name == "average-case flatness":
        return average_workload(small, x, y, steps, samples=1)
    return worst_workload(small, x, y, steps)


WORKLOADS = ("PGD, ResNet-18", "PGD, small net", "average-case flatness", "worst-case flatness")


def compare(workload: Workload, repetitions: int, threads: int) -> list[str]:
    """Rows of the table for one workload; exits if results differ."""
    others = workload.others | workload.unchecked
    variants = others | {
        "float32": lambda: workload.ours("float32"),
        "bfloat16": lambda: workload.ours("bfloat16"),
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    results: dict[str, list[float]] = {}
    calls = {name: Timed(function, threads) for name, function in variants.items()}
    for _ in range(min(repetitions, workload.most)):
        for name, call in calls.items():
            seconds, results[name] = call()
            times[name].append(seconds)
    for call in calls.values():
        call.end()
    medians = {name: statistics.median(values) for name, values in times.items()}
    means = {name: statistics.fmean(values) for name, values in results.items()}
    for name, limit in {**dict.fromkeys(workload.others, 1e-3), "bfloat16": 1e-2}.items():
        # single precision: iterates whose gradient is zero up to rounding may take the other sign
        if abs(means[name] / means["float32"] - 1) > limit:
            sys.exit(f"{workload.name}: results differ: {means}")
    rows = []
    for other in others:
        for precision in ("float32", "bfloat16") if other == "plain" else ("float32",):
            ratios = [a / b for a, b in zip(times[other], times[precision], strict=True)]
            target = TARGETS.get((workload.name, precision), 1.0) if other == "plain" else 1.0
            rows.append(
                f"{workload.name:<24}{threads:>7} {other:<14}{precision:<10}"
                f"{medians[other]:>9.3f}{medians[precision]:>9.3f}{statistics.median(ratios):>8.2f}"
                f"{target:>8.1f}{means[other]:>11.5f}{means[precision]:>11.5f}"
            )
    return rows


def bound(workload: Workload) -> str:
    """What our call in single precision spends in convolutions, and the ratio to the plain way if all else
    took no time: torch's convolutions are the same for everybody."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        workload.ours("float32")
    spent = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    convolutions = sum(time for name, time in spent.items() if "convolution" in name)
    share = convolutions / sum(spent.values())
    calls = Timed(workload.others["plain"], 1), Timed(lambda: workload.ours("float32"), 1)
    plain, ours = (call()[0] for call in calls)
    for call in calls:
        call.end()
    return (
        f"{workload.name}: {100 * share:.0f} % of our time in torch's convolutions; without all else the "
        f"ratio to plain would be {plain / (share * ours):.1f}"
    )


def processor() -> str:
    """The processor and its instructions for bfloat16."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "unknown processor"
    fields = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())
    }
    flags = fields.get("flags", "").split()
    offered = ", ".join(f"{name}: {'yes' if name in flags else 'no'}" for name in ("avx512_bf16", "amx_bf16"))
    return f"{fields.get('model name', 'unknown processor')}; {offered}"


def main() -> None:
    """Run all comparisons and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=3, help="repetitions of each (default 3)")
    parser.add_argument("--quick", action="store_true", help="short attacks on little data, for tests")
    parser.add_argument("--only", choices=WORKLOADS, help="one comparison, without the table's head")
    every = sorted({1, os.cpu_count() or 1})
    parser.add_argument("--threads", type=int, nargs="+", default=every, help="(default: one, and all)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.only is None:
        print(processor())
        print(
            f"torch {torch.__version__}, {options.repetitions} interleaved repetitions, medians of CPU time\n"
        )
        columns = f"{'other s':>9}{'ours s':>9}{'ratio':>8}{'target':>8}{'other loss':>11}{'ours':>11}"
        print(f"{'':<24}threads {'other':<14}{'ours in':<10}{columns}", flush=True)
        for name, threads in itertools.product(WORKLOADS, options.threads):
            one = ["--only", name, "--threads", str(threads)]
            subprocess.run([sys.executable, *sys.argv, *one], check=True)
        return
    chosen = workload(options.only, options.quick)
    for row in compare(chosen, options.repetitions, options.threads[0]):
        print(row, flush=True)
    if options.only.startswith("worst") and options.threads == [1]:
        print(bound(chosen))


if __name__ == "__main__":
    main()
