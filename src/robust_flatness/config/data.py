"""The dataset of an experiment and the sizes of its splits."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from robust_flatness.config.values import Count, Integer, Size, Spec

#: Number of examples in scikit-learn's bundled handwritten digits, known without loading them.
DIGITS_EXAMPLES = 1797


DIGITS_CLASSES = 10


class DataSpec(Spec):
    """A dataset and the sizes of its disjoint splits.

    `train` labelled training images, `unlabeled` images whose labels are withheld,
    `early_stopping` images for choosing the checkpoint (and the Hessian), `test` images for
    the measures.
    """

    name: Literal["digits", "npz"]
    path: str | None = None
    train: Count
    unlabeled: Size = 0
    early_stopping: Count
    test: Count
    classes: Annotated[Integer, Field(ge=2)] | None = None
    """Number of classes K; None: the highest training label plus one (`npz`), 10 (`digits`)."""

    @model_validator(mode="after")
    def _check(self) -> "DataSpec":
        if self.name == "npz" and not self.path:
            raise ValueError("path: the dataset 'npz' needs the path of an .npz file")
        if self.name == "digits":
            if self.path:
                raise ValueError(f"path: {self.path!r} given, but 'digits' comes with scikit-learn")
            if self.classes not in (None, DIGITS_CLASSES):
                raise ValueError(f"classes: {self.classes} given, but 'digits' has {DIGITS_CLASSES}")
            total = self.train + self.unlabeled + self.early_stopping + self.test
            if total > DIGITS_EXAMPLES:
                raise ValueError(
                    f"train + unlabeled + early_stopping + test = {total}, "
                    f"but 'digits' has {DIGITS_EXAMPLES} images; reduce one of them"
                )
        return self

    @property
    def known_classes(self) -> int | None:
        """The number of classes where it is known without reading the data."""
        return DIGITS_CLASSES if self.name == "digits" else self.classes
