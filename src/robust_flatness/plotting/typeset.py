"""Tables as CSV (twelve digits), Markdown, HTML and LaTeX (rounded, for reading)."""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from markdown_it import MarkdownIt

from robust_flatness.plotting import looks
from robust_flatness.plotting.notebook import Notebook
from robust_flatness.tables.frames import frame_text

#: A displayed column: its heading; for numbers, a pair with the number of decimals or a formatting function.
Column = str | tuple[str, int | Callable[[float], str]]


class Table(NamedTuple):
    """Text cells under headings, in named groups of rows; `numeric` columns are aligned at the right."""

    headings: list[str]
    numeric: list[bool]
    groups: list[tuple[str, list[list[str]]]]


def p_value(value: float) -> str:
    """Return a p-value with two digits; "< 0.0002" below the resolution of resampling."""
    return "< 0.0002" if value < 0.0002 else f"{value:.2g}"


def cell(value: object, column: Column) -> str:
    """Return a value as the column's text; "-" where missing."""
    if value is None or value == "" or value != value:  # NaN differs from itself
        return "-"
    if isinstance(column, str):
        return str(value)
    return f"{value:.{column[1]}f}" if isinstance(column[1], int) else column[1](value)


def rounded(value: object) -> object:
    """Return a float rounded to twelve significant digits; further digits depend on the processor."""
    return float(f"{value:.12g}") if isinstance(value, float) and math.isfinite(value) else value


def compared(headings: Mapping[str, tuple[str, int]], only: Collection[str] = ()) -> dict[str, Column]:
    """Return the columns of `headings`, each (or those in `only`) followed by `<name>_published`."""
    columns: dict[str, Column] = {}
    for name, (heading, decimals) in headings.items():
        columns[name] = heading, decimals
        if not only or name in only:
            columns[f"{name}_published"] = f"{heading}, published", decimals
    return columns


def variants(notebook: Notebook, measures: Sequence[str]) -> pd.DataFrame:
    """Return a row per variant and external network: variant, label, family, the measures with their spread
    over seeds and, as `<measure>_published`, the printed numbers."""
    ours, others = notebook.ours.variants, notebook.ours.others
    if notebook.printed and len(others):
        ours = pd.concat([ours, others.assign(label=others["label"] + ", of others")], ignore_index=True)
    spreads = [f"{name}_seed_sd" for name in measures]
    frame = ours.reindex(columns=["variant", "label", "family", *measures, *spreads])
    frame["label"] = labels(ours)
    if notebook.printed:
        theirs = notebook.printed.variants.set_index("variant").reindex(columns=list(measures))
        frame = frame.join(theirs.add_suffix("_published"), on="variant")
    return frame


def labels(frame: pd.DataFrame) -> list[str]:
    """Return variants' labels, with the value used in training if it differs from the one in the label."""
    return [looks.name(row, row["label"]) for row in frame.to_dict("records")]


def notes(notebook: Notebook, *sentences: str) -> list[str]:
    """Return the notes of a table of variants: `sentences`, on the printed numbers, on models left out."""
    beside = notebook.beside("Published: CIFAR-10", "compare rank and sign, not values")
    return [*filter(None, [*sentences, beside, notebook.ours.apart()])]


def texts(
    frame: pd.DataFrame, columns: Mapping[str, Column], title: str, notes: Sequence[str] = (),
    sections: str = "",
) -> dict[str, str]:  # fmt: skip
    """Return a table by suffix: all of `frame` as .csv; its `displayed` columns as .md, .tex and .html."""
    table = displayed(frame, columns, sections)
    page = "\n\n".join([f"# {title}", grid(table), *notes]) + "\n"
    latex = latex_table(table, title, notes)
    return {".csv": frame_text(frame.map(rounded)), ".md": page, ".tex": latex, ".html": html(page)}


