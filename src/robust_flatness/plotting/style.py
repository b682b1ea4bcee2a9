"""One style for all figures: sizes, fonts, colours, legends and notes."""

import textwrap
from collections.abc import Iterable

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from robust_flatness.config.families import PALETTE
from robust_flatness.plotting import looks
from robust_flatness.tables.schema import OTHER

#: Width of a figure in inches: a page.
PAGE = 7.0

GREY, LIGHT = "#808080", "#c4c4c4"
BLACK, BLUE, GREEN = PALETTE["black"], PALETTE["blue"], PALETTE["green"]
ORANGE, VERMILLION, PURPLE = PALETTE["orange"], PALETTE["vermillion"], PALETTE["purple"]

#: Published curves drawn over ours.
PUBLISHED = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (4, 1.5))}
TRAIN, TEST = BLUE, VERMILLION

#: Epochs, early to late: even in lightness, readable without colour.
EPOCH_COLORS = "cividis"


def use() -> None:
    """Set matplotlib's defaults: fonts readable at column width and embedded, quiet axes."""
    matplotlib.rcParams.update(
        {
            **{"font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8},
            **{"xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7},
            **{"axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6},
            **{"xtick.major.width": 0.6, "ytick.major.width": 0.6, "lines.linewidth": 1.3},
            **{"lines.markersize": 4, "legend.frameon": False, "legend.handlelength": 1.6},
            **{"axes.titlelocation": "left", "axes.grid": True, "grid.color": "#e6e6e6"},
            **{"grid.linewidth": 0.5, "axes.axisbelow": True, "savefig.dpi": 200, "figure.dpi": 200},
            **{"pdf.fonttype": 42, "ps.fonttype": 42, "mathtext.fontset": "dejavusans"},
        }
    )


def panels(
    rows: int = 1, columns: int = 1, width: float = PAGE, height: float = 2.6, **options
) -> tuple[Figure, list[Axes]]:
    """A figure of `rows` x `columns` panels and the list of its axes, row by row; sizes in inches."""
    use()
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, [*axes.ravel()]


def cells(rows: int, columns: int, height: float) -> tuple[Figure, GridSpec]:
    """An empty figure and the cells for its panels."""
    use()
    figure = Figure(figsize=(PAGE, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_gridspec(rows, columns)


def grid(
    rows: int,
    columns: int,
    height: float = 1.15,
    above: float = 0.25,
    below: float = 0.12,
    bottom: float = 0.55,
    between: float = 0.12,
    right: float = 0.1,
    **options,
) -> tuple[Figure, list[Axes]]:
    """A page of small multiples, laid out by the numbers, since finding a layout takes a second or more
    where there are many panels.

    Sizes are in inches: `height` of a panel, room `above` (title) and `below` it (tick labels),
    `between` columns, and at the `bottom` and the `right` of the page.
    """
    use()
    left = 0.55
    page = rows * (above + height + below) + bottom
    width = (PAGE - left - right - between * (columns - 1)) / columns
    figure = Figure(figsize=(PAGE, page))
    FigureCanvasAgg(figure)
    spacing = {
        **{"left": left / PAGE, "right": 1 - right / PAGE},
        **{"top": 1 - above / page, "bottom": (bottom + below) / page},
        **{"wspace": between / width, "hspace": (above + below) / height},
    }
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=spacing, **options)
    for panel in axes.ravel():
        panel.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        panel.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    return figure, [*axes.ravel()]


def name_grid(figure: Figure, x: str, y: str, bottom: float = 0.55) -> None:
    """Names of the axes that all panels of a `grid` share; further lines of `x` are notes."""
    page = figure.get_figheight()
    short = page - bottom < 2.2
    middle = (1 + bottom / page) / 2
    text, size, left = (y.replace(" (", "\n("), 6.5, 0.02) if short else (y, 8, 0.1)
    figure.text(left / PAGE, middle, text, rotation=90, va="center", ha="left", fontsize=size)
    name, _, notes = x.partition("\n")
    figure.text(0.5, (bottom - 0.22) / page, name, ha="center", va="center", fontsize=8)
    if notes:
        lines = wrapped(notes, figure)
        figure.text(0.5, 0.03 / page, lines, ha="center", va="bottom", fontsize=6.5, color="#404040")


def freeze(figure: Figure) -> None:
    """Lay the figure out now and keep the layout."""
    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine("none")


def note(figure: Figure, text: str) -> None:
    """A small note under a figure without a legend there (see `legend_below`)."""
    figure.supxlabel(wrapped(text, figure), x=0.01, ha="left", fontsize=6.5, color="#404040")


def wrapped(text: str, figure: Figure) -> str:
    """A note's text in lines of the figure's width."""
    characters = int(19.5 * figure.get_figwidth())
    return "\n".join(textwrap.fill(line, characters) for line in text.splitlines())


def handles(families: Iterable[str], others: Iterable[str] = ()) -> list[Line2D]:
    """Legend entries of the families, in their order; hollow those of `others` alone, which no correlation
    counts."""
    known = looks.every()
    counted, apart = ({name if name in known else OTHER for name in part} for part in (families, others))
    return [
        Line2D(
            [],
            [],
            linestyle="",
            marker=look.marker,
            color=looks.color(name),
            markerfacecolor=looks.color(name) if name in counted else "none",
            markersize=7 if name == "at" else 4.5,
            label=look.label,
        )
        for name, look in known.items()
        if name in counted | apart
    ]


def entries(panels: Iterable[Axes]) -> list:
    """The legend entries of several panels, each label once."""
    found: dict[str, object] = {}
    for axes in panels:
        for artist, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, artist)
    return [*found.values()]


#: How legends of families look: small, since there are many.
LEGEND = {
    **{"fontsize": 5.8, "handletextpad": 0.2, "labelspacing": 0.3, "columnspacing": 0.9},
    "borderaxespad": 0.2,
}


def legend_below(figure: Figure, entries: list, columns: int = 7, text: str = "") -> None:
    """A legend under the panels, with a note above its entries."""
    legend = figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=columns,
        title=wrapped(text, figure) or None,
        title_fontsize=6.5,
        alignment="left",
        **LEGEND,
    )
    legend.get_title().set_color("#404040")


def legend_beside(figure: Figure, entries: list) -> None:
    """A legend in one column at the right of the figure."""
    figure.legend(handles=entries, loc="outside right center", **LEGEND)


def legend_inside(axes: Axes, entries: list, columns: int = 2) -> None:
    """A legend in place of a panel."""
    axes.set_axis_off()
    axes.legend(handles=entries, loc="center", ncols=columns, **LEGEND)


def line(text: str) -> Figure:
    """A picture of one line of text, in place of a figure that cannot be drawn."""
    use()
    words = textwrap.fill(text, 150)
    figure = Figure(figsize=(PAGE, 0.14 * (1 + words.count("\n")) + 0.08))
    FigureCanvasAgg(figure)
    figure.text(0.005, 0.5, words, va="center", fontsize=6.5, color="#404040")
    return figure
