"""External networks in an experiment: the user's own, or of torchvision or RobustBench."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from robust_flatness.config.data import InputPath
from robust_flatness.config.values import AS_LIST, Positive, Real, Spec
from robust_flatness.config.variants import VariantSpec
from robust_flatness.files import canonical_json

#: Families of external networks, as in config/families.yaml.
EXTERNAL, ROBUSTBENCH = "external", "robustbench"
#: Beginnings of the names of models that are not the user's own functions.
LIBRARIES = ("torchvision:", "robustbench:")
_ROBUSTBENCH = r"robustbench:((cifar10|cifar100|imagenet)/\w+/)?[\w.-]+"
_MODEL = rf"^(torchvision:\w+|{_ROBUSTBENCH}|[\w.]+:\w+)$"


class NetworkSpec(Spec):
    """A network as `load_model` takes it, and its label."""

    model: Annotated[str, Field(pattern=_MODEL)]
    """`package.module:function` (without arguments), `torchvision:NAME`, `robustbench:NAME` or
    `robustbench:DATASET/THREAT/NAME`."""
    weights: InputPath | None = None
    """File .safetensors, .pt or .pth, or FILE:KEY where it holds several sets of weights; None: the
    function's, or the pretrained ones, which are downloaded."""
    mean: Annotated[tuple[Real, ...], AS_LIST, Field(min_length=1)] | None = None
    """Channel means, if the network expects normalised images, (x - mean) / std."""
    std: Annotated[tuple[Positive, ...], AS_LIST, Field(min_length=1)] | None = None
    label: str | None = None
    """Label in figures and tables; None: its name."""
    correlate: bool = False
    """Whether correlations and claims include it, as they include variants."""

    @model_validator(mode="after")
    def _check(self) -> "NetworkSpec":
        if len(self.mean or ()) != len(self.std or ()):
            raise ValueError("mean, std: give both, with a number for each channel")
        return self

    def job_text(self) -> str:
        """Return canonical JSON of the fields that its weights depend on, as passed to a job."""
        return canonical_json(self.model_dump(mode="json", include={"model", "weights", "mean", "std"}))

    def variant(self, slug: str) -> "NetworkVariant":
        """Return the network as an entry of the catalogue, named `slug`."""
        family = ROBUSTBENCH if self.model.startswith(f"{ROBUSTBENCH}:") else EXTERNAL
        return NetworkVariant(label=self.label or slug, family=family, network=self)


class NetworkVariant(VariantSpec):
    """An external network beside the training variants: measured, not trained."""

    network: NetworkSpec

    @property
    def trained(self) -> bool:
        return False


def weights_file(path: str | Path) -> tuple[Path, str | None]:
    """Return the path of a file and the key of `FILE:KEY`, None if there is none."""
    file, colon, key = str(path).rpartition(":")
    if colon and not Path(path).exists() and Path(file).exists():
        return Path(file), key
    return Path(path), None
