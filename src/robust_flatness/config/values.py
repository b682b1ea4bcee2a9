"""Types of settings, the base class of all specs, validation, and YAML files.
Nothing in this package imports torch or numpy: planning must start in a fraction of a second."""

import contextlib
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from robust_flatness.errors import ConfigError
from robust_flatness.files import canonical_json

#: Union branches in the path of a pydantic error, which are not part of the field's name.
UNION_BRANCH = re.compile(r"function-|literal\[|tuple\[|constrained-|(count|ranges|\[key\])$")


def parse_fraction(value: Any) -> Any:
    """Return the number in "8/255" or "0.15/4", and anything else but a bool unchanged."""
    if isinstance(value, bool):
        raise ValueError("expected a number")
    if isinstance(value, str) and value.count("/") == 1:
        with contextlib.suppress(ValueError, ZeroDivisionError):
            numerator, denominator = map(float, value.split("/"))
            return numerator / denominator
    return value


def parse_list(value: Any) -> Any:
    """Return a list, also from "a,b,c" or a single number, as the command line passes them."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int | float) else value


def _require_distinct(value: Any) -> Any:
    if isinstance(value, tuple) and len(set(value)) < len(value):
        raise ValueError("name each once")
    return value


def _check_epsilon(value: float, info: ValidationInfo) -> float:
    if value > 1 and (info.data or {}).get("norm", "linf") == "linf":
        raise ValueError("Input should be less than or equal to 1")
    return value


#: Annotations of tuples: converted by `parse_list`; without duplicates.
AS_LIST, DISTINCT = BeforeValidator(parse_list), AfterValidator(_require_distinct)
_NUMBER = BeforeValidator(parse_fraction, json_schema_input_type=float | str)
Real = Annotated[float, _NUMBER, Field(allow_inf_nan=False)]
Positive = Annotated[Real, Field(gt=0)]
#: Norm of perturbations. JSON leaves the default out, so that older fingerprints of settings stay valid.
Norm = Annotated[Literal["linf", "l2"], Field(exclude_if=lambda norm: norm == "linf")]
#: Radius of a ball in [0, 1]^D: at most 1, except in the L2 norm (a field `norm` stands before this one).
Epsilon = Annotated[Positive, AfterValidator(_check_epsilon)]
NonNegative = Annotated[Real, Field(ge=0)]
Probability = Annotated[Real, Field(ge=0, le=1)]
Integer = Annotated[int, _NUMBER, Field(lt=2**63)]
Count = Annotated[Integer, Field(ge=1)]
Size = Annotated[Integer, Field(ge=0)]
Radii = Annotated[tuple[Positive, ...], Field(min_length=1), AS_LIST, DISTINCT]
Seeds = Annotated[tuple[Size, ...], Field(min_length=1), AS_LIST, DISTINCT]
#: Name of an experiment or a variant, which becomes a folder.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
#: Name of a device in torch, or `auto` for a GPU if there is one.
Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")]
_VARIANTS = BeforeValidator(lambda value: "all" if value in ("all", ["all"]) else parse_list(value))
Variants = Annotated[Literal["all"] | tuple[str, ...], _VARIANTS, DISTINCT]
#: `auto`: bfloat16 if it is fast on the job's device, else float32.
Precision = Literal["float32", "bfloat16", "auto"]


class Spec(BaseModel):
    """Base class of all specs: immutable, no unknown fields."""

    model_config = {"frozen": True, "extra": "forbid"}

    @model_validator(mode="before")
    @classmethod
    def _with_class(cls, values: Any) -> Any:
        """Pair the value of an unknown field with this class, whose fields the error message lists."""
        if not isinstance(values, Mapping):
            return values
        return {name: value if name in cls.model_fields else (cls, value) for name, value in values.items()}

    def json_text(self) -> str:
        """Return canonical JSON, as passed to a job."""
        return canonical_json(self.model_dump(mode="json"))


def meant(name: str, known: Iterable[str]) -> str:
    """Return `, did you mean ...?` if one of the known names is close to `name`, else an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _line(problem: Any, where: str) -> str:
    """Return an error of pydantic in one line: field, message, value given."""
    parts = [part for part in map(str, problem["loc"]) if not UNION_BRANCH.match(part)]
    path = ".".join(part if part.isprintable() and part else repr(part) for part in parts)
    message, given = problem["msg"].removeprefix("Value error, "), problem["input"]
    if problem["type"] == "extra_forbidden":
        model, given = given
        fields = [*model.model_fields]
        message = f"unknown field{meant(parts[-1], fields)}; allowed are {', '.join(fields)}"
    if problem["type"] != "missing" and not isinstance(given, dict):
        message += f" (given: {given!r:.200})"
    field = ".".join(part for part in (where, path) if part)
    return f"{field}: {message}" if field else message


def parse(spec: Any, values: Any, where: str = "") -> Any:
    """Return `values` validated as `spec`, a class of specs or another type. A `ConfigError` has one line per
    problem: `where` and the field, the value given, what is allowed."""
    try:
        return TypeAdapter(spec).validate_python(values)
    except ValidationError as error:
        # a default that follows from an invalid field is no problem of its own
        given = (p for p in error.errors(include_url=False) if p["type"] != "default_factory_not_called")
        raise ConfigError("\n".join(dict.fromkeys(_line(found, where) for found in given))) from None


class _Loader(yaml.SafeLoader):
    """YAML loader that refuses duplicate keys, of which yaml.SafeLoader takes the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for place, key in enumerate(keys):
            if key.value in [earlier.value for earlier in keys[:place]]:
                message = f"{key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file."""
    try:
        with open(path, encoding="utf-8") as file:
            value = yaml.load(file, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of fields, found {type(value).__name__}")
    return value
