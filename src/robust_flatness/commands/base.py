"""The application, and what its commands share."""

import json
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from robust_flatness.config import ConfigError, parse, parse_number
from robust_flatness.files import write_text

#: Time and CPU time when the command began; the library hands nothing from its start to its end.
_began = [0.0, 0.0]


def clocks() -> tuple[float, float]:
    """Time and this process' CPU time, in seconds."""
    return time.monotonic(), time.process_time()


def write_timings(result: Any, timings: Path | None) -> None:
    """After a command that has succeeded: seconds and CPU seconds since it began, peak memory (MB)."""
    if timings is None:
        return
    seconds, cpu = (now - then for now, then in zip(clocks(), _began, strict=True))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    with suppress(OSError):  # what was computed counts
        row = f"{seconds:.2f}\t{cpu:.2f}\t{memory:.0f}"
        write_text(timings, f"s\tcpu_s\tmax_rss_mb\n{row}\n", durable=False)


class Commands(TyperGroup):
    """The commands with whole sentences, which the help would else cut at the terminal's width."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        helps = {name: self.get_command(ctx, name).help or "" for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, " ".join(text.split("\n\n")[0].split())) for name, text in helps.items()]
            )


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    result_callback=write_timings,
    rich_markup_mode=None,  # its panels cut the names of options on terminals of 80 columns
)

Spec = Annotated[str, typer.Option(help="Settings as JSON, or a file that holds them.")]
Data = Annotated[Path, typer.Option(help="Prepared dataset (.safetensors) from `prepare`.")]
Seed = Annotated[int, typer.Option(help="Seed from which all random streams derive.", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Threads = Annotated[int, typer.Option(help="Torch's threads; another number gives other bits.", min=1)]
Checkpoints = Annotated[list[Path], typer.Argument(help="Checkpoints (.safetensors).")]
Output = Annotated[Path, typer.Option(help="File to write.")]


def read_spec(kind: type, text: str) -> Any:
    """A spec from JSON text or from a file of it."""
    try:
        if not text.lstrip().startswith("{"):
            text = Path(text).read_text(encoding="utf-8")
        values = json.loads(text)
    except OSError as error:
        raise ConfigError(f"--spec: {text!r} is neither JSON nor a file ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"--spec: not valid JSON ({error})") from None
    return parse(kind, values, "--spec")


@app.callback()
def common(
    timings: Annotated[Path | None, typer.Option(help="File for time and memory taken (.tsv).")] = None,
) -> None:
    """Adversarial training, robustness and flatness of the robust loss, step by step."""
    _began[:] = clocks()


def positive(option: str, text: str) -> float:
    """A number greater than 0 from the command line, fractions like 8/255 allowed."""
    value = parse_number(text)
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigError(f"{option}: {text!r} given; expected a number greater than 0, e.g. 0.03 or 8/255")
    return float(value)


def numbers(option: str, text: str) -> list[float] | None:
    """Numbers from the command line, such as 0.49,0.48,0.45."""
    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError:
        raise ConfigError(f"{option}: {text!r} given; expected numbers such as 0.49,0.48,0.45") from None
