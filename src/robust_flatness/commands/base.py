"""The application, and options that its commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Json

from robust_flatness.config import parse

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
    help="Adversarial training, robustness, and flatness of the robust loss.",
)  # fmt: skip

Spec = Annotated[str, typer.Option(help="Settings as JSON.")]
Data = Annotated[Path, typer.Option(help="Prepared dataset (.safetensors) from `prepare`.")]
Seed = Annotated[int, typer.Option(help="Random seed from which all random streams derive.", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Threads = Annotated[int, typer.Option(help="Threads of torch; rounding depends on their number.", min=1)]
Checkpoints = Annotated[list[Path], typer.Argument(help="Checkpoints (.safetensors).")]
Output = Annotated[Path, typer.Option(help="File to write.")]
#: Decorator of the commands of the workflow's steps.
step = app.command(rich_help_panel="Steps of the workflow")


def parsed(kind: type, text: str, option: str = "--spec") -> Any:
    """Parse the JSON settings given by a command-line option."""
    return parse(Json[kind], text, option)
