"""Projected gradient descent (PGD) on inputs, in the L-infinity ball and the box [0, 1]."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robust_flatness.attacks.found import Found, are_labels, better, margin, misclassified, updated
from robust_flatness.attacks.visited import Visited
from robust_flatness.errors import ConfigError, warn
from robust_flatness.inputs import (
    are_probabilities,
    check_classes,
    checked_images,
    labels,
    require_finite,
    require_positive,
)
from robust_flatness.network import Network
from robust_flatness.runtime.isolation import isolated
from robust_flatness.runtime.progress import track

Loss = Callable[[Tensor, Tensor], Tensor]

#: Numbers in the inputs of the starts that are under way together: 64 MB in float32.
AT_ONCE = 2**24


class HasLogits(Protocol):
    """What an attack needs of a network: a `Network` or an `Ensemble`."""

    def logits(self, x: Tensor, precision: str = "float32") -> Tensor:
        """Logits [n, K] of inputs [n, ...]."""


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy per example, [n], of logits [n, K] and labels [n] or probabilities [n, K]."""
    if logits.dtype in (torch.bfloat16, torch.float16):  # three digits are too few for a loss
        logits = logits.float()
        target = target.float() if target.is_floating_point() else target
    return F.cross_entropy(logits, target, reduction="none")


