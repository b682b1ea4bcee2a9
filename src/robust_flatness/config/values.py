"""Numbers and lists as people write them, the base class of all specs, validation, and YAML files.

Nothing in this package imports torch or numpy: planning must start in a fraction of a second.
"""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)

from robust_flatness.errors import ConfigError
from robust_flatness.files import canonical_json

#: Names of experiments and variants, which become folders.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: A device as torch names it, or `auto` for a GPU if there is one.
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|mps")
#: Union branches in the path of a pydantic error: not part of the field's name.
UNION_BRANCH = re.compile(r"function-|literal\[|tuple\[|(count|ranges|\[key\])$")

#: Error of pydantic's for a default that follows from a field with a problem of its own.
FOLLOWING = "default_factory_not_called"


def parse_number(value: Any) -> Any:
    """Return the number in 8, 0.5, "1e-3", "8/255" or "0.15/4", and anything else unchanged."""
    if isinstance(value, bool):
        raise ValueError("expected a number")
    if isinstance(value, str):
        parts = value.split("/")
        try:
            numbers = [float(part) for part in parts]
            if len(numbers) == 2 and numbers[1] != 0:
                return numbers[0] / numbers[1]
            if len(numbers) == 1:
                return int(value) if re.fullmatch(r"\s*[+-]?\d+\s*", value) else numbers[0]
        except ValueError:
            pass
    return value


def parse_list(value: Any) -> Any:
    """Return a list, also from "a,b,c" or a single number, as the command line passes them."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int | float) else value


#: Annotation of tuples given as `parse_list` takes them.
AS_LIST = BeforeValidator(parse_list)


def _check_radii(value: tuple[float, ...]) -> tuple[float, ...]:
    if not value or len(set(value)) < len(value):
        raise ValueError("name at least one radius, each once")
    return value


def _check_epsilon(value: float, info: ValidationInfo) -> float:
    if value > 1 and (info.data or {}).get("norm", "linf") == "linf":
        raise ValueError("Input should be less than or equal to 1")
    return value


def _check_name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError("use at most 100 letters, digits, '.', '_' and '-', starting with a letter or digit")
    return value


def _check_device(value: str) -> str:
    if not DEVICE.fullmatch(value):
        raise ValueError("use auto, cpu, cuda, cuda:N (N counts from 0) or mps")
    return value


def _parse_variants(value: Any) -> Any:
    return "all" if value in ("all", ["all"]) else parse_list(value)


def _as_number(kind: Any, **bounds: Any) -> Any:
    return Annotated[kind, BeforeValidator(parse_number, json_schema_input_type=float | str), Field(**bounds)]


Real = _as_number(float, allow_inf_nan=False)
Positive = Annotated[Real, Field(gt=0)]
#: Norm of perturbations. JSON leaves the default out, so that older fingerprints of settings stay valid.
Norm = Annotated[Literal["linf", "l2"], Field(exclude_if=lambda norm: norm == "linf")]
#: Radius of a ball in [0, 1]^D: at most 1, except in the L2 norm (a field `norm` stands before this one).
Epsilon = Annotated[Positive, AfterValidator(_check_epsilon)]
NonNegative = Annotated[Real, Field(ge=0)]
Probability = Annotated[Real, Field(ge=0, le=1)]
Integer = _as_number(int, lt=2**63)
Count = Annotated[Integer, Field(ge=1)]
Size = Annotated[Integer, Field(ge=0)]
Radii = Annotated[tuple[Positive, ...], AS_LIST, AfterValidator(_check_radii)]
Name = Annotated[str, AfterValidator(_check_name)]
Device = Annotated[str, AfterValidator(_check_device)]
Variants = Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(_parse_variants)]
#: `auto`: bfloat16 if the job's device computes it fast, else float32.
Precision = Literal["float32", "bfloat16", "auto"]


class Spec(BaseModel):
    """Base class of all specs: immutable, no unknown fields."""

    model_config = {"frozen": True, "extra": "forbid"}

    def json_text(self) -> str:
        """Return canonical JSON, as passed to a job."""
        return canonical_json(self.model_dump(mode="json"))


def meant(name: str, known: Iterable[str]) -> str:
    """Return `, did you mean ...?` if one of the known names is close to `name`, else an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the specs within an annotation: itself, or those of a list, a mapping, a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _fields_at(spec: Any, location: Iterable[str | int]) -> list[str]:
    """Return the fields of the spec at `location` within `spec`; none if it is ambiguous."""
    models = _models_in(spec)
    for part in map(str, location):
        fields = [field for model in models for name, field in model.model_fields.items() if name == part]
        tagged = [
            model
            for model in models
            if any(part in get_args(field.annotation) for field in model.model_fields.values())
        ]
        models = [model for field in fields for model in _models_in(field.annotation)] or tagged or models
    return list(models[0].model_fields) if len(models) == 1 else []


def _line(spec: Any, problem: Any, where: str) -> str:
    """Return one line for an error of pydantic's: field, message, value given."""
    parts = [part for part in map(str, problem["loc"]) if not UNION_BRANCH.match(part)]
    path = ".".join(part if part.isprintable() and part else repr(part) for part in parts)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        allowed = _fields_at(spec, problem["loc"][:-1])
        message = f"unknown field{meant(parts[-1], allowed)}"
        message += f"; allowed are {', '.join(allowed)}" if allowed else ""
    if problem["type"] != "missing" and not isinstance(problem["input"], dict):
        message += f" (given: {problem['input']!r:.200})"
    field = ".".join(part for part in (where, path) if part)
    return f"{field}: {message}" if field else message


def parse(spec: Any, values: Any, where: str = "") -> Any:
    """Return `values` validated as `spec`, a spec's class or another type; a ConfigError has one line per
    problem: the field, below `where`, the value given, what is allowed."""
    try:
        return TypeAdapter(spec).validate_python(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [_line(spec, found, where) for found in problems if found["type"] != FOLLOWING]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


class _Loader(yaml.SafeLoader):
    """YAML loader that refuses a key given twice; others take the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        values = [key.value for key in keys]
        for place, key in enumerate(keys):
            if key.value in values[:place]:
                message = f"{key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
        return super().construct_mapping(node, deep)


def load_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file."""
    try:
        value = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{path}: not valid YAML, line {line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # such as impossible dates
        raise ConfigError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of fields, found {type(value).__name__}")
    return value
