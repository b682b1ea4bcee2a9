"""Image files in folders, and datasets of torchvision."""

import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from robust_flatness.config import DataSpec
from robust_flatness.config.data import TORCHVISION
from robust_flatness.config.values import meant
from robust_flatness.data.dataset import Arrays
from robust_flatness.data.splits import split_official
from robust_flatness.errors import FileError, warn
from robust_flatness.seeding import derive_seed

#: Names of folders with test images; the first that exists is used.
TEST_FOLDERS = ("test", "val", "valid", "validation")
#: Attributes in which datasets keep their labels.
LABELS = ("targets", "labels", "_labels")
#: Seed of the order of images that are sorted by class.
ORDER_SEED = 0


class Part:
    """Training or test images of a dataset, read on demand; `classes` are names of the classes by index.
    Their order is the dataset's own, or a fixed random one if images are sorted by class."""

    def __init__(self, dataset: Any, name: str, size: int | None):
        self.dataset, self.name, self.size = dataset, name, size
        self.classes = [str(name) for name in getattr(dataset, "classes", ())]

    @cached_property
    def labels(self) -> np.ndarray:
        """Labels int64 [n], in the dataset's order."""
        stored = (np.asarray(getattr(self.dataset, name, None)) for name in LABELS)
        whole = next((labels for labels in stored if labels.shape == (len(self.dataset),)), None)
        if whole is None:
            pairs = (self.dataset[index] for index in range(len(self.dataset)))
            whole = np.array([label if np.ndim(label) == 0 else None for _, label, *_ in pairs])
        if not np.issubdtype(whole.dtype, np.integer):
            raise FileError(f"{self.name}: expected an integer class for each image")
        return whole.astype(np.int64)

    @cached_property
    def shuffled(self) -> bool:
        """Whether images are sorted by class: one run for each, or labels that change less than half as often
        from one image to the next as in a random order."""
        _, counts = np.unique(self.labels, return_counts=True)
        changes, steps = np.count_nonzero(np.diff(self.labels)), len(self.labels) - 1
        expected = steps * (1 - np.square(counts / counts.sum()).sum())
        return len(counts) > 1 and bool(changes == len(counts) - 1 or changes < expected / 2)

    @cached_property
    def order(self) -> np.ndarray:
        """Indices of the images in their order."""
        indices = np.arange(len(self.labels))
        if self.shuffled:
            np.random.default_rng(derive_seed(ORDER_SEED, "order", self.name) % 2**32).shuffle(indices)
        return indices

    def read(self, places: slice = slice(None)) -> tuple[list[np.ndarray], np.ndarray]:
        """Return images uint8 [H, W] or [H, W, 3], and labels [n], at some places in the order."""
        chosen = self.order[places]
        return [self._pixels(int(index)) for index in chosen], self.labels[chosen]

    def _pixels(self, index: int) -> np.ndarray:
        from PIL import Image
        from torchvision.transforms import functional

        image = self.dataset[index][0]
        if not isinstance(image, Image.Image) or image.mode.startswith(("I", "F")):
            found = f"mode {image.mode}" if isinstance(image, Image.Image) else type(image).__name__
            raise FileError(f"{self.name}: image {index} has {found}; expected a picture of 8 bits a channel")
        if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
            warn(f"{self.name}: transparency is ignored; the colours of transparent pixels count")
        image = image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB")
        if self.size is not None and image.size != (self.size, self.size):
            image = functional.center_crop(functional.resize(image, self.size), [self.size, self.size])
        return np.asarray(image)


def open_parts(
    name: str, folder: Path, size: int | None = None, *, wanted: Sequence[str] = ("test", "train"),
    download: bool = False,
) -> dict[str, Part]:  # fmt: skip
    """Return the parts `wanted`, of a dataset `torchvision:NAME` or of a `folder` of images.

    A folder has a subfolder for each class, whose index is its place in the alphabet (torchvision's
    ImageFolder), below `train` and `test` (or `val`); without those two, all images are test images.
    With a `size`, other images are resized by their shorter side, and cropped in the middle.
    """
    match = TORCHVISION.fullmatch(name)
    sets = _of_torchvision(match[1], match[2], folder, wanted, download) if match else _of_folder(folder)
    # compared for parts that are not wanted, too: a missing class shifts the indices of those after it
    classes = {part: {*Part(dataset, part, None).classes} for part, dataset in sets.items()}
    for part, found in classes.items():
        if different := found ^ classes["test"]:
            names = ", ".join(sorted(different))
            raise FileError(f"{folder}: classes {names} are not in both test and {part}")
    return {part: Part(sets[part], f"{part} images of {name}", size) for part in sets if part in wanted}


def _of_folder(folder: Path) -> dict[str, Any]:
    """Return torchvision's datasets of the images in a folder, by part."""
    nested = [name for name in _folders(folder) if _folders(folder / name)]
    if not nested:
        return {"test": _pictures(folder)}
    test = next((name for name in TEST_FOLDERS if name in nested), None)
    if test is None:
        expected = f"a subfolder for each class, or `train` and one of {', '.join(TEST_FOLDERS)} with such"
        raise FileError(f"{folder}: {', '.join(nested)} hold folders, not images; expected {expected}")
    sets = {"test": _pictures(folder / test)}
    return sets | ({"train": _pictures(folder / "train")} if "train" in nested else {})


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "__pycache__")


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileError(f"{folder}: no folder of images")
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not _hidden(path.name))


