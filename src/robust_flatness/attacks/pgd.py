"""Projected gradient descent (PGD) on inputs, in the L-infinity or the L2 ball and the box [0, 1]."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from robust_flatness.attacks.ball import project, random_start, steepest
from robust_flatness.attacks.found import Found, Visited, better, margin, misclassified, updated
from robust_flatness.boundary import try_loss
from robust_flatness.config.values import Count, Norm, Positive
from robust_flatness.errors import ConfigError, warn
from robust_flatness.inputs import check_classes, checked_inputs, require_finite
from robust_flatness.network import Network
from robust_flatness.runtime.isolation import isolated
from robust_flatness.runtime.progress import track

Loss = Callable[[Tensor, Tensor], Tensor]

#: Maximum number of input elements over all restarts that run together (64 MB in float32).
AT_ONCE = 2**24


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy per example, [n], of logits [n, K] and labels [n]."""
    if logits.dtype in (torch.bfloat16, torch.float16):  # three digits are too few for a loss
        logits = logits.float()
    return F.cross_entropy(logits, y, reduction="none")


def checked(
    model: nn.Module, x: Tensor, y: Tensor, loss: Loss | None = None
) -> tuple[Network, Tensor, Tensor, Loss]:
    """Return the model as a `Network`, validated inputs, labels as int64, and the loss (None: the
    cross-entropy). Model and loss are tried on `x[:2]`; raises `ConfigError` if one of them cannot be used,
    or inputs and labels do not fit the model."""
    x, y = checked_inputs(x, y)
    net = Network.of(model, x[:2])
    check_classes(y, net.classes)
    if loss not in (None, cross_entropy):
        require_finite(logits := net.logits(x[:2]), "on clean inputs")
        try_loss(loss, logits, y[:2])
    return net, x, y, loss or cross_entropy


