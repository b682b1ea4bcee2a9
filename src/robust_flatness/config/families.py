"""Families of variants: their style in figures, and the setting that varies within them."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from robust_flatness.config.values import Spec, load_yaml, parse

#: Colours by name: those of Okabe and Ito, and a dark grey.
PALETTE = {
    **{"black": "#000000", "dark": "#545454", "blue": "#0072B2", "sky": "#56B4E9", "green": "#009E73"},
    **{"orange": "#E69F00", "vermillion": "#D55E00", "purple": "#CC79A7"},
}


Color = Annotated[str, AfterValidator(lambda name: PALETTE.get(name, name)), Field(validate_default=True)]


class FamilySpec(Spec):
    """Style of a family; `config/families.yaml` explains each field."""

    label: str
    color: Color = "black"
    marker: str = "X"
    parameter: str | None = None
    setting: str | None = None
    named: str | None = None


def load_families(*paths: Path) -> dict[str, FamilySpec]:
    """Return the families of YAML files by name; a later file adds or replaces families."""
    found: dict[str, FamilySpec] = {}
    for path in paths:
        found |= parse(dict[str, FamilySpec], load_yaml(path), f"{path}: families")
    return found
