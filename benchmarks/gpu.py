"""Check and time the kit on a GPU, in one call that tells as much as it can.

    python benchmarks/gpu.py [--parts variants measures ...] [--seconds 120] [--output report.json]

Needs neither Snakemake nor data: images are random patterns. Each part has a time limit and fails alone.
Checks: every family of variants trains two updates; a resumed training ends in the same bits; attacks,
flatness, Hessian and AutoAttack agree with the processor's. Timings: an epoch of adversarial training,
RLoss, flatness and AutoAttack at paper scale, against loops written down the usual way.
With `--quick` (and `--device cpu`) the parts are run at tiny sizes, to test this file.
"""

import argparse
import contextlib
import copy
import json
import math
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]
import plain  # noqa: E402

from robust_flatness.architectures import build_model  # noqa: E402
from robust_flatness.attacks import PGD, random_start  # noqa: E402
from robust_flatness.config import AutoAttackSpec, ModelSpec, TrainingSpec, TrainJob  # noqa: E402
from robust_flatness.config.variants import load_variants  # noqa: E402
from robust_flatness.data import Dataset  # noqa: E402
from robust_flatness.evaluation import evaluate_robustness  # noqa: E402
from robust_flatness.flatness import Neighborhood, average_flatness, hessian_eigenvalues, worst_flatness  # noqa: E402
from robust_flatness.network import Network  # noqa: E402
from robust_flatness.runtime.devices import auto_precision, start  # noqa: E402
from robust_flatness.runtime.graphs import Graphs  # noqa: E402
from robust_flatness.seeding import generator  # noqa: E402
from robust_flatness.training.loop import Training  # noqa: E402

EPSILON, STEP = 8 / 255, 0.007
Report = dict[str, object]


class Sizes:
    """Paper scale, or `quick`."""

    def __init__(self, quick: bool):
        self.width, self.images, self.batch, self.updates = (
            (4, 64, 16, 2) if quick else (64, 50_000, 128, 391)
        )
        self.evaluated, self.steps, self.samples = (32, 2, 1) if quick else (1000, 20, 2)


def dataset(images: int, size: int = 32, held_out: int = 1000, seed: int = 0) -> Dataset:
    """Ten classes of smooth random patterns with noise, uint8, in the form of a prepared file."""
    g = generator(seed, "images")
    patterns = F.interpolate(torch.rand(10, 3, 5, 5, generator=g), size=size, mode="bicubic")
    arrays: dict[str, np.ndarray] = {"classes": np.int64(10)}
    for split, count in (
        ("train", images),
        ("unlabeled", held_out),
        ("early_stopping", held_out),
        ("test", held_out),
    ):
        y = torch.randint(10, (count,), generator=g)
        x = (patterns[y] + 0.15 * torch.randn(count, 3, size, size, generator=g)).clamp(0, 1)
        arrays[f"x_{split}"] = (255 * x).round().byte().numpy()
        arrays[f"y_{split}"] = y.numpy()
    pixels = arrays["x_train"][:1000] / 255
    return Dataset({**arrays, "mean": pixels.mean((0, 2, 3)), "std": pixels.std((0, 2, 3))})


def job(
    variant: str = "at", width: int = 64, name: str = "resnet18", model: dict | None = None, **changes
) -> TrainJob:
    """The paper's baseline, with changes."""
    values = {
        "epochs": 150, "batch_size": 128, "learning_rate": 0.05, "weight_decay": 0.0005,
        "epsilon": EPSILON, "step_size": STEP, "steps": 7, "augmentation": {"crop": 4, "flip": True},
        "evaluation_epsilon": EPSILON, "evaluation_step_size": STEP, "evaluation_steps": 7,
        "precision": "auto", **changes,
    }  # fmt: skip
    spec = ModelSpec(name=name, width=width, **(model or {}))
    return TrainJob(variant=variant, seed=0, model=spec, training=TrainingSpec(**values))