def displayed(frame: pd.DataFrame, columns: Mapping[str, Column], sections: str = "") -> Table:
    """Return those of `columns` that a frame has, in groups of rows with equal values in `sections`."""
    shown = {name: column for name, column in columns.items() if name in frame}
    keys = frame[sections] if sections else pd.Series("", index=frame.index)
    cells = pd.DataFrame({name: [cell(value, shown[name]) for value in frame[name]] for name in shown})
    groups = [(key, rows.values.tolist()) for key, rows in cells.groupby(keys.to_numpy(), sort=False)]
    numeric = [not isinstance(column, str) for column in shown.values()]
    headings = [column if isinstance(column, str) else column[0] for column in shown.values()]
    return Table(headings, numeric, groups)


def grid(table: Table) -> str:
    """Return a table in Markdown, the name of each group in a row above it."""
    rows = [table.headings, ["---:" if right else "---" for right in table.numeric]]
    for key, group in table.groups:
        rows += [[f"**{key}**", *[""] * (len(table.headings) - 1)]] if key else []
        rows += group
    escaped = ([text.replace("|", "\\|") for text in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


#: A page of Snakemake's report.
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<style>body {{ font: 14px system-ui, sans-serif }} th, td {{ padding: 0.2em 0.7em; text-align: left }}</style>
{}</html>
"""


def html(page: str) -> str:
    """Return a page in Markdown as HTML for Snakemake's report."""
    return _PAGE.format(MarkdownIt("commonmark").enable("table").render(page))


#: LaTeX of symbols and special characters, longer ones first.
_LATEX = {
    **{"λmin": r"$\lambda_{\min}$", "λmax": r"$\lambda_{\max}$", "w_max": r"$w_{\max}$"},
    **{f"{name}=": rf"$\{name}=$" for name in ("lambda", "tau", "xi", "epsilon")},
    **{"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_"},
    **{"{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"$<$", ">": r"$>$", "|": r"$|$", "ξ": r"$\xi$", "λ": r"$\lambda$", "τ": r"$\tau$"},
    **{"ε": r"$\varepsilon$", "ρ": r"$\rho$", "−": "$-$", "×": r"$\times$"},
}
_ANY = re.compile("|".join(map(re.escape, _LATEX)))
#: Characters of a cell beyond which its column is wrapped.
LONG = 40


def latex(text: str) -> str:
    """Return text with LaTeX's special characters escaped and symbols in math mode."""
    return _ANY.sub(lambda match: _LATEX[match[0]], text).replace("$$", "")


def latex_table(table: Table, title: str, notes: Sequence[str]) -> str:
    """Return a floating LaTeX table that is scaled to the page, numbers in math mode."""

    def line(row: Sequence[str]) -> list[str]:
        math = ("--" if text == "-" else f"${text.replace(' ', '')}$" for text in row)
        cells = zip(row, math, table.numeric, strict=True)
        return [number if right else latex(text) for text, number, right in cells]

    rows: list[list[str]] = []
    for key, group in table.groups:
        rows += [[rf"\textbf{{{latex(key)}}}", *[""] * (len(table.headings) - 1)]] if key else []
        rows += map(line, group)
    cells = zip(table.headings, *(row for _, group in table.groups for row in group), strict=True)
    widths = zip(table.numeric, (max(map(len, column)) for column in cells), strict=True)
    kinds = "".join("r" if right else "l" if length <= LONG else r"p{6cm}" for right, length in widths)
    name = re.sub(r"\W+", "-", title.lower()).strip("-")
    text = pd.DataFrame(rows, columns=[*map(latex, table.headings)]).to_latex(
        index=False, column_format=kinds, label=f"tab:{name}",
        caption=latex(" ".join([f"{title}.", *notes])),
    )  # fmt: skip
    box = r"\begin{adjustbox}{max width=\textwidth, max totalheight=0.8\textheight}"
    text = text.replace(r"\begin{tabular}", box + "\n" + r"\begin{tabular}")
    text = text.replace(r"\end{tabular}", r"\end{tabular}" + "\n" + r"\end{adjustbox}")
    return f"% Needs the packages booktabs and adjustbox.\n{text}"
