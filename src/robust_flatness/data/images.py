"""Image files in folders, and datasets of torchvision."""

import inspect
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from robust_flatness.config import DataSpec
from robust_flatness.config.data import TEST_FOLDERS, TORCHVISION
from robust_flatness.config.values import meant
from robust_flatness.data.dataset import Arrays
from robust_flatness.data.splits import split_official
from robust_flatness.errors import FileError, warn
from robust_flatness.seeding import derive_seed

#: Names of files and folders that are ignored.
HIDDEN = re.compile(r"\.|(__MACOSX|__pycache__)$")
#: Datasets of torchvision without labelled test images: those for validation are used.
WITHOUT_TEST = ("ImageNet", "Imagenette", "Places365")
#: Attributes with the labels of torchvision's datasets.
LABELS = ("targets", "labels", "_labels")
#: Seed of the random order of images that are sorted by class.
ORDER_SEED = 0


class Part:
    """Training or test images of a dataset, read on demand in the dataset's order or, if they are sorted by
    class, in a fixed random one. `labels` int64 [n] are in the dataset's order."""

    def __init__(self, dataset: Any, name: str, size: int | None):
        self.dataset, self.name, self.size = dataset, name, size
        self.classes = [str(name) for name in getattr(dataset, "classes", ())]

    @cached_property
    def labels(self) -> np.ndarray:
        stored = (np.asarray(getattr(self.dataset, name, None)) for name in LABELS)
        labels = next((found for found in stored if found.shape == (len(self.dataset),)), None)
        if labels is None:
            labels = np.array([self.dataset[index][1] for index in range(len(self.dataset))])
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise FileError(f"{self.name}: expected an integer class for each image")
        return labels.astype(np.int64)

    @cached_property
    def order(self) -> np.ndarray:
        """Indices of the images in the order of `read`. Images are sorted by class if there is one run per
        class, or if labels change from one image to the next less than half as often as in a random order."""
        indices, counts = np.arange(len(self.labels)), np.unique(self.labels, return_counts=True)[1]
        expected = (len(indices) - 1) * (1 - np.square(counts / len(indices)).sum())
        changes = np.count_nonzero(np.diff(self.labels))
        if len(counts) > 1 and (changes == len(counts) - 1 or changes < expected / 2):
            np.random.default_rng(derive_seed(ORDER_SEED, "order", self.name) % 2**32).shuffle(indices)
        return indices

    def read(self, places: slice = slice(None)) -> tuple[list[np.ndarray], np.ndarray]:
        """Return images uint8 [H, W] or [H, W, 3], and labels [n], at these positions of `order`."""
        chosen = self.order[places]
        return [self._pixels(int(index)) for index in chosen], self.labels[chosen]

    def _pixels(self, index: int) -> np.ndarray:
        from PIL import Image
        from torchvision.transforms import functional

        try:
            image = self.dataset[index][0]
            mode = getattr(image, "mode", type(image).__name__)
            if not isinstance(image, Image.Image) or mode.startswith(("I", "F")):
                raise FileError(f"{self.name}: image {index} has mode {mode}; expected 8 bits per channel")
            if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
                warn(f"{self.name}: transparency is ignored; the colours of transparent pixels count")
            image = image.convert("L" if mode in ("1", "L") else "RGB")
        except OSError as error:
            path = getattr(self.dataset, "samples", {index: [f"image {index}"]})[index][0]
            raise FileError(f"{path}: damaged, or not an image ({error})") from None
        if self.size is not None and image.size != (self.size, self.size):
            image = functional.center_crop(functional.resize(image, self.size), [self.size, self.size])
        return np.asarray(image)


def open_parts(
    name: str, folder: Path, size: int | None = None, *, wanted: Sequence[str] = ("test", "train"),
    download: bool = False,
) -> dict[str, Part]:  # fmt: skip
    """Return the parts `wanted` of a dataset `torchvision:NAME` or of a `folder` of images.
    A folder has a subfolder per class, in alphabetical order (torchvision's ImageFolder), below `train` and
    `test` (or `val`); without these two, all images are test images. With a `size`, images are resized by
    their shorter side and cropped in the middle."""
    match = TORCHVISION.fullmatch(name)
    if not match and name.startswith("torchvision:"):
        expected = "torchvision:NAME or torchvision:NAME[argument=value,...], without spaces"
        raise FileError(f"data: {name!r} given; expected {expected}")
    sets = _of_torchvision(match[1], match[2], folder, wanted, download) if match else _of_folder(folder)
    parts = {part: Part(dataset, f"{part} images of {name}", size) for part, dataset in sets.items()}
    # also of parts that are not wanted: a missing class shifts the indices of later classes
    for part in parts:
        if different := sorted({*parts[part].classes} ^ {*parts["test"].classes}):
            raise FileError(f"{folder}: classes {', '.join(different)} are not in both test and {part}")
    return {part: parts[part] for part in parts if part in wanted}