@dataclass(frozen=True)
class PGD:
    r"""PGD as in Madry et al. 2018 and Stutz et al. 2021, Sec. 3.1.

    .. math:: x_{t+1} = \Pi(x_t + \alpha\,d(\nabla_x L(f(x_t), y))),\quad
              d(g) = \mathrm{sign}\,g \text{ (linf) or } g / \|g\|_2 \text{ (l2)}

    for `steps` steps of :math:`\alpha` = `step_size`, from each of `restarts` starts uniform in the ball;
    :math:`\Pi` projects onto the ball of radius `epsilon`, for inputs in [0, 1], and then onto [0, 1] (see
    `project`). `norm` is that of the ball and of the step, `linf` or `l2`. Per example the highest loss over
    the clean input, all iterates (start and last one included) and restarts is kept: it estimates the robust
    loss. A call takes `steps` + 1 forward and `steps` backward passes per restart, and one forward pass for
    the clean inputs.

    `precision` is `float32`, or `bfloat16` to search in bfloat16. Reported losses and errors are then
    recomputed in the model's own precision, at the points of highest loss and of largest margin of each
    restart. Raises `ValueError` if a setting is out of range.
    """

    epsilon: Positive
    step_size: Positive
    steps: Count
    restarts: Count = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    norm: Norm = "linf"

    def start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a random start for each example of `x` (see `random_start`)."""
        return random_start(x, self.epsilon, generator, self.norm)

    def step(self, x_adv: Tensor, direction: Tensor, x: Tensor) -> Tensor:
        """Return `x_adv` after a step along `direction`, projected onto the ball around `x`."""
        return project(x_adv + self.step_size * direction, x, self.epsilon, self.norm)

    @isolated()
    def __call__(
        self, model: nn.Module | Network, x: Tensor, y: Tensor, batch_size: int | None = None,
        generator: torch.Generator | None = None, loss: Loss | None = None,
    ) -> Found:  # fmt: skip
        """Attack every example of the inputs `x` [n, ...] in [0, 1], with labels `y` [n].

        `batch_size` is the number of examples per pass (None: all at once). `generator` draws the random
        starts (None: one seeded with 0), all those of a restart before `x` is split into batches: results do
        not depend on the batch size, and more restarts or steps with the same generator never lower a loss.
        `loss(logits, y) -> [n]` is maximised (None: the cross-entropy).

        Raises `ConfigError` if inputs or labels cannot be used, or the loss has no input gradient, and
        `NonFiniteError` if a loss is NaN or infinite.
        """
        net, x, y, loss = checked(model, x, y, loss)
        generator = generator if generator is not None else torch.Generator().manual_seed(0)
        found = evaluated(net, x, y, batch_size, loss)
        n, stuck = len(x), []
        at_once = passing(net, batch_size or n)
        for group in track([*batches(self.restarts, max(1, AT_ONCE // x.numel()))], "group of restarts"):
            count = min(group.stop, self.restarts) - group.start
            starts = torch.cat([self.start(x, generator) for _ in range(count)])
            examples = torch.arange(n, device=x.device).repeat(count)
            rows, targets, visited = x[examples], y[examples], Visited(starts, examples)
            best, widest = self._search(net, rows, targets, starts, loss, at_once, visited, stuck)
            if self.precision != "float32":
                best = evaluated(net, best.x_adv, targets, at_once, loss)
                wrong = evaluated(net, widest.x_adv, targets, at_once).error
                best = replace(best, error=best.error | wrong)
            for restart in range(count):
                found = better(found, best.rows(slice(restart * n, (restart + 1) * n)))
        require_finite(found.loss, "under PGD")
        if count := int(torch.cat(stuck).sum()):
            zero = f"the gradient by the inputs is zero at {count} of {n * self.restarts} random starts"
            warn(f"model: {zero} (rounding, saturation?): the robust loss is too low", callers=2)
        return found

    def search(self, net: Any, x: Tensor, y: Tensor, start: Tensor, loss: Loss = cross_entropy) -> Found:
        """Return the best iterates from `start` for one batch, with losses in the attack's precision. `y` are
        labels, or targets [n, K] of `loss` whose largest elements are the labels."""
        return self._search(net, x, y, start, loss, len(x))[0]

    def _search(
        self, net: Any, x: Tensor, y: Tensor, starts: Tensor, loss: Loss, batch_size: int,
        visited: Visited | None = None, stuck: list[Tensor] | None = None,
    ) -> tuple[Found, Found | None]:  # fmt: skip
        """Return the iterates of highest loss and, in bfloat16 with `visited`, of largest margin.

        All rows advance together, in passes of `batch_size`. With `visited`, a row is dropped once its
        example has visited the same input before, since the iterates that follow are the same. `stuck`
        collects masks of the rows whose gradient is zero at their start.
        """
        current, rows, best, widest = starts.detach(), torch.arange(len(x), device=x.device), None, None
        for step in track(range(self.steps + 1), "step"):
            if step < self.steps:
                parts = batches(len(current), batch_size)
                looks = [self.directions(net, current[part], y[part], loss) for part in parts]
                joined = (t[0] if len(t) == 1 else torch.cat(t) for t in zip(*looks, strict=True))
                logits, losses, directions = joined
            else:
                logits = batched_logits(net, current, batch_size, self.precision)
                losses = loss(logits, y)
            best = updated(best, Found(current, losses, misclassified(logits, y)), rows)
            if self.precision != "float32" and visited is not None:
                margins = margin(logits, y)
                widest = updated(widest, Found(current, margins, margins > 0), rows)
            if step == self.steps:
                break
            if step == 0 and stuck is not None:
                stuck.append(~directions.flatten(1).any(1))
            current = self.step(current, directions, x)
            if visited is not None:
                new = visited.new(current, rows)
                if not len(new):
                    break
                if len(new) < len(current):
                    current, rows, x, y = (t[new] for t in (current, rows, x, y))
        return best, widest

    def directions(self, net: Any, x_adv: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, losses, and the inputs' directions of `steepest` ascent of the losses; replayed as a
        CUDA graph if the network has `graphs`."""

        def compute(x_adv: Tensor, y: Tensor, logits_of: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
            x_adv = x_adv.detach().requires_grad_(True)
            with torch.enable_grad():
                logits = logits_of(x_adv)
                losses = loss(logits, y)
                total = losses.sum()
            gradient = None
            if total.requires_grad:
                (gradient,) = torch.autograd.grad(total, x_adv, allow_unused=True)
            if gradient is None:
                raise ConfigError("model: no gradient comes to its inputs (.detach() or NumPy?)")
            return logits.detach(), losses.detach(), steepest(gradient, self.norm)

        graphs = getattr(net, "graphs", None)
        if graphs is None or x_adv.device.type != "cuda":
            return compute(x_adv, y, lambda images: net.logits(images, self.precision))

        def recorded(x_adv: Tensor, y: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
            static = dict(zip(tensors, values, strict=True))
            return compute(x_adv, y, lambda images: net.apply(static, images, self.precision))

        tensors = net.tensors(self.precision)
        found = graphs((loss, self.precision, self.norm), recorded, (x_adv, y, *tensors.values()))
        return tuple(tensor.clone() for tensor in found)


def losses_of(
    net: Any, x: Tensor, y: Tensor, attack: PGD | None, start: Tensor, loss: Loss = cross_entropy
) -> Tensor:
    """Return losses [n]: clean ones, or the highest of these and the iterates of `attack` from `start`."""
    if attack is None:
        with torch.no_grad():
            return loss(net.logits(x), y)
    batch_size = passing(net, len(x))
    best, _ = attack._search(net, x, y, start, loss, batch_size)
    if attack.precision != "float32":
        best = evaluated(net, best.x_adv, y, batch_size, loss)
    return better(evaluated(net, x, y, batch_size, loss), best).loss


@torch.no_grad()
def evaluated(net: Any, x: Tensor, y: Tensor, batch_size: int | None, loss: Loss = cross_entropy) -> Found:
    """Return `x` with losses and errors at it, in the model's own precision."""
    logits = batched_logits(net, x, batch_size)
    return Found(x, loss(logits, y), misclassified(logits, y))


@torch.no_grad()
def batched_logits(net: Any, x: Tensor, batch_size: int | None, precision: str = "float32") -> Tensor:
    """Return the logits [n, K] of `x`, computed in batches."""
    return torch.cat([net.logits(x[part], precision) for part in batches(len(x), batch_size)])


def batches(n: int, batch_size: int | None) -> Iterator[slice]:
    """Return slices of at most `batch_size` of `n` examples (None: all in one)."""
    size = batch_size or max(n, 1)
    return (slice(start, start + size) for start in range(0, n, size))


def passing(net: Any, batch_size: int, times: int = 1) -> int:
    """Return the number of examples per pass: `batch_size`, split evenly into the fewest passes of at
    most `times` x `net.examples_at_once` examples (what fits into the CPU cache; None: no limit)."""
    limit = (getattr(net, "examples_at_once", None) or batch_size) * times
    return math.ceil(batch_size / math.ceil(batch_size / limit))
