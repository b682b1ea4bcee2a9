"""AutoAttack (Croce & Hein 2020) through the package pyautoattack, one attack after the other."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from robust_flatness.attacks.apgd import run_apgd
from robust_flatness.attacks.found import Found
from robust_flatness.attacks.pgd import batched_logits, checked, cross_entropy
from robust_flatness.config import AutoAttackSpec
from robust_flatness.config.measures import MOST_TARGETS
from robust_flatness.errors import ConfigError, FileError, warn
from robust_flatness.inputs import require_finite
from robust_flatness.network import Network
from robust_flatness.runtime.isolation import default_dtype, isolated
from robust_flatness.runtime.progress import track
from robust_flatness.runtime.state import StateFile, tensors_digest
from robust_flatness.seeding import derive_seed

#: Logger for the library's checks, which issues their messages as warnings.
LOGGER = SimpleNamespace(warning=lambda message: warn(f"autoattack: {message}", callers=3))


@isolated()
def run_autoattack(
    model: nn.Module | Network, x: Tensor, y: Tensor, epsilon: float, spec: AutoAttackSpec | None = None,
    batch_size: int = 250, seed: int = 0, state_path: Path | None = None, known: Tensor | None = None,
    norm: str = "linf",
) -> Found:  # fmt: skip
    """Attack the correctly classified examples in the ball of radius `epsilon`; each attack runs on those
    that withstood the earlier ones. Returns adversarial examples (clean inputs if no attack succeeded), their
    cross-entropy, and which examples are misclassified.

    `spec` is the budget (None: the standard version). As in the library, each batch draws the same random
    numbers, so that results depend on `batch_size`. An interrupted call resumes from `state_path` after the
    last finished attack. `known` are adversarial inputs from PGD, for the attack `pgd` of a reduced version.
    Raises `ConfigError` if the budget does not fit the number of classes."""
    spec = spec or AutoAttackSpec()
    net, x, y, _ = checked(model, x, y)
    targets = check_autoattack(net, x, spec, norm)
    logits = batched_logits(net, x, batch_size)
    require_finite(logits, "on clean inputs")
    # the state belongs to these arguments, with the model represented by its logits
    settings = f"{epsilon} {norm} {spec.json_text()} {batch_size} {seed}"
    key = tensors_digest(settings, {"logits": logits, "x": x, "y": y, "known": known})
    robust, x_adv, done = logits.argmax(dim=1) == y, x.clone(), 0
    file = state_path and StateFile(Path(state_path), {"inputs": key})
    with contextlib.suppress(FileError):  # damaged, or of another call: from the beginning
        if file and (state := file.load()):
            robust, x_adv, done = state["robust"].to(x.device), state["x_adv"].to(x.device), state["done"]

    callers = torch.get_default_dtype()

    def predict(inputs: Tensor) -> Tensor:
        with default_dtype(callers):
            return net(inputs.to(x.dtype)).float()  # AutoAttack computes in float32, whatever the model does

    with contextlib.redirect_stdout(io.StringIO()), default_dtype(torch.float32):  # without its output
        _run_checks(predict, x[:batch_size], y[:batch_size])
        for index, name in enumerate(track(spec.attacks, "attack")):
            if index < done:
                continue
            before = robust.double().mean().item()
            attack = _attack(predict, name, epsilon, spec, targets, seed, x.device, norm)
            left = robust.nonzero().flatten()
            parts = left.split(batch_size) if len(left) else ()  # an empty tensor has one, empty, part
            for indices in track(parts, f"batch of {name}"):
                if name == "pgd":
                    candidates = known[indices]
                else:
                    candidates = attack(x[indices].clone(), y[indices].clone()).detach().to(x.dtype)
                with torch.no_grad(), default_dtype(callers):
                    fooled = net(candidates).argmax(dim=1) != y[indices]
                x_adv[indices[fooled]] = candidates[fooled]
                robust[indices[fooled]] = False
            if name == "square" and index > 1:
                from pyautoattack import checks

                after = robust.double().mean().item()
                checks.check_square_sr({"clean": 1.0, "before": before, "square": after}, logger=LOGGER)
            if file:
                file.save({"robust": robust, "x_adv": x_adv, "done": index + 1})
    return Found(x_adv, cross_entropy(batched_logits(net, x_adv, batch_size), y), ~robust)


def check_autoattack(net: Network, x: Tensor, spec: AutoAttackSpec, norm: str = "linf") -> int:
    """Return the number of target classes; raise `ConfigError` where attacks do not fit inputs or classes."""
    problems = [*spec.problems(net.classes)]
    others = "write version: reduced, attacks: [apgd-ce, apgd-t, fab-t]"
    if x.ndim != 4 and "square" in spec.attacks:
        problems.append(f"attacks: Square needs images [n, C, H, W], not inputs {tuple(x.shape)}; {others}")
    elif norm == "l2" and "square" in spec.attacks and not _tiled(*x.shape[2:]):
        size = f"{x.shape[2]}x{x.shape[3]}"
        problems.append(f"attacks: the library's Square in the L2 norm fails on images of {size}; {others}")
    if problems:
        raise ConfigError("\n".join(f"autoattack.{problem}" for problem in problems))
    return spec.target_classes or min(MOST_TARGETS, net.classes - 1)


def _tiled(height: int, width: int) -> bool:
    """Return whether the initial tiles of the library's Square attack in the L2 norm fit into the image."""
    side = height // 5
    first = (height - 5 * side) // 2
    return side == 1 or (side > 1 and all(first + n // side * side <= n for n in (height, width)))


def _run_checks(predict: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> None:
    """Run the library's checks: randomness, probabilities, gradients in the forward pass, zero gradients."""
    from pyautoattack import checks

    checks.check_randomized(predict, x, y, logger=LOGGER)
    checks.check_range_output(predict, x, logger=LOGGER)
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))  # counted over all calls
    with torch.no_grad():
        checks.check_dynamic(predict, x[:2], logger=LOGGER)
    images = x.clone().requires_grad_(True)
    losses = cross_entropy(predict(images), y)
    if losses.requires_grad:
        (gradient,) = torch.autograd.grad(losses.sum(), images, materialize_grads=True)
        checks.check_zero_gradients(gradient.contiguous(), logger=LOGGER)


def _attack(
    predict: Callable[[Tensor], Tensor], name: str, epsilon: float, spec: AutoAttackSpec, targets: int,
    seed: int, device: torch.device, norm: str,
) -> Callable[[Tensor, Tensor], Tensor] | None:  # fmt: skip
    """Return the attack `name` as `attack(x, y) -> x_adv`, with the budget of `spec`; None for `pgd`."""
    if name == "pgd":
        return None
    seed = derive_seed(seed, "autoattack", name)
    if name.startswith("apgd"):
        aims = targets if name == "apgd-t" else None

        def apgd(x: Tensor, y: Tensor) -> Tensor:
            random = torch.Generator().manual_seed(seed)
            budget = (spec.iterations, spec.restarts, aims, random)
            return run_apgd(predict, x.float(), y, epsilon, *budget, norm)

        return apgd
    from pyautoattack import AutoAttack

    library = AutoAttack(
        predict, attacks=[name], norm=norm.capitalize(), eps=epsilon, version="custom", seed=seed,
        device=device,
    )  # fmt: skip
    attack = {"fab-t": library.fab, "square": library.square}[name]
    attack.n_restarts, attack.seed = spec.restarts, seed
    if name == "fab-t":
        attack.targeted, attack.n_iter, attack.n_target_classes = True, spec.iterations, targets
    else:
        attack.n_queries = spec.queries
    return attack.perturb