def _of_folder(folder: Path) -> dict[str, Any]:
    nested = [name for name in folders(folder) if folders(folder / name)]
    test = next((name for name in TEST_FOLDERS if name in nested), "")
    if nested and not test:
        expected = f"a subfolder for each class, or `train` and one of {', '.join(TEST_FOLDERS)} with such"
        raise FileError(f"{folder}: {', '.join(nested)} hold folders, not images; expected {expected}")
    sets = {"test": _pictures(folder / test)}
    return sets | ({"train": _pictures(folder / "train")} if "train" in nested else {})


def folders(folder: Path) -> list[str]:
    """Return the names of the subfolders, the classes if these hold images."""
    if not folder.is_dir():
        raise FileError(f"{folder}: no folder of images")
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not HIDDEN.match(path.name))


def _pictures(folder: Path) -> Any:
    """Return the dataset of a folder with a subfolder for each class; warn of files that are ignored."""
    from PIL import Image
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import IMG_EXTENSIONS

    class Pictures(ImageFolder):
        def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
            names = folders(Path(directory))
            return names, {name: index for index, name in enumerate(names)}

    def is_picture(path: str) -> bool:
        inside = Path(path).relative_to(folder).parts
        return path.lower().endswith(IMG_EXTENSIONS) and not any(map(HIDDEN.match, inside))

    files = (str(path) for path in sorted(folder.rglob("*")) if path.is_file())
    if left_out := [path for path in files if not is_picture(path)]:
        kinds = ", ".join(sorted({Path(path).suffix or Path(path).name for path in left_out}))
        warn(f"{folder}: {len(left_out)} files left out ({kinds}), such as {left_out[0]}")
    try:
        return Pictures(str(folder), loader=Image.open, is_valid_file=is_picture)
    except (OSError, ValueError) as error:
        allowed = f"with files {', '.join(IMG_EXTENSIONS)}"
        raise FileError(f"{folder}: no folder of images for each class, {allowed} ({error})") from None


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
    options = {key: int(value) if value.isdigit() else value for key, value in options.items()}
    if download and {"download", "kwargs"} & parameters.keys():
        options["download"] = True
    by_train = "train" in parameters or ("kwargs" in parameters and "split" in options)
    sets = {}
    for part in wanted:
        split = "val" if part == "test" and name in WITHOUT_TEST else part
        way = {"train": part == "train"} if by_train else {"split": split}
        try:
            sets[part] = kind(str(folder), **way, **options)
        except (RuntimeError, OSError, ImportError, TypeError, ValueError) as error:
            images = f"{part} images of torchvision's {name} cannot be read ({error})"
            hint = "give the folder that was its `root`, or download them (measure --download)"
            raise FileError(f"{folder}: {images}; {hint}") from None
    return sets


def _arrays(parts: Mapping[str, tuple[list[np.ndarray], np.ndarray]], where: str, option: str) -> Arrays:
    """Return `x_<part>`, uint8 [n, C, H, W], C = 1 if all are grey, and `y_<part>`; `option` sets a size."""
    every = [image for images, _ in parts.values() for image in images]
    sizes = sorted({image.shape[:2] for image in every})
    if len(sizes) > 1:
        shown = ", ".join(f"{height}x{width}" for height, width in sizes[:3])
        raise FileError(f"{where}: images of {len(sizes)} sizes ({shown}); set one by {option}")
    shape = (*sizes[0], 3 if any(image.ndim == 3 for image in every) else 1)
    arrays = {}
    for name, (images, labels) in parts.items():
        stacked = np.stack([np.broadcast_to(x.reshape(*x.shape[:2], -1), shape) for x in images])
        arrays |= {f"x_{name}": np.ascontiguousarray(stacked.transpose(0, 3, 1, 2)), f"y_{name}": labels}
    return arrays


def to_measure(
    parts: Mapping[str, Part], test: int, train: int, held_out: int, option: str
) -> tuple[Arrays, dict[str, Any]]:
    """Return the first `test` and `train` images, the last `held_out` of the other test images as
    `early_stopping`, and a description: order, classes by index, numbers of images."""
    available = {name: len(part.labels) for name, part in parts.items()}
    places = {"test": ("test", slice(test)), "train": ("train", slice(train))}
    places["early_stopping"] = "test", slice(max(test, available["test"] - held_out), None)
    read = {name: parts[part].read(place) for name, (part, place) in places.items() if part in parts}
    arrays = _arrays({name: part for name, part in read.items() if part[0]}, parts["test"].name, option)
    orders = {
        name: "the dataset's" if (np.diff(part.order) > 0).all() else f"random (seed {ORDER_SEED})"
        for name, part in parts.items()
    }
    classes = {name: index for index, name in enumerate(parts["test"].classes)}
    return arrays, {"classes": classes, "order": orders, "available": available}


def splits(spec: DataSpec, seed: int) -> Arrays:
    """Return the splits of a dataset of torchvision or a folder of images in `spec.path`."""
    parts = open_parts(spec.name, Path(spec.path), spec.size)
    if "train" not in parts:
        raise FileError(f"{spec.path}: no folder `train` beside `test`; an experiment needs both")
    source = _arrays({name: part.read() for name, part in parts.items()}, str(spec.path), "data.size")
    return split_official(source, spec, seed, str(spec.path))
