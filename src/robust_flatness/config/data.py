"""The dataset of an experiment and the sizes of its splits."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from robust_flatness.config.values import Count, Integer, Size, Spec

#: Sizes known without loading anything: handwritten digits come in one set, Fashion-MNIST in two.
DIGITS_EXAMPLES = 1797
FASHION_EXAMPLES = {"train": 4000, "test": 2000}
#: Number of classes of the datasets that come with the kit.
CLASSES = {"digits": 10, "fashion": 10}


class DataSpec(Spec):
    """A dataset and the sizes of its disjoint splits.

    `train` labelled training images, `unlabeled` images whose labels are withheld,
    `early_stopping` images for choosing the checkpoint (and the Hessian), `test` images for
    the measures.
    """

    name: Literal["digits", "fashion", "npz"]
    path: str | None = None
    train: Count
    unlabeled: Size = 0
    early_stopping: Count
    test: Count
    classes: Annotated[Integer, Field(ge=2)] | None = None
    """Number of classes K; None: the highest training label plus one (`npz`), or the dataset's own."""

    @model_validator(mode="after")
    def _check(self) -> "DataSpec":
        if self.name == "npz" and not self.path:
            raise ValueError("path: the dataset 'npz' needs the path of an .npz file")
        if self.name in CLASSES:
            if self.path:
                raise ValueError(f"path: {self.path!r} given, but {self.name!r} comes with the kit")
            if self.classes not in (None, CLASSES[self.name]):
                raise ValueError(f"classes: {self.classes} given, but {self.name!r} has {CLASSES[self.name]}")
        if self.name == "digits":
            self._check_size(("train", "unlabeled", "early_stopping", "test"), DIGITS_EXAMPLES, "images")
        elif self.name == "fashion":
            self._check_size(("train", "unlabeled"), FASHION_EXAMPLES["train"], "training images")
            self._check_size(("test", "early_stopping"), FASHION_EXAMPLES["test"], "test images")
        return self

    def _check_size(self, splits: tuple[str, ...], available: int, what: str) -> None:
        total = sum(getattr(self, split) for split in splits)
        if total > available:
            raise ValueError(
                f"{' + '.join(splits)} = {total}, but {self.name!r} has {available} {what}; "
                "reduce one of them"
            )

    @property
    def known_classes(self) -> int | None:
        """The number of classes where it is known without reading the data."""
        return CLASSES.get(self.name, self.classes)
