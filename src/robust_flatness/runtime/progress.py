"""How far long work is. Loops say where they are, and whoever watches is told; nobody hands anything on."""

import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")
#: Seconds between two views of a bar, and between two lines of a log.
REDRAW, LINE = 0.1, 30.0


class Loop(NamedTuple):
    """A loop under way: what an item of it is, how many are done, and of how many (0: nobody knows)."""

    what: str
    done: int
    total: int


#: Called with the loops under way, from the outermost to the innermost.
Watcher = Callable[[list[Loop]], None]
_watching: ContextVar[tuple[Watcher, list[Loop]] | None] = ContextVar("watching", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Tell `watcher` of every loop through `told` inside, before each item and at the end.

    >>> with watched(lambda loops: print(*loops[0])):
    ...     found = [letter.upper() for letter in told("ab", "letter")]
    letter 0 2
    letter 1 2
    letter 2 2
    """
    token = _watching.set((watcher, []))
    try:
        yield
    finally:
        _watching.reset(token)


def told(items: Collection[Item], what: str) -> Iterator[Item]:
    """The items one after the other; whoever watches is told how many are done."""
    watching = _watching.get()
    return iter(items) if watching is None else _through(items, what, *watching)


@contextmanager
def stage(what: str) -> Iterator[None]:
    """A part of the work with a name. The outermost one is what the loops inside are a share of; how long one
    inside others takes nobody knows."""
    watching = _watching.get()
    if watching is None:
        yield
        return
    watcher, loops = watching
    depth = len(loops)
    loops.append(Loop(what, 0, 0 if depth else 1))
    try:
        watcher(loops)
        yield
        if not depth:
            watcher([Loop(what, 1, 1)])
    finally:
        del loops[depth:]


def counted(what: str, done: int, total: int = 0) -> None:
    """Tell whoever watches that `done` items are done of `total` (0: nobody knows)."""
    watching = _watching.get()
    if watching is not None:
        watcher, loops = watching
        watcher([*loops, Loop(what, done, total)])


def _through(items: Collection[Item], what: str, watcher: Watcher, loops: list[Loop]) -> Iterator[Item]:
    depth, total = len(loops), len(items)
    try:
        for done, item in enumerate(items):
            loops[depth:] = [Loop(what, done, total)]
            watcher(loops)
            yield item
        loops[depth:] = [Loop(what, total, total)]
        watcher(loops)
    finally:
        del loops[depth:]


def share(loops: list[Loop]) -> float:
    """How much of nested loops is done, 0 to 1, if all items of a loop take equally long.

    >>> share([Loop("sample", 1, 2), Loop("batch", 3, 4)])
    0.875
    """
    done, of = 0.0, 1.0
    for loop in loops:
        if not loop.total:
            break
        of /= loop.total
        done += loop.done * of
    return done


def words(loops: list[Loop]) -> str:
    """Where nested loops are; what is done once is left out.

    >>> words([Loop("average case", 0, 1), Loop("sample", 1, 2), Loop("batch", 3, 0)])
    'sample 2 of 2, batch 3'
    """
    return ", ".join(
        f"{what} {min(done + 1, total)} of {total}" if total else f"{what} {done or ''}".strip()
        for what, done, total in loops
        if total != 1
    )


@contextmanager
def shown(lines: bool = False) -> Iterator[None]:
    """Show on standard error how far the work inside is: the outermost loop by its name, with a bar.
    Where that is no terminal, and `lines` are asked for, a line now and then; else nothing."""
    if sys.stderr.isatty():
        with _bars() as watcher, watched(watcher):
            yield
    elif lines:
        with watched(_Lines()):
            yield
    else:
        yield


class _Lines:
    """A line whenever the last one is `LINE` seconds old."""

    def __init__(self):
        self._began = self._last = time.monotonic()

    def __call__(self, loops: list[Loop]) -> None:
        now = time.monotonic()
        if now - self._last >= LINE:
            self._last = now
            where = words(loops[1:])
            text = f"{loops[0].what}: {100 * share(loops):.0f} %{f' ({where})' if where else ''}"
            print(f"[{now - self._began:.0f} s] {text}", file=sys.stderr, flush=True)


@contextmanager
def _bars() -> Iterator[Watcher]:
    """A bar for each outermost loop; that of a finished one stays, with its time."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    layout = (
        *(TextColumn("{task.description}"), BarColumn(15), TextColumn("{task.percentage:>3.0f} %")),
        *(TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[where]}")),
    )
    last, open_bars = 0.0, {}
    with Progress(*layout, console=Console(stderr=True)) as bars:

        def watcher(loops: list[Loop]) -> None:
            nonlocal last
            now, name, done = time.monotonic(), loops[0].what, share(loops)
            ended = len(loops) == 1 and done >= 1
            if name not in open_bars:
                open_bars[name] = bars.add_task(name, total=1.0, where="")
            elif now - last < REDRAW and not ended:
                return
            last = now
            bars.update(open_bars[name], completed=done, where=words(loops[1:]))
            if ended:
                del open_bars[name]

        yield watcher
