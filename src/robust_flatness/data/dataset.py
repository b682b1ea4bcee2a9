"""The prepared dataset of an experiment: one file, its splits, and a checksum over them."""

import contextlib
import hashlib
import json
import os
import struct
import time
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from robust_flatness.errors import ConfigError, FileError
from robust_flatness.files import atomic_path, require_space, write_text

#: Seconds that a file must not have changed for before a note of its checksum counts: clocks of file
#: systems tick slowly.
SETTLED = 2.0


def checksum(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of the arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return digest.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """Disjoint splits of images and labels, with the training images' channel statistics.

    `images`, `pixels` and `labels` give torch tensors; the labels of the `unlabeled` split are withheld.
    `known_checksum` is that of the arrays where it is known already.
    """

    arrays: dict[str, np.ndarray]
    known_checksum: str | None = None

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return int(self.arrays["classes"])

    @property
    def channels(self) -> int:
        """Number of input channels C."""
        return self.arrays["x_train"].shape[1]

    @property
    def mean(self) -> tuple[float, ...]:
        """Channel means of the training images in [0, 1]."""
        return tuple(self.arrays["mean"].tolist())

    @property
    def std(self) -> tuple[float, ...]:
        """Channel standard deviations of the training images in [0, 1]."""
        return tuple(self.arrays["std"].tolist())

    @property
    def pseudo_labels(self) -> np.ndarray | None:
        """Published pseudo-labels of the `unlabeled` split, int64 [n], where the data came with them."""
        return self.arrays.get("pseudo_labels")

    @cached_property
    def checksum(self) -> str:
        """SHA-256 over all arrays: what a training's resume state is tied to."""
        return self.known_checksum or checksum(self.arrays)

    def size(self, split: str) -> int:
        """Number of examples of a split."""
        return len(self.arrays[f"x_{split}"])

    def images(self, split: str, count: int | None = None, device="cpu"):
        """The first `count` images (None: all), float32 [n, C, H, W] in [0, 1]."""
        pixels = self.pixels(split, count, device)
        return pixels if pixels.is_floating_point() else pixels.float().div_(255)

    def pixels(self, split: str, count: int | None = None, device="cpu"):
        """The first `count` images (None: all) as kept, uint8 or float32 [n, C, H, W]; not to be changed."""
        import torch

        return torch.from_numpy(self._first(f"x_{split}", count)).to(device)

    def labels(self, split: str, count: int | None = None, device="cpu"):
        """The first `count` labels (None: all), int64 [n]."""
        import torch

        if split == "unlabeled":
            raise ConfigError("the labels of the unlabelled split are withheld; use pseudo-labels")
        return torch.from_numpy(self._first(f"y_{split}", count)).to(device)

    def _first(self, name: str, count: int | None) -> np.ndarray:
        if name not in self.arrays:
            raise ConfigError(f"{name} is asked for, but the data has only {', '.join(sorted(self.arrays))}")
        array = self.arrays[name]
        if count is not None and count > len(array):
            raise ConfigError(f"{count} examples asked for, but {name} has {len(array)}")
        return array[:count]


def save_dataset(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write the splits with their checksum; equal arrays give equal bytes.

    Raises
    ------
    ConfigError
        If the disk has no room for them.
    """
    path = Path(path)
    require_space(path.parent, sum(array.nbytes for array in arrays.values()) + 100_000, "the dataset")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays, sha256=np.array(checksum(arrays)))


def load_dataset(path: Path) -> Dataset:
    """A prepared dataset, checked against its checksum when it is read for the first time.

    Its arrays are mapped into memory: what is not used is not read, and jobs share what they use.

    Raises
    ------
    FileError
        If the file is missing, damaged, or not one written by `save_dataset`.
    """
    return Dataset(*load_arrays(path, "run `robust-flatness prepare` (or snakemake) to make it again"))


def save_pseudo_labels(path: Path, labels: np.ndarray, dataset: Dataset) -> None:
    """Write labels [n] of the unlabelled split, tied to the dataset they were predicted for."""
    save_dataset(path, {"labels": np.asarray(labels), "dataset": np.array(dataset.checksum)})


def load_pseudo_labels(path: Path, dataset: Dataset) -> np.ndarray:
    """Labels [n] of the unlabelled split.

    Raises
    ------
    FileError
        If the file is missing, damaged, or was made for another dataset.
    """
    hint = "run `robust-flatness pseudo-label` (or snakemake) to make it again"
    arrays, _ = load_arrays(path, hint)
    if str(arrays.get("dataset")) != dataset.checksum:
        raise FileError(f"{path}: these pseudo-labels belong to another dataset; {hint}")
    return arrays["labels"]


def load_arrays(path: Path, hint: str) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a file with a checksum, and that checksum; `hint` tells how to make it again.

    The checksum of a large file takes seconds: once it has been found right, that is noted in
    `.resume` beside the file, and holds for as long as the file does not change.
    """
    path = Path(path)
    try:
        arrays = _mapped(path)
        stored = str(arrays.pop("sha256", ""))
    except FileNotFoundError:
        raise FileError(f"{path}: no such file; {hint}") from None
    except Exception as error:  # zipfile, zlib, struct and numpy each raise their own on damage
        raise FileError(f"{path}: damaged, or not written by this kit ({error}); {hint}") from None
    if not stored:
        raise FileError(f"{path}: no checksum, so not written by this kit; {hint}")
    note = path.parent / ".resume" / f"{path.name}.checked"
    state = path.stat()
    seen = json.dumps([stored, state.st_size, state.st_mtime_ns, state.st_ino])
    with contextlib.suppress(OSError):
        if note.read_text(encoding="utf-8") == seen:
            return arrays, stored
    if stored != checksum(arrays):
        raise FileError(f"{path}: the checksum does not match, the file is damaged; {hint}")
    if abs(time.time() - state.st_mtime) > SETTLED:
        with contextlib.suppress(OSError):  # a folder that cannot be written to: checked each time
            write_text(note, seen, durable=False)
    return arrays, stored


def _mapped(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an uncompressed .npz file; bytes are mapped into memory, and changes stay there.

    An entry of a zip archive is a header (its fixed part has 30 bytes, the last four the lengths of name and
    extra field), then its content, here an array in NumPy's own format.
    """
    arrays = {}
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is compressed")
            file.seek(entry.header_offset)
            lengths = struct.unpack("<26xHH", file.read(30))
            start = file.seek(sum(lengths), os.SEEK_CUR)
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError(f"{name} is in another version of NumPy's format")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if dtype == np.uint8 and np.prod(shape):
                arrays[name] = np.memmap(path, dtype, "c", file.tell(), shape)
            else:
                file.seek(start)
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays
