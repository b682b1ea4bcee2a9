"""Progress of long computations, shown on a terminal inside `show_progress`."""

import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, TypeVar

Item = TypeVar("Item")
#: Seconds between two updates.
REDRAW = 0.1
#: The bars of rich (None: nothing is shown), the bar of the outermost loop, the loops under way, each with
#: `description`, `total` (0: unknown) and `done`, and the time of the last update.
_display = SimpleNamespace(bars=None, bar=None, loops=[], last=0.0)


@contextmanager
def _loop(description: str, total: int) -> Iterator[SimpleNamespace]:
    loop, depth = SimpleNamespace(description=description, total=total, done=0), len(_display.loops)
    _display.loops.append(loop)
    if not depth:
        _display.bar = _display.bars.add_task(description, total=1.0, inner="")
    try:
        yield loop
        if not depth:
            _display.bars.update(_display.bar, completed=1.0, inner="")
    finally:
        del _display.loops[depth:]


def _show() -> None:
    """Show the total progress of all running loops, and the positions of the inner ones."""
    if time.monotonic() - _display.last < REDRAW:
        return
    _display.last, share, part, inner = time.monotonic(), 0.0, 1.0, []
    for loop in _display.loops:
        part = part / loop.total if loop.total else 0.0
        share += loop.done * part
        if loop.total > 1:
            inner.append(f"{loop.description} {loop.done + 1} of {loop.total}")
    _display.bars.update(_display.bar, completed=share, inner=", ".join(inner))


def track(items: Collection[Item], description: str) -> Iterator[Item]:
    """Yield the items, showing how many are done."""
    if _display.bars is None:
        yield from items
        return
    with _loop(description, len(items)) as loop:
        for item in items:
            _show()
            yield item
            loop.done += 1


@contextmanager
def stage(description: str) -> Iterator[None]:
    """Name a part of a computation; the outermost part shows the progress of the loops inside it."""
    if _display.bars is None:
        yield
        return
    with _loop(description, 0 if _display.loops else 1):
        yield


@contextmanager
def show_progress() -> Iterator[None]:
    """Show the progress of the computations inside, if standard error is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns: tuple[Any, ...] = (TextColumn("{task.description}"), BarColumn(15), TaskProgressColumn())
    columns += (TimeRemainingColumn(elapsed_when_finished=True), TextColumn("{task.fields[inner]}"))
    with Progress(*columns, console=Console(stderr=True)) as _display.bars:
        try:
            yield
        finally:
            _display.bars = None
