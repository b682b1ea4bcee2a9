"""Images as others keep them: a dataset of torchvision, or a folder with a subfolder for each class."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from robust_flatness.config import DataSpec
from robust_flatness.config.values import meant
from robust_flatness.data.official import Arrays, split_official
from robust_flatness.errors import FileError, warn
from robust_flatness.seeding import derive_seed

#: Names of folders that hold test images, the first there is counts.
TEST_FOLDERS = ("test", "val", "valid", "validation")
#: Where datasets keep their labels, if they do.
LABELS = ("targets", "labels", "_labels")
#: Seed of the order of images that lie class by class.
ORDER_SEED = 0


class Part:
    """Training or test images, read when they are asked for.

    `order` is the dataset's own, but a fixed random one where images lie class by class: the first
    thousand would be of one class. `classes` are names by index, empty where none are told.
    """

    def __init__(self, dataset: Any, name: str, size: int | None):
        self.dataset, self.name, self.size = dataset, name, size

    @property
    def classes(self) -> list[str]:
        return [str(name) for name in getattr(self.dataset, "classes", ())]

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 [n], in the dataset's order."""
        kept = (getattr(self.dataset, name, None) for name in LABELS)
        found = (np.asarray(labels) for labels in kept if labels is not None)
        whole = next((labels for labels in found if labels.shape == (len(self.dataset),)), None)
        if whole is None:
            pairs = (self.dataset[index] for index in range(len(self.dataset)))
            whole = np.array([label if np.ndim(label) == 0 else None for _, label, *_ in pairs])
        if not np.issubdtype(whole.dtype, np.integer):
            raise FileError(
                f"{self.name}: no class, a whole number, for each image; it cannot be measured on"
            )
        return whole.astype(np.int64)

    @cached_property
    def shuffled(self) -> bool:
        """Whether images lie class by class, in whatever order: a run for each, or labels that change less
        than half as often from one image to the next as they would in a random order."""
        _, counts = np.unique(self.labels, return_counts=True)
        changes, steps = np.count_nonzero(np.diff(self.labels)), len(self.labels) - 1
        at_random = steps * (1 - np.square(counts / counts.sum()).sum())
        return len(counts) > 1 and bool(changes == len(counts) - 1 or changes < at_random / 2)

    @cached_property
    def order(self) -> np.ndarray:
        indices = np.arange(len(self.labels))
        if self.shuffled:
            np.random.default_rng(derive_seed(ORDER_SEED, "order", self.name) % 2**32).shuffle(indices)
        return indices

    def read(self, places: slice | None = None) -> tuple[list[np.ndarray], np.ndarray]:
        """Images uint8 [H, W] or [H, W, 3], and labels [n], of some places in the order."""
        chosen = self.order[places or slice(None)]
        return [self._pixels(int(index)) for index in chosen], self.labels[chosen]

    def _pixels(self, index: int) -> np.ndarray:
        from PIL import Image
        from torchvision.transforms import functional

        image = self.dataset[index][0]
        if not isinstance(image, Image.Image):
            raise FileError(f"{self.name}: {type(image).__name__} {index} is no picture (PIL)")
        if image.mode.startswith(("I", "F")):
            raise FileError(f"{self.name}: image {index} has mode {image.mode}; expected 8 bits a channel")
        if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
            warn(
                f"{self.name}: some have transparent parts; the transparency is left out, and the colours "
                "below it count"
            )
        image = image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB")
        if self.size is not None and image.size != (self.size, self.size):
            image = functional.center_crop(functional.resize(image, self.size), [self.size, self.size])
        return np.asarray(image)


