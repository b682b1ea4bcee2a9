"""The dataset of an experiment and its splits, by size or by ranges of the official order."""

import itertools
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from robust_flatness.config.values import AS_LIST, Count, Integer, Size, Spec
from robust_flatness.errors import ConfigError

#: Numbers of images of the datasets known to the kit, in all or by origin, and of their classes.
EXAMPLES = {
    "digits": {"all": 1797},
    "fashion": {"train": 4000, "test": 2000},
    "cifar10": {"train": 50_000, "test": 10_000},
}
CLASSES = dict.fromkeys(EXAMPLES, 10)
#: Optional settings of these datasets; others have a path and a size.
OPTIONS = {"digits": (), "fashion": (), "cifar10": ("path", "size", "pool")}
#: A dataset of torchvision, optionally with arguments: torchvision:SVHN, torchvision:EMNIST[split=letters].
TORCHVISION = re.compile(r"torchvision:(\w+)(?:\[(\w+=\w+(?:,\w+=\w+)*)\])?")
Torchvision = Annotated[str, Field(pattern=f"^{TORCHVISION.pattern}$")]
SPLITS = ("train", "unlabeled", "early_stopping", "test")
#: Names of the folder of test images; the first that exists is used.
TEST_FOLDERS = ("test", "val", "valid", "validation")
#: Where the images of a range come from.
ORIGINS = ("train", "test")
RANGE = re.compile(rf"\s*({'|'.join(ORIGINS)})\s+(\d+)(?:\s*-\s*(\d+))?\s*")
#: Folder to which the workflow downloads the official files of CIFAR-10, and their names.
CIFAR10_FOLDER = "data/cifar10"
CIFAR10_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def cifar10_files(path: str | None) -> list[Path]:
    """Return the paths of the official files in `path` (None: the download folder), or in the subfolder
    `cifar-10-batches-py` if it has one, as torchvision's `root` has."""
    folder = Path(path or CIFAR10_FOLDER)
    nested = folder / "cifar-10-batches-py"
    return [(nested if nested.exists() else folder) / name for name in CIFAR10_FILES]


class Range(NamedTuple):
    """The images `first` to `last`, both included, of `origin` in its official order."""

    origin: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.origin} {self.first}-{self.last}"

    def require(self, field: str, name: str, available: float) -> None:
        """Raise `ConfigError` if the dataset `name` has only `available` images of this origin."""
        if self.last >= available:
            has = f"{self.origin} 0-{available - 1}" if available else f"no official order of {self.origin}"
            raise ConfigError(f"{field}: {self} given, but {name} has {has}")


def parse_range(text: str) -> Range:
    """Return the range written as "train 0-999" or "test 7"."""
    match = RANGE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a range of {', '.join(ORIGINS)}; write e.g. [train 0-999, test 7]")
    found = Range(match[1], int(match[2]), int(match[3] or match[2]))
    if found.first > found.last:
        raise ValueError(f"{text!r} ends before it begins")
    return found


def _count_or_ranges(count: Any) -> Any:
    tagged = Annotated[count, Tag("count")] | Annotated[Ranges, Tag("ranges")]
    kind = Discriminator(lambda value: "ranges" if isinstance(value, list | tuple | str) else "count")
    return Annotated[tagged, kind]


_Range = Annotated[str, AfterValidator(lambda text: str(parse_range(text)))]
Ranges = Annotated[tuple[_Range, ...], Field(min_length=1), AS_LIST]


def _without_braces(path: str) -> str:
    if {*path} & {*"{}"}:
        raise ValueError("Snakemake takes braces in paths for wildcards; rename the file or folder")
    return path


#: Path of a file or folder that the rules of the workflow read.
InputPath = Annotated[str, AfterValidator(_without_braces)]


