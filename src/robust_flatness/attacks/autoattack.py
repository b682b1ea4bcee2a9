"""AutoAttack (Croce & Hein 2020) through the package pyautoattack, one attack after the other."""

import contextlib
import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from robust_flatness.attacks.apgd import run_apgd
from robust_flatness.attacks.pgd import batches, cross_entropy
from robust_flatness.config import AutoAttackSpec
from robust_flatness.config.measures import LEAST_CLASSES
from robust_flatness.errors import ConfigError, FileError, warn
from robust_flatness.inputs import check_classes, checked_inputs, require_finite
from robust_flatness.network import Network
from robust_flatness.runtime.isolation import isolated
from robust_flatness.runtime.progress import track
from robust_flatness.runtime.state import StateFile
from robust_flatness.seeding import derive_seed


@dataclass(frozen=True)
class AutoAttackResult:
    """What AutoAttack found, per example.

    Attributes
    ----------
    error
        [n], True where the example is misclassified or was successfully attacked.
    loss
        [n], cross-entropy at the adversarial examples; of the clean ones where no attack succeeded.
    x_adv
        [n, ...], the adversarial examples; clean where no attack succeeded.
    description
        The attack and its budget in words.
    """

    error: Tensor
    loss: Tensor
    x_adv: Tensor
    description: str


@isolated()
def run_autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    epsilon: float,
    spec: AutoAttackSpec | None = None,
    batch_size: int = 250,
    seed: int = 0,
    state_path: Path | None = None,
    known: Tensor | None = None,
) -> AutoAttackResult:
    """Attack the correctly classified examples; each attack works on what the ones before left.

    The standard version is the library's: APGD-CE, targeted APGD and FAB (9 target classes, or
    K - 1 if that is less) and Square (5,000 queries), one restart each. The global random state is
    left as it was.

    Parameters
    ----------
    model
        Inputs [n, C, H, W] in [0, 1] to logits [n, K]; not changed.
    x, y
        Inputs and labels.
    epsilon
        Radius of the L-infinity ball.
    spec
        The budget; None for the standard version.
    batch_size
        Examples per pass. As in the library, each batch draws the same random numbers: results depend on it.
    seed
        Each attack's random numbers derive from it and the attack's name.
    state_path
        File in which finished attacks are kept: a call that was interrupted goes on after the last
        of them, with the same result. One of another model, other data or settings is ignored.
    known
        Inputs [n, C, H, W] that another attack, PGD, has found: the attack `pgd` of a reduced version.

    Raises
    ------
    ConfigError
        If the budget does not fit the number of classes, or asks for PGD's inputs and has none.
    """
    spec = spec or AutoAttackSpec()
    x, y = checked_inputs(x, y)
    if "pgd" in spec.attacks and known is None:
        raise ConfigError("autoattack.attacks: pgd stands for what PGD has found, but nothing was given")
    net = Network.of(model, x[:2])
    check_classes(y, net.classes)
    targets = check_autoattack(net, x, spec)
    with torch.no_grad():
        logits = torch.cat([net(x[part]) for part in batches(len(x), batch_size)])
    require_finite(logits, "on clean inputs")
    key = _fingerprint(logits, x, y, epsilon, spec, batch_size, seed, known)
    robust, x_adv, done = logits.argmax(dim=1) == y, x.clone(), 0
    file = StateFile(Path(state_path), {"inputs": key}) if state_path is not None else None
    if file is not None:
        with contextlib.suppress(FileError):  # damaged, or of another call: from the beginning
            if state := file.load():
                robust, x_adv = state["robust"].to(x.device), state["x_adv"].to(x.device)
                done = state["done"]
    _warn_of_dynamic(net, x)
    for index, name in enumerate(track(spec.attacks, "attack")):
        if index < done:
            continue
        before = robust.double().mean().item()
        with _contained(x.device):
            attack = None
            if name != "pgd":
                attack = _attack(net, name, epsilon, spec, targets, derive_seed(seed, "autoattack", name), x)
            left = robust.nonzero().flatten()
            parts = left.split(batch_size) if len(left) else ()  # an empty tensor has one, empty, part
            for indices in track(parts, f"batch of {name}"):
                if attack is None:
                    candidates = known[indices]
                else:
                    candidates = attack(x[indices].clone(), y[indices].clone()).detach().to(x.dtype)
                with torch.no_grad():
                    fooled = net(candidates).argmax(dim=1) != y[indices]
                x_adv[indices[fooled]] = candidates[fooled]
                robust[indices[fooled]] = False
        if name == "square" and index > 1:
            _warn_of_square(before - robust.double().mean().item())
        if file is not None:
            file.save({"robust": robust, "x_adv": x_adv, "done": index + 1})
    with torch.no_grad():
        loss = torch.cat([cross_entropy(net(x_adv[part]), y[part]) for part in batches(len(x), batch_size)])
    return AutoAttackResult(~robust, loss, x_adv, spec.description)