def open_parts(
    name: str, folder: Path, size: int | None = None, *, wanted: Sequence[str] = ("test", "train"),
    download: bool = False,
) -> dict[str, Part]:  # fmt: skip
    """The parts `wanted`, of a dataset `torchvision:NAME` or of a `folder` of images.

    A folder has a subfolder for each class, whose index is its place in the alphabet (torchvision's
    ImageFolder), below `train` and `test` (or `val`); without those two, all images are test images.
    With a `size`, images of another one are scaled so that the shorter side fits, and cropped in the middle.

    Raises
    ------
    FileError
        If files are missing, or training and test images have other classes.
    """
    kind, _, dataset = name.partition(":")
    sets = _of_torchvision(dataset, folder, wanted, download) if kind == "torchvision" else _of_folder(folder)
    parts = {
        part: Part(found, f"{part} images of {name}", size) for part, found in sets.items() if part in wanted
    }
    # also of parts that are not wanted: a class that one lacks would shift the indices of those after it
    names = {part: Part(found, part, size).classes for part, found in sets.items()}
    for part in names:
        if names[part] != names["test"]:
            different = sorted({*names[part]} ^ {*names["test"]})
            raise FileError(f"{folder}: classes {', '.join(different)} are not in all of {', '.join(names)}")
    return parts


def _of_folder(folder: Path) -> dict[str, Any]:
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import IMG_EXTENSIONS, has_file_allowed_extension

    class Pictures(ImageFolder):
        def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
            names = _folders(Path(directory))
            return names, {name: index for index, name in enumerate(names)}

    def is_picture(path: str) -> bool:
        inside = Path(path).relative_to(folder).parts
        return has_file_allowed_extension(path, IMG_EXTENSIONS) and not any(map(_is_hidden, inside))

    def pictures(path: Path) -> Any:
        try:
            return Pictures(str(path), loader=_opened, is_valid_file=is_picture)
        except (OSError, ValueError) as error:
            words = str(error).partition(" Supported")[0]
            raise FileError(
                f"{path}: no folder of images ({words}); expected a subfolder for each class"
            ) from None

    inside = _folders(folder)
    nested = [name for name in inside if _visible(folder / name)]
    if not nested:
        return {"test": pictures(folder)}
    test = next((name for name in TEST_FOLDERS if name in nested), None)
    if test is None:
        raise FileError(
            f"{folder}: {', '.join(nested)} hold folders, not images; expected a subfolder for each class, "
            f"or `train` and one of {', '.join(TEST_FOLDERS)} with such"
        )
    return {"test": pictures(folder / test)} | (
        {"train": pictures(folder / "train")} if "train" in nested else {}
    )


def _is_hidden(name: str) -> bool:
    """Whether a file or folder is a system's or program's own, such as .ipynb_checkpoints and __MACOSX."""
    return name.startswith(".") or name in ("__MACOSX", "__pycache__")


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not _is_hidden(path.name))


def _folders(folder: Path) -> list[str]:
    """The names of the folders in `folder`, less the hidden ones; it warns of these, and of names that
    differ only in case.

    Raises
    ------
    FileError
        If there are none.
    """
    try:
        names, every = _visible(folder), [path.name for path in folder.iterdir() if path.is_dir()]
    except OSError as error:
        raise FileError(f"{folder}: no folder of images ({error})") from None
    if not names:
        raise FileError(f"{folder}: no folder of images; expected a subfolder for each class")
    if hidden := sorted({*every} - {*names}):
        warn(f"{folder}: {', '.join(hidden)} left out, as hidden folders are")
    small = [name.lower() for name in names]
    if twins := [name for name in names if small.count(name.lower()) > 1]:
        warn(f"{folder}: {', '.join(twins)} differ only in case, and are a class each")
    return names


def _opened(path: str) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, UnidentifiedImageError) as error:
        raise FileError(f"{path}: damaged, or no image ({error})") from None


def _of_torchvision(name: str, folder: Path, wanted: Iterable[str], download: bool) -> dict[str, Any]:
    from torchvision import datasets

    kinds = {
        kind: inspect.signature(getattr(datasets, kind)).parameters
        for kind in datasets.__all__
        if inspect.isclass(getattr(datasets, kind))
    }
    known = {kind: found for kind, found in kinds.items() if {"train", "split"} & found.keys()}
    if name not in known:
        raise FileError(
            f"torchvision has no dataset {name!r} with training and test images{meant(name, known)}"
        )
    options = {"download": True} if download and "download" in known[name] else {}
    return {part: _one(getattr(datasets, name), known[name], folder, part, options) for part in wanted}


