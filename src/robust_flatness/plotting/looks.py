"""How families and variants are drawn and called, as `config/families.yaml` and `config/variants.yaml` say.

A process draws one experiment: `use` says which families it has.
"""

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from robust_flatness.config.families import PALETTE, FamilySpec, load_families
from robust_flatness.folders import repository
from robust_flatness.tables.frames import catalogue
from robust_flatness.tables.schema import OTHER

#: Greek letters, which labels spell out as the paper's tables do.
_GREEK = {"lambda": "λ", "tau": "τ", "xi": "ξ", "epsilon": "ε"}

_in_use: dict[str, FamilySpec] = {}


def file() -> Path:
    """The families of the repository."""
    return repository() / "config" / "families.yaml"


def use(*paths: Path) -> None:
    """Draw families as these files say, from now on; a later file adds to an earlier one."""
    found = load_families(*paths)
    _in_use.clear()
    _in_use.update(found)


def every() -> Mapping[str, FamilySpec]:
    """All families, in the order of legends; the repository's where `use` named none."""
    if not _in_use:
        use(file())
    return _in_use


def family(name: str) -> FamilySpec:
    """How a family is drawn; one without a look of its own is drawn as "other"."""
    return every().get(name) or every()[OTHER]


def color(name: str) -> str:
    """A family's colour."""
    given = family(name).color
    return PALETTE.get(given, given)


def methods() -> dict[str, list[str]]:
    """Methods with a hyper-parameter, as their panels are headed, each with the families that belong
    to it."""
    found: dict[str, list[str]] = {}
    for name, look in every().items():
        if look.parameter:
            found.setdefault(look.parameter, []).append(name)
    return found


def variant(slug: str, label: str = "") -> str:
    """A variant's name where there is little room; `label` for one that the catalogue lacks."""
    known = catalogue().get(slug)
    return short((known.short or known.label) if known else label or slug)


def applied(row: Mapping) -> str | None:
    """The value of the family's parameter that a variant was trained with, where it is not the one in
    its name; `row` is one of models.csv.

    >>> applied({"variant": "trades-6", "family": "trades", "setting_objective_weight": 0.125})
    '1/8'
    """
    field = family(row["family"]).setting
    number = re.search(r"-(\d+(?:\.\d+)?)$", row["variant"])
    value = row.get(f"setting_{field}")
    if number is None or not isinstance(value, int | float) or math.isnan(value):
        return None
    return None if math.isclose(value, float(number[1]), rel_tol=1e-6) else shown(value)


def shown(value: float) -> str:
    """A number in few characters, as a fraction where that is shorter.

    >>> shown(0.0625), shown(0.5), shown(0.0071758)
    ('1/16', '0.5', '0.00718')
    """
    fraction = Fraction(value).limit_denominator(64)
    plain = f"{value:.3g}"
    return str(fraction) if fraction == value and len(str(fraction)) < len(plain) else plain


def name(row: Mapping) -> str:
    """A variant's short name, with the value that was applied where its name says another."""
    value = applied(row)
    return variant(row["variant"], row["label"]) + (f" (here {value})" if value else "")


def short(label: str) -> str:
    """A label with Greek letters, as in formulas.

    >>> short("TRADES lambda=6")
    'TRADES λ=6'
    """
    for word, letter in _GREEK.items():
        label = label.replace(f"{word}=", f"{letter}=")
    return label
