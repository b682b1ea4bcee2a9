"""The prepared dataset of an experiment: one safetensors file, its splits, and a checksum over them."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from robust_flatness.errors import ConfigError, FileError
from robust_flatness.files import atomic_path

Arrays = dict[str, np.ndarray]
SHA256 = "sha256"
HINT = "run `robust-flatness {}` (or snakemake) to make it again"


def checksum(arrays: Arrays) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of the arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return digest.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """Disjoint splits of images and labels, and the channel statistics of the training images in [0, 1].
    `images`, `pixels` and `labels` return tensors of the first `count` examples of a split (None: all)."""

    arrays: Arrays

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return int(self.arrays["classes"])

    @property
    def mean(self) -> tuple[float, ...]:
        return tuple(self.arrays["mean"].tolist())

    @property
    def std(self) -> tuple[float, ...]:
        return tuple(self.arrays["std"].tolist())

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over all arrays, part of the fingerprints of trainings and results."""
        return checksum(self.arrays)

    def size(self, split: str) -> int:
        """Return the number of examples of a split."""
        return len(self.arrays[f"x_{split}"])

    def images(self, split: str, count: int | None = None, device="cpu"):
        """Return images float32 [n, C, H, W] in [0, 1]."""
        pixels = self.pixels(split, count, device)
        return pixels if pixels.is_floating_point() else pixels.float().div_(255)

    def pixels(self, split: str, count: int | None = None, device="cpu"):
        """Return images as stored, uint8 or float32 [n, C, H, W]; on the CPU, a view of the dataset."""
        return self._first(f"x_{split}", count, device)

    def labels(self, split: str, count: int | None = None, device="cpu"):
        """Return labels int64 [n]; the split `unlabeled` has none."""
        return self._first(f"y_{split}", count, device)

    def _first(self, name: str, count: int | None, device):
        import torch

        if name not in self.arrays:
            raise ConfigError(f"{name} is requested, but the data have only {', '.join(sorted(self.arrays))}")
        array = self.arrays[name]
        if count is not None and count > len(array):
            raise ConfigError(f"{count} examples requested, but {name} has {len(array)}")
        return torch.from_numpy(array[:count]).to(device)


def save_dataset(path: Path, arrays: Arrays) -> None:
    """Write arrays with their checksum; equal arrays give equal bytes."""
    from safetensors.numpy import save

    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(arrays, {SHA256: checksum(arrays)}))


def load_dataset(path: Path, command: str = "prepare") -> Dataset:
    """Return a dataset, mapped into memory and verified by its checksum; errors name its `command`."""
    from safetensors import SafetensorError, safe_open

    hint = HINT.format(command)
    try:
        with safe_open(path, framework="pt") as file:  # torch maps the file, NumPy would read it
            dataset = Dataset({name: file.get_tensor(name).numpy() for name in file.keys()})  # noqa: SIM118
            stored = (file.metadata() or {}).get(SHA256)
    except (SafetensorError, OSError, ValueError) as error:
        raise FileError(f"{path}: missing, damaged, or not written by this kit ({error}); {hint}") from None
    if stored != dataset.checksum:
        raise FileError(f"{path}: damaged, or not written by this kit: its checksum does not match; {hint}")
    return dataset


def save_pseudo_labels(path: Path, labels: np.ndarray, dataset: Dataset) -> None:
    """Write labels [n] of the unlabelled split, with the checksum of the dataset they were predicted for."""
    digest = np.frombuffer(bytes.fromhex(dataset.checksum), np.uint8)
    save_dataset(path, {"labels": np.asarray(labels), "dataset": digest})


def load_pseudo_labels(path: Path, dataset: Dataset) -> np.ndarray:
    """Return the labels [n] of the unlabelled split, which must have been predicted for this dataset."""
    arrays = load_dataset(path, "pseudo-label").arrays
    if "dataset" not in arrays or arrays["dataset"].tobytes().hex() != dataset.checksum:
        raise FileError(f"{path}: pseudo-labels of another dataset; {HINT.format('pseudo-label')}")
    return arrays["labels"]
