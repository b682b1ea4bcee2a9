"""Progress of long computations, shown on a terminal inside `show_progress`."""

import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TypeVar

Item = TypeVar("Item")
#: The bars of rich (None: nothing is shown), and the name of the current part of the computation.
_display = SimpleNamespace(bars=None, stage="")


def track(items: Collection[Item], description: str) -> Iterator[Item]:
    """Yield the items; the outermost loop of several items shows a bar with the remaining time."""
    bars = _display.bars
    if bars is None or bars.tasks or len(items) < 2:
        yield from items
        return
    name = f"{_display.stage}: {description}" if _display.stage else description
    task = bars.add_task(name, total=len(items))
    try:
        for item in items:
            yield item
            bars.advance(task)
    finally:
        bars.remove_task(task)


@contextmanager
def stage(description: str) -> Iterator[None]:
    """Name a part of a computation, whose loops are shown under this name."""
    outer, _display.stage = _display.stage, description
    try:
        yield
    finally:
        _display.stage = outer


@contextmanager
def show_progress() -> Iterator[None]:
    """Show the progress of the computations inside, if standard error is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    if not sys.stderr.isatty():
        yield
        return
    with Progress(console=Console(stderr=True), transient=True) as _display.bars:
        try:
            yield
        finally:
            _display.bars = None
