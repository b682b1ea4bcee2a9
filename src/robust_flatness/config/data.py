"""The dataset of an experiment and its splits, by size or by ranges of the official order."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)

from robust_flatness.config.values import Count, Integer, Size, Spec, parse_list

#: Sizes known without loading anything: handwritten digits come in one set, the others in two.
DIGITS_EXAMPLES = 1797
EXAMPLES = {"fashion": {"train": 4000, "test": 2000}, "cifar10": {"train": 50_000, "test": 10_000}}
#: Number of classes of the datasets that the kit knows.
CLASSES = {"digits": 10, "fashion": 10, "cifar10": 10}
#: Datasets by name; those of torchvision are called like its classes.
NAMES = (*CLASSES, "npz", "folder")
TORCHVISION = re.compile(r"torchvision:\w+")
NAME_SCHEMA = {"anyOf": [{"enum": [*NAMES]}, {"type": "string", "pattern": f"^{TORCHVISION.pattern}$"}]}
SPLITS = ("train", "unlabeled", "early_stopping", "test")
#: Where the images of a range come from: training or test images, or a pool of extra ones.
ORIGINS = ("train", "test", "pool")
RANGE = re.compile(rf"({'|'.join(ORIGINS)})\s+(\d+)(?:\s*-\s*(\d+))?")
#: Where the workflow puts the official files of CIFAR-10, and what they are called.
CIFAR10_FOLDER = "data/cifar10"
CIFAR10_TEST = "test_batch"
CIFAR10_FILES = (*(f"data_batch_{number}" for number in range(1, 6)), CIFAR10_TEST)


class Range(NamedTuple):
    """The images `first` to `last`, both included, of `origin` in its official order."""

    origin: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.origin} {self.first}-{self.last}"


def parse_range(text: str) -> Range:
    """A range as people write it: "train 0-999", "test 7"."""
    match = RANGE.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is no range of examples; write a list like [train 0-999, train 2000-2499], "
            f"each of {', '.join(ORIGINS)}"
        )
    found = Range(match[1], int(match[2]), int(match[3] or match[2]))
    if found.first > found.last:
        raise ValueError(f"{text!r} ends before it begins")
    return found


def _check_name(value: str) -> str:
    if value not in NAMES and not TORCHVISION.fullmatch(value):
        raise ValueError(f"Input should be {', '.join(map(repr, NAMES))} or 'torchvision:NAME'")
    return value


def _canonical(ranges: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(parse_range(text)) for text in ranges)


def _kind(value: Any) -> str:
    named = isinstance(value, str) and value.strip().startswith(ORIGINS)
    return "ranges" if named or isinstance(value, list | tuple) else "count"


Ranges = Annotated[
    tuple[str, ...], Field(min_length=1), BeforeValidator(parse_list), AfterValidator(_canonical)
]
#: A number of examples, or which ones.
Split = Annotated[Annotated[Count, Tag("count")] | Annotated[Ranges, Tag("ranges")], Discriminator(_kind)]
PoolSplit = Annotated[Annotated[Size, Tag("count")] | Annotated[Ranges, Tag("ranges")], Discriminator(_kind)]


class DataSpec(Spec):
    """A dataset and its disjoint splits.

    `train` labelled training images, `unlabeled` images whose labels are withheld, `early_stopping`
    images for choosing the checkpoint (and the Hessian), `test` images for the measures. Each is a
    number of examples, drawn as the dataset's source says from what ranges have left, or a list of ranges
    of the official order, so that everybody gets the very same examples:

        test: [test 0-999]
        early_stopping: [train 10000-10499]
    """

    name: Annotated[str, AfterValidator(_check_name), WithJsonSchema(NAME_SCHEMA)]
    """A dataset of the kit, `npz`, a `folder` of images with a subfolder for each class below `train` and
    `test`, or `torchvision:NAME`."""
    path: str | None = None
    """`npz`: the file; `folder`: the folder; `torchvision:NAME`: the folder that it was downloaded to;
    `cifar10`: a folder with the official files, None: they are downloaded."""
    train: Split
    unlabeled: PoolSplit = 0
    early_stopping: Split
    test: Split
    classes: Annotated[Integer, Field(ge=2)] | None = None
    """Number of classes K; None: the highest training label plus one (`npz`), or the dataset's own."""
    size: Count | None = None
    """Side in pixels: `cifar10` and `npz` images are averaged to it, it divides theirs; others are scaled to
    it by their shorter side and cropped in the middle."""
    pool: str | None = None
    """`cifar10`: extra images with published pseudo-labels, the pickle of Carmon et al. 2019."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Checksum of the prepared splits, where it is known: whatever files they are read from, they must be
    these. It then stands for the checksums of the official files."""

    @model_validator(mode="after")
    def _check(self) -> "DataSpec":
        if self.name not in CLASSES and not self.path:
            what = "the path of an .npz file" if self.name == "npz" else "the path of its folder"
            raise ValueError(f"path: the dataset {self.name!r} needs {what}")
        if self.name in CLASSES:
            if self.path and self.name != "cifar10":
                raise ValueError(f"path: {self.path!r} given, but {self.name!r} comes with the kit")
            if self.classes not in (None, CLASSES[self.name]):
                raise ValueError(f"classes: {self.classes} given, but {self.name!r} has {CLASSES[self.name]}")
        if self.pool and self.name != "cifar10":
            raise ValueError(f"pool: given, but only 'cifar10' has one; the data are {self.name!r}")
        if self.size and self.name in ("digits", "fashion"):
            raise ValueError(f"size: {self.size} given, but images of {self.name!r} stay as they are")
        if self.size and self.name == "cifar10" and 32 % self.size:
            raise ValueError(f"size: {self.size} given; expected one that divides 32")
        self._check_ranges()
        if self.name == "digits":
            self._check_size(SPLITS, DIGITS_EXAMPLES, "images")
        elif self.name in EXAMPLES:
            available = EXAMPLES[self.name]
            pooled = () if self.pool else ("unlabeled",)
            self._check_size(("train", *pooled), available["train"], "training images")
            self._check_size(("test", "early_stopping"), available["test"], "test images")
        return self

    def _check_size(self, splits: tuple[str, ...], available: int, what: str) -> None:
        splits = tuple(split for split in splits if not self.ranges(split))
        total = sum(self.count(split) for split in splits)
        if total > available:
            raise ValueError(
                f"{' + '.join(splits)} = {total}, but {self.name!r} has {available} {what}; "
                "reduce one of them"
            )

    def _check_ranges(self) -> None:
        given = [(found, split) for split in SPLITS for found in self.ranges(split)]
        if given and self.name == "digits":
            raise ValueError(f"{given[0][1]}: {given[0][0]} given, but 'digits' are one set; give numbers")
        for found, split in given:
            known = EXAMPLES.get(self.name, {}).get(found.origin)
            if known is not None and found.last >= known:
                raise ValueError(
                    f"{split}: {found} given, but {self.name!r} has {found.origin} 0-{known - 1}"
                )
            if found.origin == "pool" and (split != "unlabeled" or self.name == "fashion"):
                raise ValueError(f"{split}: {found} given; only unlabeled images come from a pool")
        for (one, split), (other, following) in zip(sorted(given), sorted(given)[1:], strict=False):
            if one.origin == other.origin and other.first <= one.last:
                raise ValueError(f"{split}: {one} and {following}: {other} have examples in common")

    def ranges(self, split: str) -> tuple[Range, ...]:
        """The ranges of a split; none where it is given by its size."""
        value = getattr(self, split)
        return tuple(map(parse_range, value)) if isinstance(value, Sequence) else ()

    def count(self, split: str) -> int:
        """Number of examples of a split."""
        ranges = self.ranges(split)
        return sum(found.last - found.first + 1 for found in ranges) if ranges else getattr(self, split)

    @property
    def known_classes(self) -> int | None:
        """The number of classes where it is known without reading the data."""
        return CLASSES.get(self.name, self.classes)

    @property
    def shape(self) -> tuple[int, int]:
        """Channels and side of the images; those of CIFAR-10 where an .npz file does not tell before it is
        read."""
        if self.name in ("digits", "fashion"):
            return 1, 8
        return 3, self.size or 32

    @property
    def downloads(self) -> bool:
        """Whether the official files are downloaded."""
        return self.name == "cifar10" and self.path is None
