"""Networks of others in an experiment: one's own, torchvision's, RobustBench's."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from robust_flatness.config.values import Positive, Problems, Real, Spec, parse, parse_list
from robust_flatness.config.variants import VariantSpec, check_slug
from robust_flatness.errors import ConfigError
from robust_flatness.files import canonical_json

#: Families of networks of others that name none, as in config/families.yaml; the published tables have
#: RobustBench's too.
EXTERNAL, ROBUSTBENCH = "external", "robustbench"
NAMED = re.compile(
    r"torchvision:\w+|robustbench:((cifar10|cifar100|imagenet)/\w+/)?[\w.-]+|[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*"
)
#: Classes of RobustBench's datasets, and of torchvision's pretrained classifiers.
CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}


def check_model(value: str) -> str:
    """Which network, whether it is there or not."""
    if not NAMED.fullmatch(value):
        raise ValueError(
            "write package.module:function, torchvision:NAME, robustbench:NAME or "
            f"robustbench:dataset/threat/NAME with a dataset of {', '.join(CLASSES)}"
        )
    return value


Channels = Annotated[tuple[Real, ...], BeforeValidator(parse_list), Field(min_length=1)]
Scales = Annotated[tuple[Positive, ...], BeforeValidator(parse_list), Field(min_length=1)]


class NetworkSpec(Spec):
    """A network as `load_model` takes it, and how it is shown."""

    model: Annotated[str, AfterValidator(check_model)]
    """`package.module:function` (without arguments), `torchvision:NAME` or `robustbench:NAME`."""
    weights: str | None = None
    """File .safetensors, .pt or .pth; None: the function's, or the pretrained ones, which are downloaded."""
    mean: Channels | None = None
    """Of the channels, where the network expects normalised images: (x - mean) / std."""
    std: Scales | None = None
    label: str | None = None
    """In figures and tables; its name by default."""
    family: str | None = None
    """How it is drawn (config/families.yaml); None: `robustbench` for these, `external` for others."""
    correlate: bool = False
    """Whether it counts in correlations and claims, as a variant."""

    @model_validator(mode="after")
    def _check(self) -> "NetworkSpec":
        given = [len(values) for values in (self.mean, self.std) if values is not None]
        if len(given) == 1 or len(set(given)) > 1:
            raise ValueError("mean, std: give both, with a number for each channel")
        return self

    def job_text(self) -> str:
        """Canonical JSON of what its weights depend on, as handed to a job."""
        return canonical_json(self.model_dump(mode="json", include={"model", "weights", "mean", "std"}))

    @property
    def known_classes(self) -> int | None:
        """The number of classes where it is known without loading anything."""
        kind, _, name = self.model.partition(":")
        if kind == "torchvision" and self.weights is None:
            return CLASSES["imagenet"]
        return CLASSES[name.split("/")[0] if "/" in name else "cifar10"] if kind == "robustbench" else None


class NetworkVariant(VariantSpec):
    """A network of others beside the variants of training: measured, not trained."""

    network: NetworkSpec

    @property
    def trained(self) -> bool:
        return False


def parse_networks(
    networks: Mapping[str, NetworkSpec], taken: Iterable[str], classes: int | None
) -> dict[str, NetworkVariant]:
    """Networks of others as the tables name them: slug -> `NetworkVariant`.

    Raises
    ------
    ConfigError
        If a name cannot be used or is a variant's, or a network has other classes than the data.
    """
    problems, found = Problems(), {}
    for slug, network in networks.items():
        where = f"models.{slug}"
        with problems.collected():
            check_slug("models.", slug)
            if slug in taken:
                raise ConfigError(f"{where}: there is a variant of this name; choose another one")
            if classes and network.known_classes not in (None, classes):
                raise ConfigError(
                    f"{where}.model: {network.model!r} has {network.known_classes} classes, the data have "
                    f"{classes}"
                )
            family = ROBUSTBENCH if network.model.startswith(f"{ROBUSTBENCH}:") else EXTERNAL
            values: dict[str, Any] = {"label": network.label or slug, "family": network.family or family}
            found[slug] = parse(NetworkVariant, {**values, "network": network}, where)
    problems.raise_if_any()
    return found


def require_files(networks: Mapping[str, NetworkVariant]) -> None:
    """Before anything runs: whether the files of weights are there.

    Raises
    ------
    ConfigError
        If one is not: a line for each.
    """
    problems = Problems()
    for slug, variant in networks.items():
        path = variant.network.weights
        with problems.collected():
            if path is not None and not Path(path).is_file():
                raise ConfigError(f"models.{slug}.weights: {path}: no such file")
    problems.raise_if_any()
