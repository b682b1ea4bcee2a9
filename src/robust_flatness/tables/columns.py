"""Names of columns: built and parsed by the same few rules.

A quantity has one stem and up to five parts around it:

    [best_][train_|test_]stem[_xi][_std|_se][_seed_sd|_seed_se]

`best_` is the early-stopped checkpoint's value beside the last one's, `xi` a radius other than the main
one, `_std` and `_se` are the spread and standard error of a single measurement, `_seed_sd` and `_seed_se`
those over seeds.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Kind = Literal["error", "loss", "flatness", "number", "setting", "word"]

#: What a low value means.
MORE_ROBUST, FLATTER = "lower is more robust", "lower is flatter"

_XI = r"\d+(\.\d+)?(e-?\d+)?"
_SPREADS = {"std": "standard deviation of ", "se": "standard error of "}


@dataclass(frozen=True)
class Column:
    """A quantity of the results, with all its columns.

    >>> flatness = Column("avg_flatness_ce", "average-case flatness in CE", kind="flatness",
    ...                   splits="train", radii=True, spread=True, direction="lower is flatter")
    >>> flatness.name("train"), flatness.name(xi=0.25, spread="se")
    ('train_avg_flatness_ce', 'avg_flatness_ce_0.25_se')
    >>> flatness.parse("avg_flatness_ce_0.25").words
    'average-case flatness in CE (ξ = 0.25)'
    """

    stem: str
    words: str
    """As on the axes of figures, without the split."""
    kind: Kind = "number"
    """`error`: per cent from 0 to 100; `loss`: 0 and above; `flatness` and `number`: any number; these four
    are measures. `setting`: a number that says how it was measured; `word`: text."""
    splits: Literal["", "train", "both"] = ""
    """Which splits it is measured on: none is named; the test split is not named, the training split is;
    both are named."""
    radii: bool = False
    """Whether there are columns for radii other than the main one."""
    at: str = "(ξ = {xi:g})"
    """How words say the radius."""
    alone: bool = True
    """Whether there is a column without a radius."""
    spread: bool = False
    """Whether there are columns for the spread and the standard error of a measurement."""
    direction: str = ""
    """What a low value means, in words."""
    compared: bool = False
    """Whether the table of correlations sets it against RLoss and RErr; sharpness has a table of its own."""

    @property
    def is_measure(self) -> bool:
        return self.kind not in ("setting", "word")

    def name(self, split: str = "test", xi: float | None = None, spread: str = "") -> str:
        """The column's name; `xi` for a radius other than the main one, `spread` "std" or "se"."""
        named = self.splits == "both" or (self.splits == "train" and split == "train")
        prefix = f"{split}_" if named else ""
        return prefix + self.stem + (f"_{xi:g}" if xi is not None else "") + (f"_{spread}" if spread else "")

    @cached_property
    def _pattern(self) -> re.Pattern:
        split = {"": "", "train": "(?P<split>train_)?", "both": "(?P<split>test_|train_)"}[self.splits]
        xi = f"(_(?P<xi>{_XI})){'?' if self.alone else ''}" if self.radii else ""
        spread = "(_(?P<spread>std|se))?" if self.spread else ""
        return re.compile(
            f"(?P<best>best_)?{split}{re.escape(self.stem)}{xi}{spread}(_seed_(?P<seeds>sd|se))?"
        )

    def parse(self, name: str) -> "Name | None":
        """The parts of a column's name; None if it is not one of this quantity."""
        match = self._pattern.fullmatch(name) if self.stem in name else None
        if not match:
            return None
        found = {key: value for key, value in match.groupdict().items() if value}
        return Name(
            column=self,
            split=found.get("split", "test").removesuffix("_"),
            xi=float(found["xi"]) if "xi" in found else None,
            spread=found.get("spread", ""),
            best="best" in found,
            seeds=found.get("seeds", ""),
        )


@dataclass(frozen=True)
class Name:
    """The parts of a column's name."""

    column: Column
    split: str = "test"
    xi: float | None = None
    spread: str = ""
    best: bool = False
    seeds: str = ""

    @property
    def words(self) -> str:
        words = self.column.words
        if self.column.splits == "both":
            words = f"{self.split} {words}"
        elif self.split == "train":
            words += " on training examples"
        words += f" {self.column.at.format(xi=self.xi)}" if self.xi is not None else ""
        words = _SPREADS.get(self.spread, "") + words
        words += ", early-stopped" if self.best else ""
        return words + {"sd": ", standard deviation over seeds", "se": ", standard error over seeds"}.get(
            self.seeds, ""
        )

    @property
    def direction(self) -> str:
        return "" if self.spread or self.seeds else self.column.direction
