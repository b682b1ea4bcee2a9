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


class _Display:
    """A bar for each outermost loop, with the share that is done and the positions of the loops inside. A
    `total` of 0 is unknown."""

    def __init__(self, bars: Any):
        self.bars, self.loops, self.last = bars, [], 0.0

    @contextmanager
    def loop(self, description: str, total: int) -> Iterator[SimpleNamespace]:
        depth = len(self.loops)
        self.loops.append(SimpleNamespace(description=description, total=total, done=0))
        if not depth:
            self.task = self.bars.add_task(description, total=1.0, inner="")
        try:
            yield self.loops[depth]
            if not depth:
                self.bars.update(self.task, completed=1.0, inner="")
        finally:
            del self.loops[depth:]

    def show(self) -> None:
        if time.monotonic() - self.last < REDRAW:
            return
        self.last, share, part, inner = time.monotonic(), 0.0, 1.0, []
        for loop in self.loops:
            part = part / loop.total if loop.total else 0.0
            share += loop.done * part
            if loop.total > 1:
                inner.append(f"{loop.description} {loop.done + 1} of {loop.total}")
        self.bars.update(self.task, completed=share, inner=", ".join(inner))


_display: _Display | None = None


def track(items: Collection[Item], description: str) -> Iterator[Item]:
    """Yield the items, showing how many are done."""
    if _display is None:
        yield from items
        return
    with _display.loop(description, len(items)) as loop:
        for item in items:
            _display.show()
            yield item
            loop.done += 1


@contextmanager
def stage(description: str) -> Iterator[None]:
    """Name a part of a computation; an outermost one shows the share that the loops inside have done."""
    if _display is None:
        yield
        return
    with _display.loop(description, 0 if _display.loops else 1):
        yield


@contextmanager
def show_progress() -> Iterator[None]:
    """Show the progress of the computations inside, if standard error is a terminal."""
    global _display
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(15), TaskProgressColumn())
    columns += (TimeRemainingColumn(elapsed_when_finished=True), TextColumn("{task.fields[inner]}"))
    with Progress(*columns, console=Console(stderr=True)) as bars:
        _display = _Display(bars)
        try:
            yield
        finally:
            _display = None
