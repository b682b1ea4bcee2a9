"""Checkpoints: weights as safetensors that describe themselves and carry a checksum.
The file holds the tensors and one metadata key with canonical JSON: the architecture, what was trained, and a
SHA-256 over the tensors, verified on loading, which runs no code from the file."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from robust_flatness.architectures import build_model
from robust_flatness.config import ModelSpec, parse
from robust_flatness.config.networks import NetworkSpec
from robust_flatness.data import Dataset
from robust_flatness.errors import FileError
from robust_flatness.files import atomic_path, canonical_json
from robust_flatness.loading import Normalized, load_model, load_network
from robust_flatness.network import Network
from robust_flatness.runtime.graphs import Graphs
from robust_flatness.runtime.state import tensors_digest
from robust_flatness.seeding import generator
from robust_flatness.weights import load_weights

KEY = "robust_flatness"
#: Key in `Metadata.model` of external networks that holds the argument of `load_model`.
LOADED = "loaded"


@dataclass(frozen=True)
class Metadata:
    """Description of a checkpoint's network.

    `model` holds the settings of a network of the kit, or `{"loaded": ...}`, the argument of `load_model`;
    `mean` and `std` normalise the inputs. `epoch` counts from 0, None for external networks; `weight_bound`
    is the bound of weight clipping in training, which also bounds perturbed weights, `precision` that of
    training, `norm` that of its attack.
    """

    model: dict
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    variant: str
    seed: int
    epoch: int | None
    weight_bound: float | None = None
    precision: str = "float32"
    norm: str = "linf"
    sha256: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A network in evaluation mode, with the name (`last`, `best`, `epoch-005`) and the metadata of its file;
    `metadata` is None for a model without a file."""

    model: nn.Module
    name: str = ""
    metadata: Metadata | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is a network of the kit."""
        return self.metadata is not None and LOADED not in self.metadata.model

    @cached_property
    def network(self) -> Network:
        """The network for attacks and measures; on a GPU, attacks replay the kit's own as CUDA graphs."""
        network = Network(self.model)
        network.graphs = Graphs() if self.is_own else None
        return network

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 over the parameters and buffers."""
        return tensors_digest("", self.model.state_dict())

    def initial(self) -> dict[str, Tensor] | None:
        """Return the initial weights by name, from the seed, clipped as in training; None if unknown."""
        if not self.is_own:
            return None
        known = self.metadata
        stream = generator(known.seed, "initialisation")
        start = build_model(parse(ModelSpec, known.model), known.classes, known.mean, known.std, stream)
        bound = math.inf if known.weight_bound is None else known.weight_bound
        return {name: p.detach().clamp(-bound, bound) for name, p in start.named_parameters()}


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 over the metadata (less its own checksum) and the tensors."""
    return tensors_digest(canonical_json({**metadata, "sha256": ""}), tensors)


def save_checkpoint(path: Path, model: nn.Module, metadata: Metadata) -> None:
    """Write weights and buffers of `model`, whole or not at all; equal models give equal bytes. Of a
    `Normalized`, those of the network inside are written: mean and std are in the metadata."""
    # safetensors has no tied tensors: each is written
    state = (model.model if isinstance(model, Normalized) else model).state_dict()
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    fields = asdict(metadata)
    fields["sha256"] = checksum(tensors, fields)
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, {KEY: canonical_json(fields)}))


def load_checkpoint(path: Path, device="cpu") -> Checkpoint:
    """Load a checkpoint's network in evaluation mode; raise `FileError` if the file is missing, truncated or
    altered, `ConfigError` if its tensors do not fit the architecture it names."""
    try:
        with safe_open(path, framework="pt") as file:
            fields = json.loads(file.metadata()[KEY])
            metadata = Metadata(**fields)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        spec = None if LOADED in metadata.model else parse(ModelSpec, metadata.model)
    except (OSError, SafetensorError, RuntimeError, LookupError, TypeError, ValueError) as error:
        raise FileError(f"{path}: no checkpoint of this kit, or damaged ({error}); train it again") from None
    if metadata.sha256 != checksum(tensors, fields):
        raise FileError(f"{path}: the checksum does not match, the file is damaged; train it again")
    if spec is None:
        normalised = {"mean": metadata.mean, "std": metadata.std} if metadata.mean else {}
        model = load_model(metadata.model[LOADED], path, **normalised)
    else:
        model = build_model(spec, metadata.classes, metadata.mean, metadata.std)
        load_weights(model, {"": tensors}, path)
    return Checkpoint(model.eval().to(device), Path(path).stem, metadata)


def import_network(spec: NetworkSpec, dataset: Dataset, path: Path, name: str, seed: int) -> None:
    """Write a network of an experiment's `models`, called `name` in tables, as a checkpoint; raise
    `ConfigError` if it cannot be loaded, or does not fit the data."""
    network = load_network(spec, name, dataset.images("test", 2), dataset.classes)
    mean, std = (), ()
    if isinstance(network, Normalized):
        mean, std = (tuple(part.flatten().tolist()) for part in (network.mean, network.std))
    metadata = Metadata({LOADED: spec.model}, dataset.classes, mean, std, name, seed, epoch=None)
    save_checkpoint(path, network, metadata)
