"""Tables as CSV (twelve digits), Markdown, HTML and LaTeX (rounded, for reading)."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import pandas as pd

from robust_flatness.plotting import looks
from robust_flatness.plotting.notebook import Notebook
from robust_flatness.tables.frames import frame_text

Format = Callable[[object], str]


def words(value: object) -> str:
    """Return text as it is; "-" where missing."""
    return "-" if value is None or value == "" or value != value else str(value)


def digits(count: int) -> Format:
    """Return a format of numbers with `count` decimals; "-" where missing."""
    return lambda value: words(value) if words(value) == "-" else f"{value:.{count}f}"


def p_value(value: object) -> str:
    """Return a p-value with two digits; "< 0.0002" below what resampling resolves."""
    return words(value) if words(value) == "-" else "< 0.0002" if value < 0.0002 else f"{value:.2g}"


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and the format of its values."""

    heading: str
    format: Format = words


@dataclass(frozen=True)
class Table:
    """A table of text cells in groups of rows; `numeric` columns are aligned at the right."""

    title: str
    headings: list[str]
    numeric: list[bool]
    groups: list[tuple[str, list[list[str]]]]
    notes: Sequence[str]
    paragraphs: Mapping[str, str]
    introduction: str


def rounded(value: object) -> object:
    """Return a float with twelve significant digits: more would depend on the processor."""
    return float(f"{value:.12g}") if isinstance(value, float) and math.isfinite(value) else value


def compared(headings: Mapping[str, tuple[str, int]]) -> dict[str, Column]:
    """Return pairs of columns from {name: (heading, decimals)}: ours, and the printed `<name>_published`."""
    columns = {}
    for name, (heading, decimals) in headings.items():
        columns[name] = Column(heading, digits(decimals))
        columns[f"{name}_published"] = Column(f"{heading}, published", digits(decimals))
    return columns


def variants(notebook: Notebook, measures: Sequence[str], more: Sequence[str] = ()) -> pd.DataFrame:
    """Return a row per variant, and per network of others: variant, label, family, the measures with their
    spread over seeds, columns `more`, and the printed numbers as `<measure>_published`."""
    ours, others = notebook.ours.variants, notebook.ours.others
    if notebook.printed and len(others):
        ours = pd.concat([ours, others.assign(label=others["label"] + ", of others")], ignore_index=True)
    spreads = [f"{name}_seed_sd" for name in measures]
    frame = ours.reindex(columns=["variant", "label", "family", *measures, *more, *spreads])
    frame["label"] = labels(ours)
    if notebook.printed:
        theirs = notebook.printed.variants.set_index("variant").reindex(columns=list(measures))
        for name in measures:
            frame[f"{name}_published"] = frame["variant"].map(theirs[name])
    return frame


def labels(frame: pd.DataFrame) -> list[str]:
    """Return variants' labels, with the value used in training where the label has the paper's."""
    rows = [(row["label"], looks.applied(row)) for row in frame.to_dict("records")]
    return [f"{label} (here {value})" if value else label for label, value in rows]


def notes(notebook: Notebook, *sentences: str) -> list[str]:
    """Return the notes of a table of variants: `sentences`, how printed numbers compare, models apart."""
    beside = notebook.beside("Published: CIFAR-10", "compare rank and sign, not values")
    return [*filter(None, [*sentences, beside, notebook.ours.apart])]


def texts(
    frame: pd.DataFrame, columns: Mapping[str, Column], title: str, notes: Sequence[str] = (),
    sections: str | None = None, paragraphs: Mapping[str, str] | None = None, introduction: str = "",
) -> dict[str, str]:  # fmt: skip
    """Return a frame as {".csv": ..., ".md": ..., ".tex": ..., ".html": ...}.

    All of `frame` goes into the CSV, `columns` are shown for reading. The values of the column `sections`
    head groups of rows; with `paragraphs`, a text for each section, each has a table of its own.
    `introduction` is a Markdown table below the title.
    """
    shown = {name: column for name, column in columns.items() if name in frame}
    keys = frame[sections] if sections else pd.Series([""] * len(frame), index=frame.index)
    groups = [
        (key, [[column.format(row[name]) for name, column in shown.items()] for _, row in rows.iterrows()])
        for key, rows in frame.groupby(keys, sort=False)
    ]
    headings = [column.heading for column in shown.values()]
    numeric = [column.format is not words for column in shown.values()]
    table = Table(title, headings, numeric, groups, notes, paragraphs or {}, introduction)
    read = {".md": markdown(table), ".tex": latex_table(table), ".html": html(table)}
    return {".csv": frame_text(frame.map(rounded))} | read