def bounds(x: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Lowest and highest admissible inputs: the ball of radius `epsilon` within [0, 1]."""
    return (x - epsilon).clamp_(min=0), (x + epsilon).clamp_(max=1)


def project(x_adv: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """`x_adv` projected onto the L-infinity ball around `x` and onto [0, 1]."""
    return torch.clamp(x_adv, *bounds(x, epsilon))


def random_start(x: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """Starts uniform in the ball around `x`, projected onto [0, 1].

    Drawn on the generator's device and moved to that of `x`: a generator on the CPU gives the
    same starts for every device.
    """
    noise = torch.rand(x.shape, dtype=x.dtype, device=generator.device, generator=generator)
    return project(x + noise.to(x.device).mul_(2).sub_(1).mul_(epsilon), x, epsilon)


@dataclass(frozen=True)
class PGD:
    r"""PGD with signed gradients, as in Madry et al. 2018 and Stutz et al. 2021, Sec. 3.1.

    .. math:: x_{t+1} = \Pi(x_t + \alpha\,\mathrm{sign}\,\nabla_x L(f(x_t), y))

    from a start uniform in the ball; :math:`\Pi` projects onto the ball of radius `epsilon` and
    onto [0, 1]. Per example the highest loss over all iterates (start and last one included) and
    restarts is kept: it estimates the robust loss. A call takes `steps` + 1 forward and `steps`
    backward passes per restart, and one forward pass for the clean inputs.

    Attributes
    ----------
    epsilon
        Radius of the ball, for inputs in [0, 1].
    step_size
        Step :math:`\alpha`.
    steps, restarts
        Numbers of steps, and of random starts.
    include_clean
        Count the clean input among the iterates, so that no loss is below the clean one.
    precision
        `float32`, or `bfloat16` to search in bfloat16; what is reported is then computed in the
        model's own precision, at the points of highest loss and of largest margin of each restart.

    Raises
    ------
    ValueError
        If a number is out of range.
    """

    epsilon: float
    step_size: float
    steps: int
    restarts: int = 1
    include_clean: bool = True
    precision: str = "float32"

    def __post_init__(self):
        for name in ("epsilon", "step_size"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)} given, but it must be > 0")
        for name in ("steps", "restarts"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name}: {getattr(self, name)} given, but it must be at least 1")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision: {self.precision!r} given; allowed are 'float32' and 'bfloat16'")

    def with_restarts(self, restarts: int) -> "PGD":
        """This attack with another number of restarts."""
        return replace(self, restarts=restarts)

    @isolated()
    def __call__(
        self,
        model: nn.Module | Network,
        x: Tensor,
        y: Tensor,
        batch_size: int | None = None,
        generator: torch.Generator | None = None,
        loss: Loss | None = None,
    ) -> Found:
        """Attack every example of `x`.

        Random starts are drawn for the whole of `x` before it is split into batches, restart by
        restart: what is found for an example does not depend on the batch size, and more restarts
        or steps with the same generator never lower a loss.

        Parameters
        ----------
        model
            Inputs to logits; a `Network` is used as it is, of others one is made.
        x, y
            Inputs [n, ...] in [0, 1], and labels [n] or whatever `loss` takes as its target.
        batch_size
            Examples per pass; None for all at once.
        generator
            Source of the random starts; None for one seeded with 0.
        loss
            `loss(logits, target) -> [n]`, to be maximised; None for the cross-entropy.

        Raises
        ------
        ConfigError
            If inputs or targets cannot be used, or the loss has no gradient by the inputs; `NonFiniteError`
            if a loss is NaN or infinite.
        """
        require_positive(batch_size=batch_size)
        x = checked_images(x, y)
        if loss is None and not are_probabilities(y):
            y = labels(y)
        net = Network.of(model, x[:2])
        if loss is None and y.ndim == 1:
            check_classes(y, net.classes)
        generator = generator if generator is not None else torch.Generator().manual_seed(0)
        loss = loss or cross_entropy
        found = self.clean(net, x, y, batch_size, loss) if self.include_clean else None
        n, stuck = len(x), []
        for group in track([*batches(self.restarts, max(1, AT_ONCE // x.numel()))], "group of restarts"):
            count = min(group.stop, self.restarts) - group.start
            starts = torch.cat([random_start(x, self.epsilon, generator) for _ in range(count)])
            examples = torch.arange(n, device=x.device).repeat(count)
            here = self._restarts(
                net, x[examples], y[examples], starts, examples, batch_size or n, loss, stuck
            )
            for restart in range(count):
                found = better(found, here.rows(slice(restart * n, (restart + 1) * n)))
        require_finite(found.loss, "under PGD")
        _warn_of_zero_gradients(torch.cat(stuck))
        return found

    def _restarts(
        self,
        net: HasLogits,
        x: Tensor,
        y: Tensor,
        starts: Tensor,
        examples: Tensor,
        batch_size: int,
        loss: Loss,
        stuck: list[Tensor],
    ) -> Found:
        """The best iterate from each start, with losses in the model's own precision; `examples` numbers the
        example of each row, `stuck` receives which rows have a gradient of zero at their start."""
        batch_size = passing(net, batch_size)
        visited = Visited(starts, examples)
        best, widest = self._search(net, x, y, starts, loss, batch_size, visited, stuck)
        if self.precision == "float32":
            return best
        best = self.clean(net, best.x_adv, y, batch_size, loss)
        if widest is None:
            return best
        return replace(best, error=best.error | self.clean(net, widest.x_adv, y, batch_size).error)

    @torch.no_grad()
    def clean(
        self, net: HasLogits, x: Tensor, y: Tensor, batch_size: int | None = None, loss: Loss = cross_entropy
    ) -> Found:
        """Loss and error of the inputs as they are."""
        parts = [(part, net.logits(x[part])) for part in batches(len(x), batch_size)]
        losses = _joined([loss(logits, y[part]) for part, logits in parts])
        return Found(x, losses, misclassified(_joined([logits for _, logits in parts]), y))

    def losses(self, net: HasLogits, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
        """Highest cross-entropy of each example over the iterates from `start`, [n]."""
        batch_size = passing(net, len(x))
        best, _ = self._search(net, x, y, start, cross_entropy, batch_size)
        if self.precision != "float32":
            best = self.clean(net, best.x_adv, y, batch_size)
        if self.include_clean:
            best = better(self.clean(net, x, y, batch_size), best)
        return best.loss

    def search(
        self, net: HasLogits, x: Tensor, y: Tensor, start: Tensor, loss: Loss = cross_entropy
    ) -> Found:
        """The best iterate from `start` for one batch, with losses in the attack's precision."""
        return self._search(net, x, y, start, loss, len(x))[0]

    def _search(
        self,
        net: HasLogits,
        x: Tensor,
        y: Tensor,
        starts: Tensor,
        loss: Loss,
        batch_size: int,
        visited: Visited | None = None,
        stuck: list[Tensor] | None = None,
    ) -> tuple[Found, Found | None]:
        """The `steps` + 1 iterates from each start: those of highest loss and, in other precisions than
        float32, of largest margin.

        All rows make their steps together, in passes of `batch_size`. With `visited`, a row whose input its
        example has visited before, from this or another start, is dropped: a step is a function of the input,
        so that all that would follow has been seen, or will be. Results do not change.
        """
        low, high = bounds(x, self.epsilon)
        current, rows, best, widest = starts.detach(), torch.arange(len(x), device=x.device), None, None
        for step in track(range(self.steps + 1), "step"):
            last = step == self.steps
            parts = track([*batches(len(current), batch_size)], "batch")
            looks = [self._look(net, current[part], y[part], loss, last) for part in parts]
            logits, losses = (_joined([look[i] for look in looks]) for i in (0, 1))
            best = updated(best, Found(current, losses, misclassified(logits, y)), rows)
            if self.precision != "float32" and are_labels(y):
                margins = margin(logits, y)
                widest = updated(widest, Found(current, margins, margins > 0), rows)
            if last:
                break
            signs = _joined([signs for _, _, signs in looks])
            if step == 0 and stuck is not None:
                stuck.append(~signs.flatten(1).any(1))
            current = torch.add(current, signs, alpha=self.step_size).clamp_(low, high)
            if visited is not None:
                new = visited.new(current, rows)
                if not len(new):
                    break
                if len(new) < len(current):
                    current, rows, y, low, high = (t[new] for t in (current, rows, y, low, high))
        return best, widest

    def _look(
        self, net: HasLogits, x_adv: Tensor, y: Tensor, loss: Loss, last: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits and losses at `x_adv`, and the gradient's signs except at the last iterate."""
        if not last:
            return self.gradient_signs(net, x_adv, y, loss)
        with torch.no_grad():
            logits = net.logits(x_adv, self.precision)
            return logits, loss(logits, y), None

    def gradient_signs(
        self, net: HasLogits, x_adv: Tensor, y: Tensor, loss: Loss
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, losses, and the signs of the losses' gradients by the inputs; replayed as a CUDA graph
        where the network has `graphs`."""

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
                raise ConfigError(
                    "model: no gradient comes to its inputs (.detach(), .data, NumPy, integer layers?); "
                    "gradient-based attacks cannot measure it"
                )
            return logits.detach(), losses.detach(), gradient.sign()

        graphs = getattr(net, "graphs", None)
        if graphs is None or x_adv.device.type != "cuda":
            return compute(x_adv, y, lambda images: net.logits(images, self.precision))

        def recorded(x_adv: Tensor, y: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
            static = dict(zip(tensors, values, strict=True))
            return compute(x_adv, y, lambda images: net.apply(static, images, self.precision))

        tensors = net.tensors(self.precision)
        found = graphs((loss, self.precision), recorded, (x_adv, y, *tensors.values()))
        return tuple(tensor.clone() for tensor in found)


def batches(n: int, batch_size: int | None) -> Iterator[slice]:
    """Slices of at most `batch_size` of `n` examples (None: all in one)."""
    size = batch_size or max(n, 1)
    return (slice(start, start + size) for start in range(0, n, size))


def passing(net: HasLogits, batch_size: int, times: int = 1) -> int:
    """Examples that pass `net` together: `batch_size`, or fewer, in equal parts, if activations would leave
    the cache; up to `times` as many where passes have costs of their own."""
    limit = (getattr(net, "examples_at_once", None) or batch_size) * times
    return math.ceil(batch_size / math.ceil(batch_size / limit))


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _warn_of_zero_gradients(stuck: Tensor) -> None:
    count = int(stuck.sum())
    if count:
        warn(
            f"model: the gradient by the inputs is zero at {count} of {len(stuck)} random starts (rounding, "
            "saturation?): gradient-based attacks do not move there, and the robust loss is too low",
            callers=3,
        )
