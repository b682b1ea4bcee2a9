"""Estimated cost of jobs and experiments: passes (forward and backward through the network for one image),
hours, disk and memory.

Times follow from the multiply-adds of a forward pass and from throughputs measured beforehand.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from robust_flatness.config import ModelSpec
from robust_flatness.config.catalogue import COSTS
from robust_flatness.config.training import TrainJob
from robust_flatness.experiment import Experiment
from robust_flatness.measures.registry import MEASURES

#: Assumed architecture of external networks.
EXTERNAL = ModelSpec(name="wide-resnet-34", width=160)
#: Throughput in forward multiply-adds per second: training on one core without AVX-512; PGD-20 on 1,000
#: images through ResNet-18 on an H100 (benchmarks/gpu.py); bfloat16 training with CUDA graphs there.
RATES = {"core": 8.3e9, "float32": 3.6e12, "bfloat16": 22e12, "training": 34e12}
#: Overhead of a pass on a core, in seconds, and of a job (imports, reading data), in minutes.
PASS_OVERHEAD, OVERHEAD_MINUTES = 3e-5, 10
#: Ratio of time limits to estimates, which allows for slower machines and evaluations during training.
SLACK = 4

#: Overhead of a job in seconds: start of Python and torch, reading data.
START = 6.0
#: Bytes of a weight in float32, and copies of the weights in a training (weights, momentum, average).
FLOAT, KEPT = 4, 3
#: Memory in GB: of a job's process, and on a GPU for batches of 128 through ResNet-18 (measured, with its
#: 11 million weights); both grow with the data or the network.
PROCESS, ON_GPU = 1.0, 1.6
RESNET18 = 11.2e6
NOTE = (
    "From rates measured on an H100, and on one core without AVX-512; other machines take more or less. "
    "AutoAttack counts as if it found nothing."
)


def _cost(model: ModelSpec | None) -> tuple[float, float, int]:
    """Return multiply-adds and number of weights of `model` (None: `EXTERNAL`), scaled from `COSTS` to its
    width, and the image side to which the multiply-adds refer."""
    model = model or EXTERNAL
    stated = COSTS[model.name]
    scale = (model.width / stated["width"]) ** 2
    return stated["multiply_adds"] * scale, stated["parameters"] * scale, stated["side"]


def seconds(
    passes: float, model: ModelSpec | None, side: int, device: str, precision: str = "float32",
    training: bool = False,
) -> float:  # fmt: skip
    """Return the seconds of `passes` through `model` of images of `side` pixels, on a core or a GPU."""
    work, _, stated_side = _cost(model)
    work *= (side / stated_side) ** 2
    if not device.startswith("cuda"):
        return passes * (PASS_OVERHEAD + work / RATES["core"])
    kind = "float32" if precision == "float32" else "training" if training else "bfloat16"
    return passes * work / RATES[kind]


def minutes(passes: float, model: ModelSpec | None, side: int, device: str) -> int:
    """Return the time limit in minutes for `passes` through `model`, in float32."""
    return OVERHEAD_MINUTES + math.ceil(SLACK * seconds(passes, model, side, device) / 60)


def training_passes(job: TrainJob, images: int) -> int:
    """Return the passes of a training: attack, perturbation of the weights and update in every epoch. An
    update of Entropy-SGD takes a batch for each inner step and one more."""
    given = job.training
    batches = given.langevin_steps + 1 if given.optimizer == "entropy-sgd" else 1
    perturbed = bool(given.sam_rho or given.weight_perturbation)
    each = given.adversarial_fraction * given.steps + 1 + perturbed
    return int(given.epochs * batches * images * each)


def measuring_passes(experiment: Experiment, slug: str) -> dict[str, int]:
    """Return the passes of each measure of a variant."""
    measures, held_out = experiment.measures_of(slug), experiment.spec.data.count("early_stopping")
    job = None if slug in experiment.networks else experiment.job_behind(slug)
    snapshots = len(job.training.snapshot_epochs()) if job else 0
    return {name: MEASURES[name].passes(given, held_out, snapshots) for name, given in measures.items()}


@dataclass
class Plan:
    """Estimated cost of an experiment: seconds of each job by step (`steps`), and of each training plus its
    measuring job (`chains`); GB of disk, of memory per job, and of GPU memory (`on_gpu`)."""

    device: str
    steps: dict[str, list[float]]
    chains: list[float]
    disk: float
    memory: float
    on_gpu: float

    def wall_hours(self, workers: int) -> float:
        """Return a lower bound of the wall time with `workers` jobs at a time."""
        total = sum(map(sum, self.steps.values()))
        return max(total / workers, max(self.chains, default=0)) / 3600

    def text(self, workers: Iterable[int]) -> str:
        """Return the plan as a table, with notes and the hours for each number of workers."""
        unit = "GPU" if self.device == "cuda" else "core"
        lines = [f"{'step':<14}{'jobs':>6}{f'{unit}-hours':>12}{'longest (h)':>13}"]
        total = [job for jobs in self.steps.values() for job in jobs]
        for step, jobs in {**self.steps, "total": total}.items():
            hours, longest = sum(jobs) / 3600, max(jobs, default=0) / 3600
            lines.append(f"{step:<14}{len(jobs):>6}{hours:>12.2f}{longest:>13.2f}")
        walls = [f"{self.wall_hours(n):.1f} h on {n} {unit}{'s' if n > 1 else ''}" for n in workers]
        on_gpu = f", and {self.on_gpu:.1f} GB of its GPU" if self.device == "cuda" else ""
        memory = f"disk {self.disk:.1f} GB; memory {self.memory:.1f} GB a job{on_gpu}"
        return "\n".join([*lines, f"wall time at least {'; '.join(walls)}", memory, NOTE])


def plan(experiment: Experiment, device: str | None = None) -> Plan:
    """Return the cost of training and measuring `experiment` on `device` (`cpu` or `cuda`; None: the
    experiment's own, `auto` counting as a GPU)."""
    spec, data = experiment.spec, experiment.spec.data
    kind = "cuda" if (device or spec.compute.device).startswith(("cuda", "auto")) else "cpu"
    channels, side = data.shape
    count = {split: data.count(split) for split in ("train", "unlabeled", "early_stopping", "test")}

    cost = partial(seconds, side=side, device=kind)
    steps: dict[str, list[float]] = {"pseudo_label": [], "train": [], "measure": []}
    chains, files = [], 0
    for slug, variant in experiment.variants.items():
        model, training, snapshots, seeds = None, 0.0, 0, experiment.seeds_of(slug)
        measures = experiment.measures_of(slug)
        if slug not in experiment.networks:
            job = experiment.job_behind(slug)
            model, given = job.model, job.training
            snapshots = len(given.snapshot_epochs())
            # PGD for the training curves and early stopping, at every snapshot
            evaluated = min(given.history_examples, count["test"])
            evaluated += count["early_stopping"] * given.early_stopping_restarts
            passes = training_passes(job, count["train"])
            training = START + cost(passes, model, precision=given.precision, training=True)
            training += cost(snapshots * given.evaluation_steps * evaluated, model, precision=given.precision)
            series = any(MEASURES[name].of_snapshots for name in measures)
            files += len(seeds) * (snapshots + 2 if series else 4 if variant.trained else 2)
        measured = START
        for name, passes in measuring_passes(experiment, slug).items():
            measured += cost(passes, model, precision=getattr(measures[name], "precision", "float32"))
        steps["measure"] += [measured] * len(seeds)
        if variant.trained:
            steps["train"] += [training] * len(seeds)
            measured += training
        chains += [measured] * len(seeds)
    jobs = experiment.train_jobs.values()
    if any(job.training.unlabeled_fraction for job in jobs):
        passes = experiment.baseline.training.epochs * count["train"]
        steps["pseudo_label"] = [START + cost(passes, spec.model, training=True)] * len(spec.seeds)
    steps = {step: times for step, times in steps.items() if times}
    (_, weights, _), (_, external, _) = _cost(spec.model), _cost(None)
    image = channels * side**2
    seeds = {seed for slug in experiment.variants for seed in experiment.seeds_of(slug)}
    disk = len(seeds) * sum(count.values()) * image
    disk += FLOAT * (files * weights + len(experiment.networks) * external)
    images = (count["train"] + count["test"]) * image / 1e9
    batch = max((job.training.batch_size for job in jobs), default=128) / 128
    on_gpu = ON_GPU * max(1, batch) * (side / 32) ** 2 * math.sqrt(weights / RESNET18) + images
    memory = PROCESS + images + KEPT * FLOAT * weights / 1e9
    return Plan(kind, steps, chains, disk / 1e9, memory, on_gpu)
