"""The catalogue of training variants and their families."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from robust_flatness.config.values import Name, Positive, Spec, load_yaml, meant, parse

#: The variant that is the baseline itself.
BASELINE = "at"
#: Colours by name: those of Okabe and Ito, and a dark grey.
PALETTE = {
    **{"black": "#000000", "dark": "#545454", "blue": "#0072B2", "sky": "#56B4E9", "green": "#009E73"},
    **{"orange": "#E69F00", "vermillion": "#D55E00", "purple": "#CC79A7"},
}


class VariantOverride(Spec):
    """Changes of a variant; also those that an experiment makes under `overrides`."""

    scale: dict[str, Positive | Literal[0]] = Field(default_factory=dict)
    set: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)


class VariantSpec(VariantOverride):
    """A training variant: changes relative to the AT baseline.
    `scale` multiplies a number of the baseline, `set` replaces a field of `TrainingSpec`, `model`
    one of `ModelSpec`. A variant with `derived_from` is made from another one's checkpoints by
    scaling its convolutions by `convolution_scale`, without training."""

    label: str
    short: str | None = None
    """Label where space is limited; None: `label`."""
    family: str
    derived_from: str | None = None
    convolution_scale: Positive | None = None

    @model_validator(mode="after")
    def _check(self) -> "VariantSpec":
        if self.derived_from is not None and self.convolution_scale is None:
            raise ValueError("convolution_scale: missing; a derived variant needs it")
        return self

    @property
    def trained(self) -> bool:
        """Whether the variant is trained, not derived from another one."""
        return self.derived_from is None

    def overridden(self, override: VariantOverride) -> "VariantSpec":
        """Return this variant with the changes of an experiment; a value set there replaces a scaled one."""
        scale = {k: v for k, v in self.scale.items() if k not in override.set} | override.scale
        update = {"scale": scale, "set": self.set | override.set, "model": self.model | override.model}
        return self.model_copy(update=update)


def load_variants(path: Path) -> dict[str, VariantSpec]:
    """Return the catalogue of variants in a YAML file: slug -> `VariantSpec`."""
    return parse(dict[Name, VariantSpec], load_yaml(path), f"{path}: variants")


def _hex(name: str) -> str:
    """Return the colour of a name, of `PALETTE` or matplotlib's, or of "#rrggbb", as the latter."""
    if name in PALETTE or re.fullmatch("#[0-9A-Fa-f]{6}", name):
        return PALETTE.get(name, name)
    from matplotlib.colors import to_hex  # which planning does without where it can

    try:
        return to_hex(name)
    except ValueError:
        raise ValueError(f"no colour{meant(name, PALETTE)}; {', '.join(PALETTE)} or #rrggbb") from None


Color = Annotated[str, AfterValidator(_hex), Field(validate_default=True)]
#: A marker of matplotlib, one character.
Marker = Annotated[str, Field(pattern=r"^[ov^<>8sp*hHDdPX.,+x|_1234]$")]


class FamilySpec(Spec):
    """Style of a family of variants in figures; `config/families.yaml` explains each field."""

    label: str
    color: Color = "black"
    marker: Marker = "X"
    parameter: str | None = None
    setting: str | None = None
    named: str | None = None


def load_families(*paths: Path) -> dict[str, FamilySpec]:
    """Return the families of YAML files by name; a later file adds or replaces families."""
    found: dict[str, FamilySpec] = {}
    for path in paths:
        found |= parse(dict[str, FamilySpec], load_yaml(path), f"{path}: families")
    return found
