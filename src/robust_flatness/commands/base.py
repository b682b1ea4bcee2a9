"""The application, and options that its commands share."""

import atexit
import json
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from robust_flatness.config import ConfigError, parse
from robust_flatness.files import write_text

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Spec = Annotated[str, typer.Option(help="Settings as JSON, or a file that holds them.")]
Data = Annotated[Path, typer.Option(help="Prepared dataset (.safetensors) from `prepare`.")]
Seed = Annotated[int, typer.Option(help="Random seed from which all random streams derive.", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Threads = Annotated[int, typer.Option(help="Threads of torch; rounding depends on their number.", min=1)]
Checkpoints = Annotated[list[Path], typer.Argument(help="Checkpoints (.safetensors).")]
Output = Annotated[Path, typer.Option(help="File to write.")]
#: Decorator of the commands of the workflow's steps.
step = app.command(rich_help_panel="Steps of the workflow")


@app.callback()
def common(
    timings: Annotated[Path | None, typer.Option(help="File for time and memory taken (.tsv).")] = None,
) -> None:
    """Adversarial training, robustness, and flatness of the robust loss."""
    if timings is not None:
        atexit.register(_write_timings, timings, time.monotonic(), time.process_time())


def _write_timings(path: Path, began: float, cpu_began: float) -> None:
    """Write seconds and CPU seconds since the command began, and the peak memory (MB)."""
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu_began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    with suppress(OSError):
        write_text(path, f"s\tcpu_s\tmax_rss_mb\n{seconds:.2f}\t{cpu:.2f}\t{memory:.0f}\n")


def parsed(kind: type, text: str) -> Any:
    """Parse settings from JSON text, or from a file that holds it."""
    try:
        if not text.lstrip().startswith("{"):
            text = Path(text).read_text(encoding="utf-8")
        values = json.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--spec: {text!r:.200} is neither JSON nor a file of JSON ({error})") from None
    return parse(kind, values, "--spec")
