"""Families of variants: how they look in figures, and what varies within them."""

from collections.abc import Mapping
from pathlib import Path

from robust_flatness.config.values import Spec, load_yaml, parse

#: Colours by name; those of Okabe and Ito, and a dark grey.
PALETTE = {
    **{"black": "#000000", "dark": "#545454", "blue": "#0072B2", "sky": "#56B4E9", "green": "#009E73"},
    **{"orange": "#E69F00", "vermillion": "#D55E00", "purple": "#CC79A7"},
}


class FamilySpec(Spec):
    """How a family is drawn; `config/families.yaml` says what each field means."""

    label: str
    color: str = "black"
    marker: str = "X"
    parameter: str | None = None
    setting: str | None = None
    named: str | None = None


def load_families(*paths: Path) -> dict[str, FamilySpec]:
    """The families of one or several YAML files: name -> `FamilySpec`; a later file adds families or
    replaces those of the same name.

    Raises
    ------
    ConfigError
        If a file cannot be read, or a family has an unknown or missing field.
    """
    found: dict[str, FamilySpec] = {}
    for path in paths:
        found |= parse_families(load_yaml(path), f"{path}: ")
    return found


def parse_families(values: Mapping, where: str = "families.") -> dict[str, FamilySpec]:
    """A mapping from YAML as families: name -> `FamilySpec`."""
    return {name: parse(FamilySpec, value, f"{where}{name}") for name, value in values.items()}