def _one(
    kind: Any, parameters: Mapping[str, Any], folder: Path, part: str, options: Mapping[str, Any]
) -> Any:
    """One part of a dataset of torchvision; test images are called `val` where there is no `test`."""
    name = kind.__name__
    ways = [{"train": part == "train"}] if "train" in parameters else [{"split": part}]
    ways += [{"split": "val"}] if "split" in parameters and part == "test" else []
    for way in ways:
        try:
            return kind(str(folder), **way, **options)
        except ValueError:  # no such split
            continue
        except (RuntimeError, OSError, ImportError) as error:
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise FileError(
                f"{folder}: {part} images of torchvision's {name} are not there ({words}); give the folder "
                "that was its `root`, or download them: "
                f"torchvision.datasets.{name}({str(folder)!r}, download=True), or measure --download"
            ) from None
    raise FileError(f"torchvision's {name} has no {part} images")


def stacked(images: Mapping[str, list[np.ndarray]], where: str, option: str) -> Arrays:
    """Images as uint8 [n, C, H, W] by part; grey ones have one channel, if all are grey.

    Raises
    ------
    FileError
        If sizes differ; `option` is what sets one.
    """
    sizes = {image.shape[:2]: None for part in images.values() for image in part}
    if len(sizes) > 1:
        shown = ", ".join(f"{height}x{width}" for height, width in [*sizes][:3])
        raise FileError(f"{where}: images of {len(sizes)} sizes ({shown}); set one by {option}")
    colour = any(image.ndim == 3 for part in images.values() for image in part)
    found = {}
    for name, part in images.items():
        whole = np.stack([np.repeat(x[..., None], 3, 2) if colour and x.ndim == 2 else x for x in part])
        found[name] = np.ascontiguousarray(whole.transpose(0, 3, 1, 2)) if colour else whole[:, None]
    return found


def to_measure(
    parts: Mapping[str, Part], test: int, train: int, held_out: int, option: str
) -> tuple[Arrays, dict[str, Any]]:
    """The first `test` and `train` images, the last `held_out` test images of those left as `early_stopping`,
    and what to tell of them: order, classes by index, how many there are."""
    available = {name: len(part.labels) for name, part in parts.items()}
    places = {"test": ("test", slice(test)), "train": ("train", slice(train))}
    places["early_stopping"] = "test", slice(max(test, available["test"] - held_out), None)
    read = {
        name: parts[part].read(place)
        for name, (part, place) in places.items()
        if part in parts and len(range(available[part])[place])
    }
    pixels = stacked({name: images for name, (images, _) in read.items()}, parts["test"].name, option)
    arrays = {f"x_{name}": pixels[name] for name in read} | {f"y_{name}": y for name, (_, y) in read.items()}
    told = {
        "classes": {name: index for index, name in enumerate(parts["test"].classes)},
        "order": {
            name: f"random (seed {ORDER_SEED})" if part.shuffled else "the dataset's"
            for name, part in parts.items()
        },
        "available": available,
    }
    return arrays, told


def splits(spec: DataSpec, seed: int) -> Arrays:
    """The splits of a dataset of torchvision, or of a folder of images, in `spec.path` (`split_official`).

    Raises
    ------
    FileError
        As `open_parts` and `stacked`; if there are no training images, or the sizes exceed the data.
    """
    parts = open_parts(spec.name, Path(spec.path), spec.size)
    if "train" not in parts:
        raise FileError(f"{spec.path}: no folder `train` in it, beside `test`; an experiment needs both")
    read = {name: part.read() for name, part in parts.items()}
    pixels = stacked({name: images for name, (images, _) in read.items()}, str(spec.path), "data.size")
    source = {f"x_{name}": pixels[name] for name in read} | {f"y_{name}": y for name, (_, y) in read.items()}
    return split_official(source, spec, seed, str(spec.path))
