"""Layout of all figures: sizes, colours, panels, legends and labels beside points."""

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D

from robust_flatness.config.variants import PALETTE
from robust_flatness.files import atomic_path

#: Width of a figure in inches: a page.
PAGE = 7.0
#: Characters in a line of a note.
LINE = 150
#: Distance from the nearest quartile, in interquartile ranges, beyond which values do not set axis limits.
FENCE = 6

GREY, LIGHT = "#808080", "#c4c4c4"
BLACK, BLUE, GREEN = PALETTE["black"], PALETTE["blue"], PALETTE["green"]
ORANGE, VERMILLION, PURPLE = PALETTE["orange"], PALETTE["vermillion"], PALETTE["purple"]
TRAIN, TEST = BLUE, VERMILLION
#: Published curves beside ours.
PUBLISHED = {"linewidth": 0.8, "linestyle": (0, (4, 1.5))}
#: Metadata without dates, so that equal figures give equal bytes.
UNDATED = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
#: Places of a label beside its point, in points, the preferred one first.
OFFSETS = ((5, 0), (-5, 0), (0, 5), (0, -5), (4, 4), (-4, 4), (4, -4), (-4, -4))


def new_figure(height: float, **options) -> Figure:
    """Return an empty figure of a page's width, in the style of `figures.mplstyle`, not the user's."""
    matplotlib.style.use(["default", "robust_flatness.plotting.figures"])
    figure = Figure(figsize=(PAGE, height), **options)
    FigureCanvasAgg(figure)
    return figure


class Label(NamedTuple):
    """A label of the point (x, y). Labels that would overlap others are omitted unless `required`."""

    x: float
    y: float
    text: str
    required: bool = False


def panels(
    count: int = 1, columns: int = 0, height: float = 2.2, room: float = 0.7, x: str = "", y: str = "",
    **options,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """Return a figure of `count` panels, `columns` in a row (0: all), and its axes row by row. `height` of a
    row and `room` for legend and notes are in inches; `x` and `y` name the axes of the last row and of the
    first column; `options` go to `Figure.subplots`."""
    columns = min(columns or count, count)
    rows = -(-count // columns)
    figure = new_figure(height * rows + room, layout="constrained")
    axes = [*figure.subplots(rows, columns, squeeze=False, **options).ravel()]
    for unused in axes[count:]:
        unused.remove()
    for lowest in axes[count - columns : count]:
        lowest.tick_params(labelbottom=True)
    for last in axes[columns * (rows - 1) : count]:
        last.set_xlabel(x)
    for first in axes[:count:columns]:
        first.set_ylabel(y)
    return figure, axes[:count]


def save(figure: Figure, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a figure in the format of the path's suffix; equal figures give equal bytes."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], metadata=UNDATED.get(path.suffix, {}) | metadata)


def entries(axes: Iterable[Axes]) -> dict[str, Artist]:
    """Return the legend entries of several panels, each label once, as the first panel draws it."""
    found: dict[str, Artist] = {}
    for panel in axes:
        for artist, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, artist)
    return found


def legend(figure: Figure, entries: Mapping[str, Artist | tuple[Artist, ...]], *notes: str) -> None:
    """Draw notes below the panels, then a legend of four columns (two if an entry has several markers)."""
    note = textwrap.fill(" ".join(filter(None, notes)).replace(" %", "\N{NO-BREAK SPACE}%"), LINE)
    entries = entries or {"": Line2D([], [], linestyle="")}
    markers = max((len(entry) for entry in entries.values() if isinstance(entry, tuple)), default=1)
    drawn = figure.legend(
        handles=[*entries.values()], labels=[*entries], loc="outside lower left", alignment="left",
        ncols=2 if markers > 1 else 4, title=note or None, title_fontsize=6.5, fontsize=6,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.5)}, handlelength=max(1.8, 0.9 * markers),
        columnspacing=1.2, borderaxespad=0.2,
    )  # fmt: skip
    drawn.get_title().set_color("#404040")


def line(text: str) -> Figure:
    """Return a picture of a few lines of text, in place of a figure that cannot be drawn."""
    words = textwrap.fill(text, LINE)
    figure = new_figure(0.14 * (1 + words.count("\n")) + 0.08)
    figure.text(0.005, 0.5, words, va="center", fontsize=6.5, color="#404040")
    return figure


def near(values: np.ndarray, fence: float = FENCE) -> np.ndarray:
    """Return which values determine axis limits: all but outliers beyond the `fence`."""
    first, third = np.nanquantile(values, [0.25, 0.75]) if len(values) else (0, 0)
    return np.abs(values - (first + third) / 2) <= (fence + 0.5) * (third - first)


def place_labels(axes: Axes, labels: Iterable[Label]) -> None:
    """Write each label beside its point without covering text or points; without free space it is omitted or,
    if required, placed to the right. This fixes the layout: all but labels must have been drawn."""
    axes.figure.get_layout_engine().execute(axes.figure)
    axes.figure.set_layout_engine("none")
    renderer = axes.figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    clouds = [group.get_offsets() for group in axes.collections if isinstance(group, PathCollection)]
    points = axes.transData.transform(np.concatenate([np.zeros((0, 2)), *clouds]))
    taken = [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]
    for label in labels:
        for dx, dy in OFFSETS[:1] if label.required else OFFSETS:
            text = axes.annotate(
                label.text, label[:2], (dx, dy), textcoords="offset points", fontsize=6, color="#202020",
                zorder=6, ha="left" if dx > 0 else "right" if dx else "center",
                va="bottom" if dy > 0 else "top" if dy else "center",
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            covers = box.padded(2.5 * axes.figure.dpi / 72).count_contains(points)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            free = inside and not covers and not any(box.overlaps(other) for other in taken)
            if label.required or free:
                taken.append(box)
                break
            text.remove()
