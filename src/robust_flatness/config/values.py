"""Numbers and lists as people write them, and what all specs share.

Nothing in this package imports torch or numpy: planning must start in a fraction of a second.
"""

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from robust_flatness.errors import ConfigError
from robust_flatness.files import canonical_json

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


#: Names become folders.
LONGEST_NAME = 100


def parse_number(value: Any) -> Any:
    """Numbers as people write them: 8, 0.5, "1e-3", "8/255", "0.15/4". Anything else is returned
    unchanged, for the validation to complain about."""
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


def check_radii(value: tuple[float, ...]) -> tuple[float, ...]:
    """Radii name columns of the results, the first is the main one: at least one, each once."""
    if not value or len(set(value)) < len(value):
        raise ValueError("name at least one radius, each once")
    return value


def parse_list(value: Any) -> Any:
    """A list, also from "a,b,c" or a single value, as the command line gives them."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int | float) else value


Real = Annotated[
    float, BeforeValidator(parse_number, json_schema_input_type=float | str), Field(allow_inf_nan=False)
]


Positive = Annotated[Real, Field(gt=0)]


NonNegative = Annotated[Real, Field(ge=0)]


Probability = Annotated[Real, Field(ge=0, le=1)]


Integer = Annotated[int, BeforeValidator(parse_number, json_schema_input_type=float | str), Field(lt=2**63)]


Count = Annotated[Integer, Field(ge=1)]


Size = Annotated[Integer, Field(ge=0)]


Radii = Annotated[tuple[Positive, ...], BeforeValidator(parse_list), AfterValidator(check_radii)]


#: `auto`: bfloat16 where the device that a job runs on is fast at it, else float32.
Precision = Literal["float32", "bfloat16", "auto"]


#: A device as torch names it, or `auto` for a GPU where there is one.
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|mps")


def check_device(value: str) -> str:
    """A device, whether it is there or not."""
    if not DEVICE.fullmatch(value):
        raise ValueError("give auto, cpu, cuda, cuda:N (N counts from 0) or mps")
    return value


def parse_variants(value: Any) -> Any:
    """As `parse_list`; "all" stands for all variants of the experiment."""
    parsed = value if value == "all" else parse_list(value)
    return "all" if parsed == ["all"] else parsed


Variants = Annotated[Literal["all"] | tuple[str, ...], BeforeValidator(parse_variants)]


class Spec(BaseModel):
    """Base of all specs: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def json_text(self) -> str:
        """Canonical JSON, as handed to a job."""
        return canonical_json(self.model_dump(mode="json"))


UNION_BRANCH = re.compile(r"(function-|literal\[|tuple\[|(count|ranges)$)")


def shown(value: Any, length: int = 200) -> str:
    """`value` as it is quoted in a message, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # integers of more than 4,300 digits; endless nesting
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= length else f"{text[:length]}..."


def meant(name: str, known: Iterable[str]) -> str:
    """`, did you mean ...?` where one of the names known is close to `name`."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _specs_in(annotation: Any) -> list[type[BaseModel]]:
    """The specs within an annotation: itself, or those of a list, a mapping, a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [spec for part in get_args(annotation) for spec in _specs_in(part)]


def _fields_at(spec: type[BaseModel], location: Iterable[str | int]) -> list[str]:
    """The fields of the spec that lies at `location` within `spec`; none where that is unclear."""
    specs = [spec]
    for part in map(str, location):
        if len(specs) == 1 and part in specs[0].model_fields:
            specs = _specs_in(specs[0].model_fields[part].annotation)
        elif len(specs) > 1:  # the tag of a union's branch, after the index in a list
            tagged = [
                spec
                for spec in specs
                if any(part in get_args(field.annotation) for field in spec.model_fields.values())
            ]
            specs = tagged or specs
    return list(specs[0].model_fields) if len(specs) == 1 else []


def parse(spec: type[Spec], values: Any, where: str = "") -> Any:
    """`values` validated as `spec`.

    Raises
    ------
    ConfigError
        One line per problem: the field, the value given, what is allowed.
    """
    try:
        return spec.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            # branches of a union ("literal['all']", "function-before[...]") are no part of a field's name
            parts = (part for part in map(str, problem["loc"]) if not UNION_BRANCH.match(part))
            path = ".".join(part if part and part.isprintable() else repr(part) for part in parts)
            field = ".".join(part for part in (where, path) if part) or spec.__name__
            message = problem["msg"].removeprefix("Value error, ")
            given = (
                ""
                if problem["type"] in {"missing"} or isinstance(problem["input"], dict)
                else f" (given: {shown(problem['input'])})"
            )
            if problem["type"] == "extra_forbidden":
                allowed = _fields_at(spec, problem["loc"][:-1])
                message = f"unknown field{meant(str(problem['loc'][-1]), allowed)}"
                message += f"; allowed are {', '.join(allowed)}" if allowed else ""
            lines.append(f"{field}: {message}{given}")
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


class Problems:
    """Collects the problems of all levels, so that they are told at once.

    >>> problems = Problems()
    >>> with problems.collected():
    ...     raise ConfigError("epsilon: missing")
    >>> with problems.collected():
    ...     raise ConfigError("data.train: missing")
    >>> problems.lines
    ['epsilon: missing', 'data.train: missing']
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Keep the message of a `ConfigError` raised in the block, which then ends."""
        try:
            yield
        except ConfigError as error:
            self.lines += str(error).splitlines()

    def raise_if_any(self) -> None:
        """Raise one `ConfigError`, a line for each problem."""
        if self.lines:
            raise ConfigError("\n".join(dict.fromkeys(self.lines)))


class _Loader(yaml.SafeLoader):
    """YAML that means one thing: of a key given twice, the others that read it would take the last one and
    say nothing, and 060 would be 48."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise _refused(key, f"{key.value!r} is given twice, in lines {lines[key.value]} and {line}")
            lines[key.value] = line
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if re.match(r"[-+]?0[0-7_]*[0-7]|.*:", node.value):
            raise _refused(
                node, f"line {node.start_mark.line + 1}: {node.value} would not be read as a decimal number"
            )
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _refused(node: yaml.Node, message: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, message, node.start_mark)


def _reason(error: Exception) -> str:
    """Why a text is no YAML, in one line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None or isinstance(error, yaml.constructor.ConstructorError):
        return getattr(error, "problem", None) or (str(error).splitlines() or ["?"])[0]
    if "'\\t'" in error.problem:
        return f"line {mark.line + 1}: a tab; write spaces instead"
    expected = f"{error.context} " if (error.context or "").startswith("expected") else ""
    return f"line {mark.line + 1}: {expected}{error.problem}"


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises
    ------
    ConfigError
        If the file is missing, is no YAML, gives a key twice, or holds something else.
    """
    try:
        value = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # impossible dates, endless nesting
        raise ConfigError(f"{path}: not valid YAML ({_reason(error)})") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of fields, found {type(value).__name__}")
    return value
