"""Robustness and robust flatness of a network that is not of this kit."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robust_flatness.attacks import PGD
from robust_flatness.config import RobustnessSpec
from robust_flatness.data.npz import read_npz
from robust_flatness.errors import ConfigError
from robust_flatness.evaluation import evaluate_robustness
from robust_flatness.flatness import average_flatness, worst_flatness
from robust_flatness.models.checkpoint import load_weights
from robust_flatness.provenance import provenance
from robust_flatness.seeding import derive_seed


@dataclass(frozen=True)
class OwnModel:
    """Where a network comes from: `package.module:function`, its weights, and test data."""

    factory: str
    weights: Path | None
    data: Path
    examples: int | None = None  # None: the first 1000, or all where there are fewer

    def load(self) -> nn.Module:
        """The network in evaluation mode.

        Raises
        ------
        ConfigError
            If the function cannot be imported or called, does not return an `nn.Module`, or the
            weights do not fit.
        """
        module_name, _, name = self.factory.partition(":")
        if not module_name or not name:
            raise ConfigError(f"--model: {self.factory!r} given; expected package.module:function")
        sys.path.insert(0, str(Path.cwd()))
        try:
            factory = getattr(importlib.import_module(module_name), name)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise ConfigError(f"--model: {self.factory!r} cannot be imported ({error})") from None
        finally:
            sys.path.pop(0)
        try:
            model = factory()
        except TypeError as error:
            raise ConfigError(
                f"--model: {self.factory}() failed ({error}); it must work without arguments"
            ) from None
        if not isinstance(model, nn.Module):
            raise ConfigError(
                f"--model: {self.factory}() returned {type(model).__name__}; expected an nn.Module"
            )
        if self.weights is not None:
            load_weights(model, read_weights(self.weights), self.weights)
        return model.eval()


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a .safetensors file; no code in it is run.

    Raises
    ------
    ConfigError
        If the file is missing, damaged or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix != ".safetensors":
        raise ConfigError(
            f"--weights: {path} given; expected a .safetensors file "
            "(safetensors.torch.save_file(model.state_dict(), ...))"
        )
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ConfigError(f"--weights: {path}: no such file") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise ConfigError(f"--weights: {path}: truncated or damaged ({error})") from None


def measure_own_model(
    own: OwnModel,
    robust: RobustnessSpec,
    *,
    average_xi: float,
    worst_xi: float,
    samples: int,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """The columns of the results table that concern test examples, for one network.

    Raises
    ------
    ConfigError
        If network, weights or data cannot be used, or the logits have the wrong shape.
    """
    source = read_npz(own.data)
    examples = min(1000, len(source["y_test"])) if own.examples is None else own.examples
    if examples > len(source["y_test"]):
        raise ConfigError(
            f"--examples: {examples} given, but {own.data} has {len(source['y_test'])} test examples"
        )
    x = torch.from_numpy(source["x_test"][:examples]).to(device).float() / 255
    y = torch.from_numpy(source["y_test"][:examples]).to(device)
    model = own.load().to(device)
    check_output(model, x[:2], int(source["y_train"].max()) + 1)
    attack = PGD(robust.attack.epsilon, robust.attack.step_size, robust.attack.steps, robust.attack.restarts)
    result = evaluate_robustness(
        model, x, y, attack=attack, autoattack=robust.autoattack or False,
        batch_size=robust.batch_size, seed=derive_seed(seed, "robustness", "test"),
    )  # fmt: skip
    average = average_flatness(
        model, x, y, attack=attack, xi=average_xi, samples=samples, batch_size=robust.batch_size,
        seed=derive_seed(seed, "flatness", "average"),
    )  # fmt: skip
    worst = worst_flatness(
        model, x, y, attack=attack, xi=worst_xi, batch_size=robust.batch_size,
        seed=derive_seed(seed, "flatness", "worst"), reference=average.reference,
    )  # fmt: skip
    values = {
        "test_err": 100 * result.err,
        "test_ce": result.ce,
        "test_rerr_pgd": 100 * result.rerr_pgd,
        "test_rloss_pgd": result.rloss_pgd,
        "avg_flatness_rloss": average.value,
        "avg_flatness_rloss_std": average.std,
        "avg_flatness_rloss_se": average.standard_error,
        "worst_flatness_rloss": worst.value,
        "avg_flatness_xi": average_xi,
        "worst_flatness_xi": worst_xi,
        "robust_test_examples": examples,
    }
    if robust.autoattack:
        values["test_rerr_aa"] = 100 * result.rerr_aa
        values["test_rloss_aa"] = result.rloss_aa
        values["autoattack"] = robust.autoattack.description
    return {
        "model": own.factory,
        "weights": str(own.weights) if own.weights else None,
        "seed": seed,
        "attack": robust.attack.model_dump(),
        "provenance": provenance(device, torch.get_num_threads()),
        "values": values,
    }


def check_output(model: nn.Module, x: torch.Tensor, classes: int) -> None:
    """Run `model` on `x` and check that it returns logits [n, K] with K >= `classes`.

    Raises
    ------
    ConfigError
        If the model fails on `x` or returns something else.
    """
    with torch.no_grad():
        try:
            logits = model(x)
        except Exception as error:  # whatever a network raises on inputs it is not made for
            raise ConfigError(
                f"--model: fails on images of shape {tuple(x.shape)} [n, C, H, W]: {error}"
            ) from None
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(x):
        raise ConfigError(f"--model: returned {shape} for {len(x)} images; expected logits ({len(x)}, K)")
    if logits.shape[1] < classes:
        raise ConfigError(
            f"--model: returned {logits.shape[1]} logits per image, but the labels have {classes} classes"
        )
    if not torch.isfinite(logits).all():
        raise ConfigError("--model: returned NaN or infinite logits")
