"""Style of families and short names of variants. `use` sets the families of the experiment drawn."""

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from robust_flatness.config.variants import FamilySpec, load_families
from robust_flatness.folders import repository
from robust_flatness.tables.frames import catalogue
from robust_flatness.tables.schema import OTHER

_GREEK = {"lambda=": "λ=", "tau=": "τ=", "xi=": "ξ=", "epsilon=": "ε="}
#: The hyper-parameter at the end of a variant's name.
NUMBER = re.compile(r"-(\d+(?:\.\d+)?)$")
#: Line styles of families that share a colour, by their markers.
LINES = {"o": "-", "s": "--", "D": "-.", "^": ":"}
_in_use: dict[str, FamilySpec] = {}


def use(*own: Path) -> None:
    """Load the families of `config/families.yaml`, then of existing files `own`, which take precedence."""
    paths = (repository() / "config" / "families.yaml", *own)
    _in_use.clear()
    _in_use.update(load_families(*(path for path in paths if path.exists())))


def every() -> Mapping[str, FamilySpec]:
    """Return all families in the order of legends; the repository's until `use` is called."""
    if not _in_use:
        use()
    return _in_use


def family(name: str) -> FamilySpec:
    """Return the style of a family; unlisted ones are drawn as "other"."""
    return every().get(name) or every()[OTHER]


def line(name: str) -> dict[str, Any]:
    """Return the look of a family's curves: its colour, and a line style that stands for its marker."""
    look = family(name)
    return {"color": look.color, "linestyle": LINES.get(look.marker, "-"), "linewidth": 1.4}


def named() -> set[str]:
    """Return the variants whose names stand beside their points."""
    return {look.named for look in every().values() if look.named}


def variant(slug: str, label: str = "") -> str:
    """Return a variant's short name; `label` for one that is not in the catalogue."""
    known = catalogue().get(slug)
    name = (known.short or known.label) if known else label or slug
    for word, letter in _GREEK.items():
        name = name.replace(word, letter)
    return name


def name(row: Mapping, label: str = "") -> str:
    """Return a variant's short name (or `label`), and the value used in training if the name has another."""
    value = applied(row)
    return (label or variant(row["variant"], row["label"])) + (f" (here {value})" if value else "")


def applied(row: Mapping) -> str | None:
    """Return the value of the family's parameter used in training if it differs from the one in the name.

    >>> applied({"variant": "trades-6", "family": "trades", "setting_objective_weight": 0.125})
    '1/8'
    """
    number = NUMBER.search(row["variant"])
    value = row.get(f"setting_{family(row['family']).setting}")
    if number is None or not isinstance(value, int | float) or math.isnan(value):
        return None
    if math.isclose(value, float(number[1]), rel_tol=1e-6):
        return None
    fraction, plain = Fraction(value).limit_denominator(64), f"{value:.3g}"
    return str(fraction) if fraction == value and len(str(fraction)) < len(plain) else plain
