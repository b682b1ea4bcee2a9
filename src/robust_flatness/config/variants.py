"""The catalogue of training variants."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from robust_flatness.config.values import (
    LONGEST_NAME,
    NAME,
    Positive,
    Problems,
    Spec,
    load_yaml,
    parse,
    shown,
)
from robust_flatness.errors import ConfigError

#: The variant that is the baseline itself.
BASELINE = "at"


class VariantSpec(Spec):
    """A training variant: changes relative to the AT baseline.

    `scale` multiplies a number of the baseline, `set` replaces a field of `TrainingSpec`, `model`
    one of `ModelSpec`. A variant with `derived_from` is made from another one's checkpoints by
    scaling its convolutions by `convolution_scale`, without training.
    """

    label: str
    short: str | None = None
    """Its name where there is little room; the label by default."""
    family: str
    scale: dict[str, Positive | Literal[0]] = Field(default_factory=dict)
    set: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)
    derived_from: str | None = None
    convolution_scale: Positive | None = None

    @property
    def trained(self) -> bool:
        """Whether it is trained, not made from another one."""
        return self.derived_from is None

    def overridden(self, override: "VariantOverride") -> "VariantSpec":
        """This variant with an experiment's own values; a value set there replaces a scaled one."""
        kept = {k: v for k, v in self.scale.items() if k not in override.set}
        return self.model_copy(
            update={
                "scale": {**kept, **override.scale},
                "set": {**self.set, **override.set},
                "model": {**self.model, **override.model},
            }
        )


class VariantOverride(Spec):
    """An experiment's own values for one variant, where the scale of its network asks for it."""

    scale: dict[str, Positive | Literal[0]] = Field(default_factory=dict)
    set: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)


def load_variants(path: Path) -> dict[str, VariantSpec]:
    """The catalogue of variants from a YAML file: slug -> `VariantSpec`."""
    return parse_variants(load_yaml(path), f"{path}: ")


def parse_variants(
    values: Mapping[Any, Any], where: str = "own_variants.", known: Mapping[str, VariantSpec] | None = None
) -> dict[str, VariantSpec]:
    """A mapping from YAML as variants: slug -> `VariantSpec`; they may be derived from those `known`.

    Raises
    ------
    ConfigError
        If a name cannot be used, or a variant has an unknown, missing or impossible field: a line for
        each problem.
    """
    problems, found = Problems(), {}
    for slug, value in values.items():
        with problems.collected():
            check_slug(where, slug)
            if known and slug in known:
                raise ConfigError(f"{where}{slug}: there is such a variant; change it under overrides")
            found[slug] = parse(VariantSpec, value, f"{where}{slug}")
    for slug, variant in found.items():
        with problems.collected():
            _check_source(f"{where}{slug}", variant, {**(known or {}), **found})
    problems.raise_if_any()
    return found


def check_slug(where: str, slug: Any) -> None:
    """Raise `ConfigError` unless `slug` can name a variant, and so its folder."""
    if not isinstance(slug, str) or not NAME.fullmatch(slug) or len(slug) > LONGEST_NAME:
        raise ConfigError(
            f"{where}{shown(slug)} cannot name a variant; use at most {LONGEST_NAME} letters, "
            "digits, '.', '_' and '-', starting with a letter or digit"
        )


def _check_source(where: str, variant: VariantSpec, known: Mapping[str, VariantSpec]) -> None:
    if variant.derived_from is None:
        return
    source = known.get(variant.derived_from)
    if source is None or not source.trained:
        raise ConfigError(
            f"{where}.derived_from: {variant.derived_from!r} given; expected a variant that is trained"
        )
    if variant.convolution_scale is None:
        raise ConfigError(f"{where}.convolution_scale: missing; a derived variant needs it")
