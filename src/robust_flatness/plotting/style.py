"""One style for all figures: sizes, fonts, and a fixed colour and marker per family.

Colours are those of Okabe and Ito and a dark grey, which people with any colour vision tell apart. A
colour stands for a kind of change to training, the marker for the family within it.
"""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

#: Widths of a figure in inches: a column and a page.
COLUMN, PAGE = 3.4, 7.0

BLACK, DARK, GREY, LIGHT = "#000000", "#545454", "#808080", "#c4c4c4"
BLUE, SKY, GREEN = "#0072B2", "#56B4E9", "#009E73"
ORANGE, VERMILLION, PURPLE = "#E69F00", "#D55E00", "#CC79A7"

#: Published curves drawn over ours.
PUBLISHED = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (4, 1.5))}
TRAIN, TEST = BLUE, VERMILLION

#: Epochs, early to late: even in lightness, readable without colour.
EPOCH_COLORS = "cividis"


@dataclass(frozen=True)
class Family:
    """How a family of variants is drawn."""

    label: str
    color: str
    marker: str


FAMILIES = {
    "at": Family("AT (baseline)", BLACK, "*"),
    "awp": Family("AT-AWP", BLUE, "o"),
    "trades": Family("TRADES", BLUE, "s"),
    "mart": Family("MART", BLUE, "D"),
    "self-supervision": Family("Self-supervision", VERMILLION, "o"),
    "unlabeled": Family("+Unlabeled", VERMILLION, "s"),
    "autoaugment": Family("AutoAugment", VERMILLION, "D"),
    "weight-decay": Family("Weight decay", GREEN, "o"),
    "weight-clipping": Family("Weight clipping", GREEN, "s"),
    "weight-averaging": Family("Weight averaging", GREEN, "D"),
    "dropout": Family("Dropout", GREEN, "^"),
    "label-noise": Family("Label noise", PURPLE, "o"),
    "label-smoothing": Family("Label smoothing", PURPLE, "s"),
    "activation": Family("MiSH, SiLU, GeLU", PURPLE, "D"),
    "entropy-sgd": Family("Entropy-SGD", ORANGE, "o"),
    "adam": Family("Adam", ORANGE, "s"),
    "batch-size": Family("Batch size", ORANGE, "D"),
    "learning-rate": Family("Learning rate", SKY, "o"),
    "schedule": Family("Constant, late schedule", SKY, "s"),
    "cyclic": Family("Cyclic schedule", SKY, "D"),
    "attack": Family("Larger ε, PGD-5, PGD-14", DARK, "o"),
    "pgd-tau": Family("PGD-7-τ", DARK, "s"),
    "ignore-incorrect": Family("Ignore incorrect", DARK, "D"),
    "label-leaking": Family("Prevent label leaking", DARK, "^"),
    "scaled": Family("AT, scaled", BLACK, "P"),
    "other": Family("Other", BLACK, "X"),
    "robustbench": Family("RobustBench", BLACK, "v"),
}


def family(name: str) -> Family:
    """How a family is drawn; one without a style of its own is drawn as "other"."""
    return FAMILIES.get(name, FAMILIES["other"])


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


def handles(families: Iterable[str], hollow: bool = False) -> list[Line2D]:
    """Legend entries of the families, in the order of `FAMILIES`."""
    present = {name if name in FAMILIES else "other" for name in families}
    return [
        Line2D(
            [],
            [],
            linestyle="",
            marker=style.marker,
            color=style.color,
            markerfacecolor="none" if hollow or name == "robustbench" else style.color,
            markersize=7 if name == "at" else 4.5,
            label=style.label,
        )
        for name, style in FAMILIES.items()
        if name in present
    ]


def entries(panels: Iterable[Axes]) -> list:
    """The legend entries of several panels, each label once."""
    found: dict[str, object] = {}
    for axes in panels:
        for artist, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, artist)
    return [*found.values()]


def legend_below(figure: Figure, entries: list, columns: int = 5, text: str = "") -> None:
    """A legend under the panels, with a note above its entries."""
    legend = figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=columns,
        columnspacing=1.2,
        handletextpad=0.3,
        labelspacing=0.35,
        borderaxespad=0.2,
        fontsize=6.5,
        title=wrapped(text, figure) or None,
        title_fontsize=6.5,
        alignment="left",
    )
    legend.get_title().set_color("#404040")


_SHORT = {
    **{"lambda=": "λ=", "tau=": "τ=", "xi=": "ξ=", "epsilon=": "ε=", "w_max=": ""},
    **{"Self-supervision": "Self-superv.", "Weight averaging": "Weight avg.", "AT (baseline)": "AT"},
    **{"Const learning rate": "Const. rate", "Prevent label leaking": "Prev. label leaking"},
}


def short(label: str) -> str:
    """A variant's label for a small panel."""
    for long, brief in _SHORT.items():
        label = label.replace(long, brief)
    return label


def message(axes: Axes, text: str) -> None:
    """An empty panel that says why it is empty."""
    text = "\n".join(textwrap.fill(line, 30) for line in text.splitlines())
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=7, color=GREY, transform=axes.transAxes)


def missing_page(title: str, missing: str) -> Figure:
    """A page in place of a figure whose measures the experiment lacks: what is missing and how to get
    it, as `Notebook.missing` puts it."""
    figure, (axes,) = panels(width=PAGE, height=1.4)
    message(axes, "")
    axes.text(0, 0.95, title, va="top", fontsize=9, fontweight="bold", transform=axes.transAxes)
    wrapped = "\n".join(textwrap.fill(line, 115) for line in missing.splitlines())
    axes.text(0, 0.65, wrapped, va="top", linespacing=1.5, transform=axes.transAxes)
    return figure
