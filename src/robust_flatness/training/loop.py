"""Adversarial training: epochs, snapshots, and the state from which it resumes."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from robust_flatness.architectures import build_model
from robust_flatness.attacks.pgd import PGD
from robust_flatness.checkpoints import Metadata, save_checkpoint
from robust_flatness.config import TrainJob
from robust_flatness.config.kinds import source_digest
from robust_flatness.data import Dataset
from robust_flatness.data.augmentation import augment
from robust_flatness.network import Network
from robust_flatness.runtime.devices import with_precision_on
from robust_flatness.runtime.graphs import Graphs
from robust_flatness.runtime.provenance import package_digest
from robust_flatness.seeding import derive_seed, generator
from robust_flatness.training.attack import TrainingAttack
from robust_flatness.training.batches import BatchPlan, noisy_labels, training_images
from robust_flatness.training.objectives import Batch, make_objective
from robust_flatness.training.optimizers import Schedule, averaged_weights, clip, make_optimizer
from robust_flatness.training.weight_perturbation import awp, perturbed, perturbed_weights, sam
from robust_flatness.version import __version__

#: Examples per pass when snapshots are evaluated.
BATCH = 256


class Training:
    """A training in progress: network, optimiser, and the computations of an epoch. Every random choice draws
    from a generator seeded with the job's seed, the purpose and the epoch, so that all variants share initial
    weights and order of examples, and generators have no state to keep."""

    def __init__(self, job: TrainJob, dataset: Dataset, device: str = "cpu", pseudo_labels=None):
        spec = with_precision_on(device, job.training)
        job = job.model_copy(update={"training": spec})
        self.job, self.spec, self.dataset, self.device = job, spec, dataset, torch.device(device)
        self.classes, self.mean, self.std = dataset.classes, dataset.mean, dataset.std
        # images stay uint8 on the device, and are converted to [0, 1] batch by batch
        self.pixels, self.labels = training_images(dataset, spec, device, pseudo_labels)
        # random numbers are drawn on the device if it is a GPU, else on the CPU
        self.drawn_on = device if self.device.type == "cuda" else "cpu"
        count = dataset.size("train")
        pool = (len(self.labels) - count, spec.unlabeled_fraction)
        self.plan = BatchPlan(count, spec.batch_size, job.seed, *pool, self.drawn_on)
        self.schedule = Schedule(spec, self.plan.updates)

        stream = generator(job.seed, "initialisation")
        self.model = build_model(job.model, self.classes, self.mean, self.std, stream).to(self.device)
        self.objective = make_objective(spec)
        self.network = self.objective.network(self.model, generator(job.seed, "second head"))
        self.network = self.network.to(self.device, memory_format=torch.channels_last).train()
        self.parameters = list(self.network.parameters())
        if spec.weight_clipping is not None:
            clip(self.parameters, spec.weight_clipping)
        self.optimizer = make_optimizer(spec, self.parameters)
        self.stateful = {"network": self.network, "optimizer": self.optimizer}
        self.average = None
        if spec.weight_averaging is not None:
            self.average = averaged_weights(self.model, spec.weight_averaging)
            self.stateful["average"] = self.average
        self.attack = TrainingAttack(spec, self.objective)
        example = dataset.images("train", min(2, count), device)
        self.inference = Network(self.network, example)
        self.evaluator = Network(self.model, example)
        self.graphs, self.inference.graphs, self.evaluator.graphs = (Graphs() for _ in range(3))
        self.perturbed: dict[str, nn.Parameter] = {}
        if spec.weight_perturbation or spec.sam_rho:
            self.perturbed = perturbed_weights(self.network, biases=spec.sam_rho > 0)

    def epoch(self, epoch: int) -> dict[str, Any]:
        """Train for one epoch; return its row of the history, without the columns of snapshots."""
        names = ("augmentation", "attack", "label noise", "objective", "langevin")
        self.streams = {name: generator(self.job.seed, name, epoch, device=self.drawn_on) for name in names}
        if hasattr(self.optimizer, "noise_generator"):
            self.optimizer.noise_generator = self.streams["langevin"]
        # sums over the epoch, on the device: loss of updates; counted examples, their loss and errors
        wide = torch.float32 if self.device.type == "mps" else torch.float64
        self.sums = torch.zeros(4, dtype=wide, device=self.device)
        batches = self._batches(epoch)
        updates = self.plan.updates
        first = epoch * updates
        with self._dropout("dropout", epoch):
            for update in range(first, first + updates):
                self.schedule.apply(self.optimizer, update)
                loss = self.optimizer.step(lambda: self._gradient(next(batches)))
                self.sums[0] += loss
                if self.spec.weight_clipping is not None:
                    clip(self.parameters, self.spec.weight_clipping)
                if self.average is not None:
                    self.average.update_parameters(self.model)
        loss, examples, rloss, errors = self.sums.tolist()
        epochs, n = self.spec.epochs, examples or math.nan
        row = {"variant": self.job.variant, "seed": self.job.seed, "epoch": epoch, "epochs": epochs}
        row |= {"normalised_epoch": (epoch + 1) / epochs, "learning_rate": self.schedule.learning_rate(first)}
        return row | {"train_loss": loss / updates, "train_rloss": rloss / n, "train_rerr": 100 * errors / n}

    @contextlib.contextmanager
    def _dropout(self, *names: str | int) -> Iterator[None]:
        """Seed torch's global generator, which dropout draws from; restore it afterwards."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.job.seed, *names))
            yield

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """Yield augmented batches without end."""
        spec, streams = self.spec, self.streams
        for indices in self.plan.epoch(epoch):
            x, y = self.examples(indices)
            target = y
            if spec.label_noise:
                target = noisy_labels(y, spec.label_noise, self.classes, streams["label noise"])
            counted = (indices < self.plan.examples).to(self.device)
            batch = Batch(x, y, target, counted, spec.label_smoothing)
            batch = self.objective.prepare(batch, streams["objective"])
            yield replace(batch, x=augment(batch.x, spec.augmentation, streams["augmentation"], self.mean))

    def examples(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images in [0, 1] and labels of training examples."""
        indices = indices.to(self.device)
        return self.pixels[indices].float().div_(255), self.labels[indices]

    def _gradient(self, batch: Batch) -> Tensor:
        """Set the gradients of the weights for one batch; return its loss, detached."""
        view = self.inference.at(self.network)
        x_adv, attacked = self.attack(view, self._predict, batch, self.streams["attack"])
        batch = replace(batch, x_adv=x_adv)
        self.optimizer.zero_grad(set_to_none=True)
        if self.perturbed:
            loss, logits = self._perturbed_gradient(batch, view)
        else:
            loss, logits = self._plain_gradient(batch)
        with torch.no_grad():
            counted = batch.counted & attacked if self.spec.adversarial_fraction < 1 else batch.counted
            # labels of rotated examples are out of range; those examples are not counted
            labels = batch.y.clamp(max=self.classes - 1)
            losses = F.cross_entropy(logits, labels, reduction="none")
            errors = (logits.argmax(1) != labels).to(losses.dtype)
            self.sums[1:] += (torch.stack([torch.ones_like(losses), losses, errors]) * counted).sum(1)
        return loss.detach()

    def _plain_gradient(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Set the gradient; return loss and logits. On a GPU, both passes are replayed as a CUDA graph."""

        def compute(x: Tensor, y: Tensor, target: Tensor, x_adv: Tensor) -> list[Tensor]:
            for parameter in self.parameters:
                parameter.grad = None
            seen = replace(batch, x=x, y=y, target=target, x_adv=x_adv)
            loss, logits = self.objective(self._forward, seen)
            loss.backward()
            return [loss.detach(), logits.detach(), *(p.grad for p in self.parameters)]

        inputs = (batch.x, batch.y, batch.target, batch.x_adv)
        loss, logits, *gradients = self.graphs("update", compute, inputs, list(self.network.buffers()))
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return loss.clone(), logits

    def _perturbed_gradient(self, batch: Batch, view: Network) -> tuple[Tensor, Tensor]:
        """Set the gradient of AT-AWP or SAM, taken at w + nu in training mode; a forward pass at w before it
        updates batch norm's running statistics. That of AT-AWP is clamped elementwise, as in its code."""
        spec, weights = self.spec, list(self.perturbed.values())
        if spec.sam_rho:
            loss, _ = self.objective(self._forward, batch)
            nu = sam(torch.autograd.grad(loss, weights), spec.sam_rho)
        else:
            nu = awp(self._gradient_in_evaluation(batch, view), weights, spec.weight_perturbation)
            with torch.no_grad():  # after `view` was used, which reads the statistics that this updates
                self.objective(self._forward, batch)
        with perturbed(self.network, nu, weights):
            loss, logits = self.objective(self._forward, batch)
            loss.backward()
        if spec.weight_perturbation and spec.gradient_clamp is not None:
            clip([p.grad for p in self.parameters if p.grad is not None], spec.gradient_clamp)
        return loss, logits

    def _gradient_in_evaluation(self, batch: Batch, view: Network) -> tuple[Tensor, ...]:
        """Return the perturbed weights' gradients in evaluation mode, without label noise and smoothing."""
        seen = replace(batch, target=batch.y, smoothing=0.0)
        leaves = {name: w.requires_grad_(True) for name, w in view.weights(self.perturbed).items()}
        at_leaves = view.at(leaves)
        loss, _ = self.objective(lambda x: at_leaves.logits(x, self.spec.precision), seen)
        return torch.autograd.grad(loss, list(leaves.values()))

    def _forward(self, x: Tensor) -> Tensor:
        """Return the logits in training mode."""
        low = self.spec.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            logits = self.network(x.contiguous(memory_format=torch.channels_last))
        return logits.to(x.dtype)

    @torch.no_grad()
    def _predict(self, x: Tensor) -> Tensor:
        return self._forward(x)[:, : self.classes]

    def snapshot(self, epoch: int, path: Path) -> dict[str, float]:
        """Save the weights (the averaged ones, if there are) and evaluate them."""
        model = self.model
        if self.average is not None:
            model = self.average.module
            with self._dropout("statistics dropout", epoch):
                update_bn(self._clean_batches(epoch), model)
        job, spec = self.job, self.spec
        metadata = Metadata(
            job.model.model_dump(), self.classes, self.mean, self.std, job.variant, job.seed, epoch,
            weight_bound=spec.weight_clipping, precision=spec.precision, norm=spec.norm,
        )  # fmt: skip
        save_checkpoint(path, model, metadata)
        return self.evaluate(self.evaluator.at(model))

    def evaluate(self, model: Network) -> dict[str, float]:
        """Return RLoss and RErr on the test images of the training curves and on the early-stopping images,
        by PGD with the baseline's radius and steps, as columns of the history. Random starts are the same for
        all snapshots, and for all variants with the same images."""
        spec, data, row = self.spec, self.dataset, {}
        attack = (spec.evaluation_epsilon, spec.evaluation_step_size, spec.evaluation_steps)
        shown = min(spec.history_examples, data.size("test"))
        splits = {"test": (shown, 1), "early_stopping": (None, spec.early_stopping_restarts)}
        for split, (count, restarts) in splits.items():
            x, y = data.images(split, count, self.device), data.labels(split, count, self.device)
            pgd = PGD(*attack, restarts, precision=spec.precision, norm=spec.norm)
            found = pgd(model, x, y, BATCH, generator(self.job.seed, "evaluation", split))
            row[f"{split}_rloss"] = found.loss.mean().item()
            row[f"{split}_rerr"] = 100 * found.error.cpu().double().mean().item()
            if split == "test":
                with torch.no_grad():
                    correct = torch.cat([model(part) for part in x.split(BATCH)]).argmax(1) == y
                # NaN if there is no such example; written as an empty cell
                row["test_correct_rloss"] = found.loss[correct].mean().item()
                row["test_incorrect_rloss"] = found.loss[~correct].mean().item()
        return row

    def _clean_batches(self, epoch: int) -> Iterator[Tensor]:
        stream = generator(self.job.seed, "statistics", epoch, device=self.drawn_on)
        plan = replace(self.plan, seed=derive_seed(self.job.seed, "statistics"))
        for _, indices in zip(range(plan.updates), plan.epoch(epoch), strict=False):
            yield augment(self.examples(indices)[0], self.spec.augmentation, stream, self.mean)

    def components(self, data_checksum: str) -> dict[str, Any]:
        """Return all that the result depends on, for a fingerprint."""
        return {
            "settings": self.job.model_dump(mode="json"),
            "data": data_checksum,
            "pseudo-labels": self.labels[self.plan.examples :].tolist(),
            "code": [__version__, package_digest(), source_digest([self.spec.objective])],
            "torch, threads or device": [torch.__version__, torch.get_num_threads(), self.device.type],
        }

    def finite(self) -> bool:
        """Return whether all weights and statistics are finite."""
        return all(bool(tensor.isfinite().all()) for tensor in self.network.state_dict().values())

    def state(self) -> dict[str, Any]:
        """Return the state dictionaries from which `restore` resumes, bit for bit."""
        return {name: part.state_dict() for name, part in self.stateful.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Resume from what `state` returned."""
        for name, part in self.stateful.items():
            part.load_state_dict(state[name])