class DataSpec(Spec):
    """A dataset and its disjoint splits.

    `train` labelled training images, `unlabeled` images whose labels are withheld, `early_stopping` images
    for choosing the checkpoint (and the Hessian), `test` images for the measures. Each is a list
    of ranges of the official order, or a number of examples outside all ranges: the first test images for
    `test`, the last for `early_stopping`, drawn training images for the others (digits: drawn for all):

        test: [test 0-999]
        early_stopping: [train 10000-10499]
    """

    name: Literal["digits", "fashion", "cifar10", "npz", "folder"] | Torchvision
    """`digits`, `fashion`, `cifar10`, `npz`, a `folder` of images with a subfolder for each class below
    `train` and `test`, or `torchvision:NAME`."""
    path: InputPath | None = None
    """`npz`: the file; `folder`: the folder; `torchvision:NAME`: the folder that it was downloaded to;
    `cifar10`: a folder with the official files, None: they are downloaded."""
    train: _count_or_ranges(Count)
    unlabeled: _count_or_ranges(Size) = 0
    early_stopping: _count_or_ranges(Count)
    test: _count_or_ranges(Count)
    classes: Annotated[Integer, Field(ge=2)] | None = None
    """Number of classes K; None: the highest training label plus one (`npz`), or the dataset's own."""
    size: Count | None = None
    """Side in pixels: `cifar10` and `npz` images are averaged over squares, so it must divide their side;
    others are resized by their shorter side and cropped in the middle."""
    pool: InputPath | None = None
    """`cifar10`: extra images with published pseudo-labels, the pickle of Carmon et al. 2019."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Expected checksum of the prepared splits. It replaces the check of the official files' checksums, so
    that other files with the same images can be used."""

    @model_validator(mode="after")
    def _check(self) -> "DataSpec":
        for option in ("path", "size", "pool"):
            if getattr(self, option) and option not in OPTIONS.get(self.name, ("path", "size")):
                raise ValueError(f"{option}: {getattr(self, option)!r} given, but {self.name!r} has none")
        if self.name not in CLASSES and not self.path:
            raise ValueError(f"path: missing; {self.name!r} needs the path of its file or folder")
        if self.classes not in (None, CLASSES.get(self.name, self.classes)):
            raise ValueError(f"classes: {self.classes} given, but {self.name!r} has {CLASSES[self.name]}")
        if self.size and self.name == "cifar10" and 32 % self.size:
            raise ValueError(f"size: {self.size} given; expected a divisor of 32")
        known = EXAMPLES.get(self.name, {})
        self._check_ranges(known)
        drawn = {"all": SPLITS, "train": ("train", "unlabeled"), "test": ("test", "early_stopping")}
        for origin, available in known.items():
            pooled = ("unlabeled",) if self.pool else ()
            splits = [split for split in drawn[origin] if split not in pooled and not self.ranges(split)]
            total = sum(self.count(split) for split in splits)
            if total > available:
                has = f"{self.name!r} has {available} images ({origin})"
                raise ValueError(f"{' + '.join(splits)} = {total}, but {has}")
        return self

    def _check_ranges(self, known: dict[str, int]) -> None:
        given = sorted((found, split) for split in SPLITS for found in self.ranges(split))
        for found, split in given:
            unlisted = 0 if "all" in known else math.inf  # digits have no official order
            found.require(split, repr(self.name), known.get(found.origin, unlisted))
        for (one, split), (other, following) in itertools.pairwise(given):
            if one.origin == other.origin and other.first <= one.last:
                raise ValueError(f"{split}: {one} and {following}: {other} have examples in common")

    def ranges(self, split: str) -> tuple[Range, ...]:
        """Return the ranges of a split; none if it is given by its size."""
        value = getattr(self, split)
        return tuple(map(parse_range, value)) if isinstance(value, tuple) else ()

    def count(self, split: str) -> int:
        """Return the number of examples of a split."""
        ranges = self.ranges(split)
        return sum(found.last - found.first + 1 for found in ranges) if ranges else getattr(self, split)

    @property
    def known_classes(self) -> int | None:
        """Number of classes if it is known without reading the data."""
        return CLASSES.get(self.name, self.classes)

    @property
    def shape(self) -> tuple[int, int]:
        """Channels and side of the images; CIFAR-10's for a file that has not been read."""
        return (1, 8) if self.name in ("digits", "fashion") else (3, self.size or 32)