def markdown(table: Table) -> str:
    """Return a table as a Markdown page."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    head = [line(table.headings), line(["---:" if right else "---" for right in table.numeric])]
    blocks = [f"# {table.title}", table.introduction]
    lines = [*head]
    for key, rows in table.groups:
        if table.paragraphs:
            blocks += [f"## {key}", table.paragraphs[key], "\n".join([*head, *map(line, rows)])]
        else:
            lines += [line([f"**{key}**", *[""] * (len(table.headings) - 1)])] if key else []
            lines += map(line, rows)
    blocks += [] if table.paragraphs else ["\n".join(lines)]
    return "\n\n".join(filter(None, [*blocks, *table.notes])) + "\n"


_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5em; color: #202020; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: 0.2em 0.7em; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid #808080; }
"""


def html(table: Table) -> str:
    """Return a table as an HTML page, for Snakemake's report; a table for each group of rows."""
    title = escape(table.title)
    parts = [f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>']
    parts += [f"<style>{_STYLE}</style>\n<h1>{title}</h1>"]
    parts += [f"<pre>{escape(table.introduction)}</pre>"] if table.introduction else []
    for key, rows in table.groups:
        parts += [f"<h2>{escape(key)}</h2>"] if key else []
        parts += [f"<p>{escape(table.paragraphs[key])}</p>"] if table.paragraphs else []
        parts += [pd.DataFrame(rows, columns=table.headings).to_html(index=False, border=0)]
    parts += [f"<p>{escape(note)}</p>" for note in table.notes]
    return "\n".join(parts) + "\n</html>\n"


_ESCAPES = {
    **{"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_"},
    **{"{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"$<$", ">": r"$>$", "|": r"$|$", "ξ": r"$\xi$", "λ": r"$\lambda$", "τ": r"$\tau$"},
    **{"ε": r"$\varepsilon$", "ρ": r"$\rho$", "−": "$-$", "×": r"$\times$"},
}
#: Symbols of several letters.
_SYMBOLS = {
    **{"λmin": r"$\lambda_{\min}$", "λmax": r"$\lambda_{\max}$", "w_max": r"$w_{\max}$"},
    **{f"{name}=": rf"$\{name}=$" for name in ("lambda", "tau", "xi", "epsilon")},
}
_ANY = re.compile("|".join([*_SYMBOLS, *map(re.escape, _ESCAPES)]))
#: Characters of a cell beyond which its column is wrapped.
LONG = 40


def latex(text: str) -> str:
    """Return text with LaTeX's special characters escaped and symbols in math mode."""
    return _ANY.sub(lambda found: (_SYMBOLS | _ESCAPES)[found[0]], text).replace("$$", "")


def latex_table(table: Table) -> str:
    """Return a floating LaTeX table that is scaled to the page, numbers in math mode."""

    def line(row: Sequence[str]) -> str:
        math = ("--" if cell == "-" else f"${cell.replace(' ', '')}$" for cell in row)
        cells = zip(row, math, table.numeric, strict=True)
        return " & ".join(number if right else latex(cell) for cell, number, right in cells) + r" \\"

    name = re.sub(r"\W+", "-", table.title.lower()).strip("-")
    rows = [row for _, group in table.groups for row in group]
    longest = [max(map(len, cells)) for cells in zip(table.headings, *rows, strict=True)]
    widths = zip(table.numeric, longest, strict=True)
    kinds = "".join("r" if right else "l" if length <= LONG else r"p{6cm}" for right, length in widths)
    lines = [
        "% Needs the packages booktabs and adjustbox.",
        *(r"\begin{table}", r"\centering"),
        rf"\caption{{{latex(' '.join([f'{table.title}.', *table.notes]))}}}",
        rf"\label{{tab:{name}}}",
        r"\begin{adjustbox}{max width=\textwidth, max totalheight=0.8\textheight}",
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        " & ".join(map(latex, table.headings)) + r" \\",
        r"\midrule",
    ]
    for index, (key, group) in enumerate(table.groups):
        if key:
            lines += [r"\midrule"] if index else []
            lines.append(rf"\multicolumn{{{len(table.headings)}}}{{l}}{{\textbf{{{latex(key)}}}}} \\")
        lines += map(line, group)
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{adjustbox}", r"\end{table}"]) + "\n"
