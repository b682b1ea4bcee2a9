"""CIFAR-10 from its official files, and extra images with published pseudo-labels."""

import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from robust_flatness.config import DataSpec
from robust_flatness.config.data import CIFAR10_FILES, cifar10_files
from robust_flatness.data.dataset import Arrays
from robust_flatness.data.splits import averaged, split_official
from robust_flatness.errors import FileError

ALTERNATIVES = "use a folder with the official files (data.path), or an .npz file (data.name: npz)"
#: Classes and functions that pickled arrays refer to. All others are refused.
ALLOWED = {
    "numpy.ndarray", "numpy.dtype", "numpy._core.multiarray._reconstruct", "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer", "_codecs.encode",
}  # fmt: skip


def splits(spec: DataSpec, seed: int) -> Arrays:
    """Return the splits of the official files in `spec.path` or the download folder (`split_official`)."""
    files = cifar10_files(spec.path)
    if spec.sha256 is None and (altered := _altered(files[0].parent)):
        hint = f"delete it to download it again, {ALTERNATIVES}, or give data.sha256"
        raise FileError(f"{altered[0]}: missing, truncated or altered (by its MD5); {hint}")
    *training, test = (_read(path, "labels", (3072,), spec.size) for path in files)
    source = {"x_test": test[0], "y_test": test[1]}
    source["x_train"], source["y_train"] = map(np.concatenate, zip(*training, strict=True))
    if spec.pool:
        pool = _read(Path(spec.pool), "extrapolated_targets", (32, 32, 3), spec.size)
        source["x_pool"], source["y_pool"] = pool
    return split_official(source, spec, seed, "CIFAR-10")


def _altered(folder: Path) -> list[Path]:
    """Return the files in `folder` that are missing or do not have the official MD5."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    official = [*CIFAR10.train_list, *CIFAR10.test_list]
    return [folder / name for name, digest in official if not check_integrity(str(folder / name), digest)]


def download_cifar10(folder: Path) -> None:
    """Download the official files by torchvision unless `folder` has them; move them there when complete."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import download_and_extract_archive

    folder, part = Path(folder), Path(folder, ".download")
    if not _altered(folder):
        return
    try:
        download_and_extract_archive(CIFAR10.url, str(part), filename=CIFAR10.filename, md5=CIFAR10.tgz_md5)
    except (OSError, RuntimeError, EOFError) as error:
        raise FileError(f"{CIFAR10.url} cannot be downloaded ({error}); {ALTERNATIVES}") from None
    for name in CIFAR10_FILES:
        (part / CIFAR10.base_folder / name).replace(folder / name)
    shutil.rmtree(part)


def _read(path: Path, key: str, shape: tuple[int, ...], size: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 [n, 3, H, W] and labels int64 [n] from a pickle of `data`, uint8 [n, *shape], and
    labels `key`, without running its code."""
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's about old files
            content = dict(_Arrays(file, encoding="latin1").load())
    except Exception as error:  # unpickling damaged bytes can raise anything
        raise FileError(f"{path}: not a readable pickle of arrays ({error}); no code was run") from None
    images, labels = np.asarray(content.get("data")), np.asarray(content.get(key, ()))
    integers = labels.shape == images.shape[:1] and np.issubdtype(labels.dtype, np.integer)
    if images.dtype != np.uint8 or images.shape[1:] != shape or not integers:
        found = f"data {images.dtype} {images.shape} and {key} {labels.dtype} {labels.shape}"
        raise FileError(f"{path}: {found}; expected uint8 (n, {str(shape)[1:]} and n integers")
    images = images.reshape(-1, 3, 32, 32) if len(shape) == 1 else images.transpose(0, 3, 1, 2)
    return averaged(images, size, str(path)), labels.astype(np.int64)


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core", "numpy._core")  # as NumPy 1 wrote it
        if f"{module}.{name}" not in ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return super().find_class(module, name)