def _pictures(folder: Path) -> Any:
    """Return the dataset of a folder with a subfolder for each class, and warn of other files."""
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import IMG_EXTENSIONS

    class Pictures(ImageFolder):
        def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
            names = _folders(Path(directory))
            return names, {name: index for index, name in enumerate(names)}

    def is_picture(path: str) -> bool:
        inside = Path(path).relative_to(folder).parts
        return path.lower().endswith(IMG_EXTENSIONS) and not any(map(_hidden, inside))

    files = [str(path) for path in sorted(folder.rglob("*")) if path.is_file()]
    left_out = [path for path in files if not is_picture(path)]
    if left_out:
        kinds = sorted({Path(path).suffix or Path(path).name for path in left_out})
        warn(f"{folder}: {len(left_out)} files left out ({', '.join(kinds)}), such as {left_out[0]}")
    try:
        return Pictures(str(folder), loader=_opened, is_valid_file=is_picture)
    except (OSError, ValueError) as error:
        reason = str(error).partition(" Supported")[0]
        raise FileError(f"{folder}: no folder of images for each class ({reason})") from None


def _opened(path: str) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return image
    except OSError as error:
        raise FileError(f"{path}: damaged, or not an image ({error})") from None


def _of_torchvision(
    name: str, arguments: str | None, folder: Path, wanted: Sequence[str], download: bool
) -> dict[str, Any]:
    """Return the parts `wanted` of a dataset of torchvision, with `arguments` like "split=letters"."""
    from torchvision import datasets

    kind = getattr(datasets, name, None)
    parameters = inspect.signature(kind).parameters if inspect.isclass(kind) else {}
    if not {"train", "split"} & parameters.keys():
        close = meant(name, [other for other in datasets.__all__ if other != name])
        raise FileError(f"torchvision has no dataset {name!r} with training and test images{close}")
    options: dict[str, Any] = dict(pair.split("=") for pair in (arguments or "").split(",") if pair)
    by_train = "train" in parameters or "split" in options
    if download and {"download", "kwargs"} & parameters.keys():
        options["download"] = True
    sets, reason = {}, ""
    for part in wanted:
        for split in ("test", "val") if part == "test" else ("train",):
            way = {"train": part == "train"} if by_train else {"split": split}
            try:
                sets[part] = kind(str(folder), **way, **options)
                break
            except (ValueError, RuntimeError, OSError, ImportError, TypeError) as error:
                reason = str(error)
                if not isinstance(error, ValueError):  # else no such split
                    break
        if part not in sets:
            images = f"{part} images of torchvision's {name}"
            hint = "give the folder that was its `root`, or download them (measure --download)"
            raise FileError(f"{folder}: {images} cannot be read ({reason}); {hint}")
    return sets


def _arrays(parts: Mapping[str, tuple[list[np.ndarray], np.ndarray]], where: str, option: str) -> Arrays:
    """Return images as uint8 [n, C, H, W], with one channel if all are grey, and labels; `option` is the
    setting for a common size."""
    every = [image for images, _ in parts.values() for image in images]
    sizes = sorted({image.shape[:2] for image in every})
    if len(sizes) > 1:
        shown = ", ".join(f"{height}x{width}" for height, width in sizes[:3])
        raise FileError(f"{where}: images of {len(sizes)} sizes ({shown}); set one by {option}")
    channels = 3 if any(image.ndim == 3 for image in every) else 1
    arrays = {}
    for name, (images, labels) in parts.items():
        stacked = [np.repeat(x[..., None], channels, 2) if x.ndim == 2 else x for x in images]
        arrays[f"x_{name}"] = np.ascontiguousarray(np.stack(stacked).transpose(0, 3, 1, 2))
        arrays[f"y_{name}"] = labels
    return arrays


def to_measure(
    parts: Mapping[str, Part], test: int, train: int, held_out: int, option: str
) -> tuple[Arrays, dict[str, Any]]:
    """Return the first `test` and `train` images, the last `held_out` of the other test images as
    `early_stopping`, and a description: order, classes by index, numbers of images."""
    available = {name: len(part.labels) for name, part in parts.items()}
    places = {"test": ("test", slice(test)), "train": ("train", slice(train))}
    places["early_stopping"] = "test", slice(max(test, available["test"] - held_out), None)
    read = {
        name: parts[part].read(place)
        for name, (part, place) in places.items()
        if part in parts and len(range(available[part])[place])
    }
    shuffled = f"random (seed {ORDER_SEED})"
    orders = {name: shuffled if part.shuffled else "the dataset's" for name, part in parts.items()}
    classes = {name: index for index, name in enumerate(parts["test"].classes)}
    arrays = _arrays(read, parts["test"].name, option)
    return arrays, {"classes": classes, "order": orders, "available": available}


def splits(spec: DataSpec, seed: int) -> Arrays:
    """Return the splits of a dataset of torchvision or a folder of images in `spec.path`."""
    parts = open_parts(spec.name, Path(spec.path), spec.size)
    if "train" not in parts:
        raise FileError(f"{spec.path}: no folder `train` beside `test`; an experiment needs both")
    source = _arrays({name: part.read() for name, part in parts.items()}, str(spec.path), "data.size")
    return split_official(source, spec, seed, str(spec.path))