def synchronised() -> float:
    """The time, once the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(function: Callable[[], object]) -> tuple[float, object]:
    """Seconds that a call takes, and its result."""
    begin = synchronised()
    result = function()
    return synchronised() - begin, result


def part_machine(device: str, sizes: Sizes) -> Report:
    """What there is, and its two ceilings: memory and bfloat16 matrix products."""
    report: Report = {"torch": torch.__version__, "precision auto": auto_precision(device)}
    if device.startswith("cuda"):
        report["GPU"] = torch.cuda.get_device_name(device)
        x = torch.randn(1 << 29, device=device)
        y = torch.empty_like(x)
        y.copy_(x)
        seconds, _ = timed(lambda: [y.copy_(x) for _ in range(10)])
        report["copy TB/s"] = 10 * 2 * x.numel() * 4 / seconds / 1e12
        a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
        a @ b
        seconds, _ = timed(lambda: [a @ b for _ in range(10)])
        report["bf16 TFLOP/s"] = 10 * 2 * 8192**3 / seconds / 1e12
    return report


def part_variants(device: str, sizes: Sizes) -> Report:
    """Two updates of one variant of every family, in bfloat16 where that is fast and in float32."""
    data = dataset(32, size=16, held_out=32)
    seen, failed, seconds = set(), {}, {}
    for slug, variant in load_variants(HERE.parent / "config/variants.yaml").items():
        if variant.derived_from is not None or variant.family in seen:
            continue
        seen.add(variant.family)
        changes = {"epochs": 1, "batch_size": 16, **variant.set}
        for precision in ("auto", "float32"):
            try:
                begin = synchronised()
                chosen = job(slug, 8, model=variant.model, **changes | {"precision": precision})
                run = Training(chosen, data, device, torch.zeros(32, dtype=torch.int64))
                row = run.epoch(0)
                with tempfile.TemporaryDirectory() as folder:
                    row |= run.snapshot(0, Path(folder, "snapshot.safetensors"))
                if not (run.finite() and math.isfinite(row["test_rloss"])):
                    failed[f"{slug}, {precision}"] = "not finite"
                seconds[f"{slug}, {precision}"] = synchronised() - begin
            except Exception as error:  # the others go on
                failed[f"{slug}, {precision}"] = f"{type(error).__name__}: {error}"[:300]
    return {"families": len(seen), "failed": failed, "slowest": max(seconds, key=seconds.get, default="")}


def part_resume(device: str, sizes: Sizes) -> Report:
    """A training that is restored from its state after an epoch goes on to the same bits, and replayed
    passes are those computed one by one."""
    data = dataset(96, size=16, held_out=32)
    report: Report = {}
    for slug, changes in {
        "at": {},
        "dropout": {"model": {"dropout": 0.1}},
        "trades": {"objective": "trades", "objective_weight": 6},
        "autoaugment": {"augmentation": {"crop": 4, "flip": True, "autoaugment": True, "cutout": 16}},
    }.items():
        chosen = job(slug, 16, epochs=4, batch_size=32, **changes)
        first = Training(chosen, data, device)
        first.epoch(0)
        second = Training(chosen, data, device)
        second.restore(copy.deepcopy(first.state()))
        one_by_one = Training(chosen, data, device)
        one_by_one.graphs.most = 0
        one_by_one.network.graphs = None
        one_by_one.epoch(0)
        rows = [run.epoch(1) for run in (first, second, one_by_one)]
        states = [run.network.state_dict().values() for run in (first, second)]
        pairs = zip(*states, strict=True)
        report[slug] = {
            "same bits": all(torch.equal(a, b) for a, b in pairs),
            "loss": [row["train_loss"] for row in rows],
        }
    return report


def part_agreement(device: str, sizes: Sizes) -> Report:
    """Measures of a small trained network in float32 on the processor and on the device: same starts and
    directions, so equal but for rounding (a signed step turns a rounding at 0 into a whole one)."""
    data = dataset(256, size=8, held_out=64)
    trained = Training(job(width=8, name="small-resnet", epochs=4, batch_size=32, precision="float32"), data)
    for epoch in range(4):
        trained.epoch(epoch)
    attack = PGD(EPSILON, STEP, 10, 2)
    reduced = AutoAttackSpec(
        version="reduced", attacks=["apgd-ce", "apgd-t"], iterations=10, target_classes=3
    )
    found: dict[str, list[float]] = {}
    for place in ("cpu", device):
        model = trained.model.to(place).eval()
        x, y = data.images("test", device=place), data.labels("test", device=place)
        held_out = data.images("early_stopping", device=place), data.labels("early_stopping", device=place)
        robust = evaluate_robustness(model, x, y, attack=attack, autoattack=reduced, batch_size=32)
        average = average_flatness(model, x, y, attack=attack, xi=0.5, samples=4, batch_size=32)
        worst = worst_flatness(model, x, y, attack=attack, xi=0.003, restarts=2, batch_size=32)
        hessian = hessian_eigenvalues(model, *held_out, k=2, tolerance=0.01, batch_size=32)
        for name, value in {
            "CE": robust.ce, "RLoss": robust.rloss_pgd, "RErr": robust.rerr_pgd, "RErr AA": robust.rerr_aa,
            "average": average.value, "worst": worst.value, "lambda_max": hessian.largest,
        }.items():  # fmt: skip
            found.setdefault(name, []).append(value)
    differ = {name: a - b for name, (a, b) in found.items() if abs(a - b) > 0.02 * max(1, abs(a))}
    return {"processor, device": found, "differ": differ}


def plain_update(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, low: bool) -> None:
    """One update of adversarial training as it is usually written."""
    device = x.device.type
    model.eval()
    delta = torch.empty_like(x).uniform_(-EPSILON, EPSILON)
    delta = (x + delta).clamp(0, 1) - x
    best, best_loss = delta, torch.full((len(x),), -1.0, device=x.device)
    for step in range(8):
        delta = delta.detach().requires_grad_(True)
        with torch.autocast(device, torch.bfloat16, enabled=low):
            losses = F.cross_entropy(model(x + delta), y, reduction="none")
        better = losses.detach() > best_loss
        best_loss = torch.where(better, losses.detach(), best_loss)
        best = torch.where(better[:, None, None, None], delta.detach(), best)
        if step < 7:
            model.zero_grad()
            losses.sum().backward()
            delta = (delta.detach() + STEP * delta.grad.sign()).clamp(-EPSILON, EPSILON)
            delta = (x + delta).clamp(0, 1) - x
    model.train()
    optimizer.zero_grad()
    with torch.autocast(device, torch.bfloat16, enabled=low):
        loss = F.cross_entropy(model(x + best), y)
    loss.backward()
    optimizer.step()


def part_epoch(device: str, sizes: Sizes) -> Report:
    """Seconds of an epoch of adversarial training (PGD-7) on images of 32x32, ours and the plain loop, which
    is given bfloat16 and its batches ready on the device."""
    data = dataset(sizes.images, held_out=max(64, sizes.batch))
    report: Report = {"width": sizes.width, "batch": sizes.batch, "images": sizes.images}
    run = Training(job(width=sizes.width, batch_size=sizes.batch), data, device)
    report["precision"] = run.spec.precision
    batches = run.plan.updates
    report["first epoch s"], _ = timed(lambda: run.epoch(0))
    report["epoch s"], row = timed(lambda: run.epoch(1))
    report["train loss"] = row["train_loss"]
    model = build_model(run.job.model, 10, data.mean, data.std, generator(0, "plain")).to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=0.0005, nesterov=True)
    x, y = data.images("train", sizes.batch, device), data.labels("train", sizes.batch, device)
    low, count = run.spec.precision == "bfloat16", min(batches, 30)
    for _ in range(3):
        plain_update(model, optimizer, x, y, low)
    seconds, _ = timed(lambda: [plain_update(model, optimizer, x, y, low) for _ in range(count)])
    report["plain epoch s"] = seconds / count * batches
    report["plain / ours"] = report["plain epoch s"] / report["epoch s"]
    if device.startswith("cuda"):
        report["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
    return report


def measured(device: str, sizes: Sizes) -> tuple[nn.Module, Network, Tensor, Tensor]:
    """A network with its initial weights, as it is and for attacks, and images to measure it on."""
    data = dataset(max(sizes.batch, 64), held_out=sizes.evaluated)
    stream = generator(0, "measured")
    model = build_model(ModelSpec(name="resnet18", width=sizes.width), 10, data.mean, data.std, stream)
    x, y = data.images("test", device=device), data.labels("test", device=device)
    model = model.to(device).eval()
    net = Network(model, x[:2])
    net.graphs = Graphs()
    return model, net, x, y


def part_rloss(device: str, sizes: Sizes) -> Report:
    """PGD with one start on 1,000 images, in passes of 128 and of 500."""
    model, net, x, y = measured(device, sizes)
    starts = random_start(x, EPSILON, torch.Generator().manual_seed(0))
    report: Report = {"images": len(x), "steps": sizes.steps}
    for precision in ("float32", auto_precision(device)):
        attack = PGD(EPSILON, STEP, sizes.steps, precision=precision)
        for batch in (128, 500):
            attack(net, x, y, batch)
            seconds, found = timed(lambda attack=attack, batch=batch: attack(net, x, y, batch))
            report[f"{precision}, batch {batch}, s"] = seconds
        report[f"{precision}, RLoss"] = found.loss.mean().item()
    part = slice(0, 128)
    plain.pgd_losses(model, x[part], y[part], [starts[part]], EPSILON, STEP, 1)
    seconds, losses = timed(
        lambda: plain.pgd_losses(model, x[part], y[part], [starts[part]], EPSILON, STEP, sizes.steps)
    )
    report["plain s"] = seconds * len(x) / len(losses)
    return report


def part_flatness(device: str, sizes: Sizes) -> Report:
    """Average-case flatness, two samples, and worst-case flatness, one restart, on 1,000 images."""
    model, net, x, y = measured(device, sizes)
    report: Report = {"images": len(x)}
    known = {"reference": 0.0, "batch_size": 128}
    attack = PGD(EPSILON, STEP, sizes.steps)
    for precision in ("float32", auto_precision(device)):

        def average(samples: int, precision: str = precision) -> float:
            return average_flatness(
                net, x, y, attack=attack, xi=0.5, samples=samples, precision=precision,
                reference_single=0.0, **known,
            ).value  # fmt: skip

        def worst(steps: int, precision: str = precision) -> float:
            return worst_flatness(
                net, x, y, attack=attack, xi=0.003, steps=steps, restarts=1, precision=precision, **known
            ).value

        average(1), worst(1)
        report[f"{precision}, average, s a sample"] = (
            timed(lambda f=average: f(sizes.samples))[0] / sizes.samples
        )
        report[f"{precision}, worst, s a restart"], _ = timed(lambda f=worst: f(sizes.steps))
    ball = Neighborhood(net, 0.003)
    nu = dict(zip(ball.names, ball.in_ball(generator(0, "nu")), strict=True))
    begin = random_start(x, EPSILON, torch.Generator().manual_seed(0))
    part, few = slice(0, 256), 2
    seconds, _ = timed(
        lambda: plain.worst_loss(
            model, x[part], y[part], nu, begin[part], 0.003, 0.01, EPSILON, STEP, few, 128
        )
    )
    report["plain, worst, s a restart"] = seconds * len(x) / len(x[part]) * sizes.steps / few
    seconds, _ = timed(
        lambda: plain.average_losses(model, x[part], y[part], [nu], [begin[part]], EPSILON, STEP, few, 128)
    )
    report["plain, average, s a sample"] = seconds * len(x) / len(x[part]) * (sizes.steps + 1) / (few + 1)
    return report


def part_autoattack(device: str, sizes: Sizes) -> Report:
    """APGD-CE and APGD-T with 20 iterations on 256 images, against pyautoattack as it comes."""
    from pyautoattack import AutoAttack

    model, net, x, y = measured(device, sizes)
    x, y = x[:256], y[:256]
    attacks, targets = ["apgd-ce", "apgd-t"], 3
    spec = AutoAttackSpec(version="reduced", attacks=attacks, iterations=sizes.steps, target_classes=targets)
    attack = PGD(EPSILON, STEP, 1)
    seconds, result = timed(
        lambda: evaluate_robustness(net, x, y, attack=attack, autoattack=spec, batch_size=128)
    )
    usual = AutoAttack(model, attacks=attacks, device=device, eps=EPSILON, seed=0, version="custom")
    usual.verbose = False
    usual.apgd.n_iter = usual.apgd_targeted.n_iter = sizes.steps
    usual.apgd.n_restarts, usual.apgd_targeted.n_target_classes = 1, targets
    plain_seconds, _ = timed(lambda: usual.run_standard_evaluation(x, y, batch_size=128))
    return {"images": len(x), "ours s": seconds, "plain s": plain_seconds, "RErr": result.rerr_aa}


PARTS: dict[str, Callable[[str, Sizes], Report]] = {
    name.removeprefix("part_"): function
    for name, function in list(globals().items())
    if name.startswith("part_")
}


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Raise `TimeoutError` after this time."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def shown(value: object) -> str:
    """A value as it is printed."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Run the parts and print what each found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=int, default=120, help="time limit of each part (default 120)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=Path, help="JSON file, written after each part")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    device, sizes = start(options.device, 1), Sizes(options.quick)
    reports: dict[str, Report] = {}
    for name in options.parts:
        begin = time.perf_counter()
        try:
            with limit(options.seconds):
                reports[name] = PARTS[name](device, sizes)
        except Exception as error:  # the other parts go on
            reports[name] = {
                "FAILED": f"{type(error).__name__}: {error}",
                "where": traceback.format_exc()[-1500:],
            }
        reports[name]["seconds"] = time.perf_counter() - begin
        print(
            f"{name}: " + "; ".join(f"{key}: {shown(value)}" for key, value in reports[name].items()),
            flush=True,
        )
        if options.output:
            options.output.write_text(json.dumps(reports, indent=1, default=str))


if __name__ == "__main__":
    main()