def check_autoattack(net: Network, x: Tensor, spec: AutoAttackSpec) -> int:
    """The number of target classes of the targeted attacks.

    Raises
    ------
    ConfigError
        If AutoAttack cannot be run on these inputs, or with so few classes.
    """
    if x.ndim != 4 and "square" in spec.attacks:
        raise ConfigError(
            f"autoattack: inputs of shape {tuple(x.shape)}, but Square needs images [n, C, H, W]; "
            f"use others alone: {_alone('apgd-ce', 'apgd-t', 'fab-t')}"
        )
    classes = net.classes
    if "apgd-t" in spec.attacks and classes < LEAST_CLASSES:
        raise ConfigError(
            f"autoattack: apgd-t needs at least {LEAST_CLASSES} classes for its loss (DLR), the model has "
            f"{classes}; use others alone: {_alone('apgd-ce', 'fab-t', 'square')}"
        )
    if spec.target_classes is not None and spec.target_classes > classes - 1:
        raise ConfigError(
            f"autoattack.target_classes: {spec.target_classes} given, but a model with {classes} "
            f"classes has at most {classes - 1}"
        )
    return spec.target_classes or min(9, classes - 1)


def _alone(*attacks: str) -> str:
    """How to choose attacks, on the command line and in settings."""
    return f"measure --attacks {','.join(attacks)}, or version: reduced with attacks: [{', '.join(attacks)}]"


def _attack(
    net: Network, name: str, epsilon: float, spec: AutoAttackSpec, targets: int, seed: int, x: Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    """`attack(x, y) -> x_adv` called `name`, with the budget of `spec`; FAB and Square are the library's."""

    def predict(inputs: Tensor) -> Tensor:
        # AutoAttack computes in float32, whatever the model does
        return net(inputs.to(x.dtype)).float()

    def apgd(x: Tensor, y: Tensor) -> Tensor:
        random = torch.Generator().manual_seed(seed)
        aims = targets if name == "apgd-t" else None
        return run_apgd(predict, x.float(), y, epsilon, spec.iterations, spec.restarts, aims, random)

    if name.startswith("apgd"):
        return apgd
    return _library_attack(predict, name, epsilon, spec, targets, seed, x.device).perturb


def _library_attack(
    predict: Callable[[Tensor], Tensor],
    name: str,
    epsilon: float,
    spec: AutoAttackSpec,
    targets: int,
    seed: int,
    device: torch.device,
):
    from pyautoattack import AutoAttack

    library = AutoAttack(predict, attacks=[name], eps=epsilon, version="custom", seed=seed, device=device)
    attack = {"fab-t": library.fab, "square": library.square}[name]
    attack.n_restarts, attack.seed = spec.restarts, seed
    if name == "fab-t":
        attack.targeted, attack.n_iter, attack.n_target_classes = True, spec.iterations, targets
    else:
        attack.n_queries = spec.queries
    return attack


def _warn_of_dynamic(net: Network, x: Tensor) -> None:
    """As the library's `check_dynamic`: a forward that takes gradients optimises something itself."""
    found = []

    def watch(frame, event, argument):
        code = frame.f_code
        if code.co_name in ("grad", "backward") and "autograd" in code.co_filename:
            found.append(code.co_name)

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        with torch.no_grad():
            net(x[:2])
    finally:
        sys.settrace(before)
    if found:
        _warn("the model takes gradients in its forward (a dynamic defence): AutoAttack may not suffice")


def _warn_of_square(share: float) -> None:
    """As the library's `check_square_sr`."""
    if share > 0.002:
        _warn(
            f"Square, which needs no gradients, has attacked {100 * share:.1f} % of the examples after "
            "attacks by gradients had failed: gradients may be masked, and AutoAttack may not suffice"
        )


def _warn(message: str) -> None:
    warn(f"autoattack: {message}", callers=3)


@contextlib.contextmanager
def _contained(device: torch.device) -> Iterator[None]:
    """Keep the library's seeding of global generators and its prints to itself."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), contextlib.redirect_stdout(io.StringIO()):
        yield


def _fingerprint(
    logits: Tensor,
    x: Tensor,
    y: Tensor,
    epsilon: float,
    spec: AutoAttackSpec,
    batch_size: int,
    seed: int,
    known: Tensor | None,
) -> str:
    """Digest of all that the result depends on; the model counts by its logits."""
    digest = hashlib.sha256(f"{epsilon} {spec.json_text()} {batch_size} {seed} {x.shape}".encode())
    for tensor in (logits, x, y, *([] if known is None else [known])):
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
