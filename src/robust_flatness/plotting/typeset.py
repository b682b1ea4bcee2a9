"""Tables as CSV (every digit), Markdown, LaTeX and HTML (rounded, for reading)."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from robust_flatness.plotting import looks
from robust_flatness.plotting.notebook import Notebook
from robust_flatness.plotting.writing import Column, Format, Table, html, latex_table, markdown
from robust_flatness.tables.frames import frame_text


def digits(count: int) -> Format:
    """Numbers with `count` decimals; "-" where missing."""

    def format_number(value: object) -> str:
        missing = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
        return "-" if missing else f"{value:.{count}f}"

    return format_number


def p_value(value: object) -> str:
    """A p-value with two digits, and "< 0.0002" where resampling cannot tell a smaller one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return "< 0.0002" if value < 0.0002 else f"{value:.2g}"


def rounded(value: object) -> object:
    """A float with twelve significant digits; anything else as it is."""
    return float(f"{value:.12g}") if isinstance(value, float) and math.isfinite(value) else value


def compared(headings: Mapping[str, tuple[str, int]]) -> dict[str, Column]:
    """Pairs of columns from {name: (heading, decimals)}: ours, and the printed `<name>_published`."""
    columns = {}
    for name, (heading, decimals) in headings.items():
        columns[name] = Column(heading, digits(decimals), under=heading)
        columns[f"{name}_published"] = Column(f"{heading}, published", digits(decimals), under=heading)
    return columns


def variants(notebook: Notebook, measures: Sequence[str], more: Sequence[str] = ()) -> pd.DataFrame:
    """A row per variant, and per network of others in an experiment: slug, label with the value applied where
    it is not the paper's, family, the measures with their spread over seeds, columns `more`, and the
    printed numbers as `<measure>_published`."""
    ours = notebook.ours.variants
    others = notebook.ours.others
    if notebook.printed and len(others):
        ours = pd.concat([ours, others.assign(label=others["label"] + ", of others")], ignore_index=True)
    spreads = [f"{name}_seed_sd" for name in measures]
    frame = ours.reindex(columns=["variant", "label", "family", *measures, *more, *spreads])
    frame["label"] = labels(ours)
    for layer in notebook.layers[1:]:
        theirs = layer.variants.set_index("variant").reindex(columns=list(measures))
        for name in measures:
            frame[f"{name}_published"] = frame["variant"].map(theirs[name])
    return frame


def labels(frame: pd.DataFrame) -> list[str]:
    """Variants' labels, with the value that was applied where the label says the paper's."""
    rows = frame.to_dict("records")
    applied = [looks.applied(row) for row in rows]
    return [
        f"{row['label']} (here {value})" if value else row["label"]
        for row, value in zip(rows, applied, strict=True)
    ]


def notes(notebook: Notebook, *sentences: str) -> list[str]:
    """Notes below a table: the given ones, what to compare, and which variants did not learn or are one."""
    words = [word for word in sentences if word]
    words += filter(None, [notebook.beside("Published: CIFAR-10", "compare rank and sign, not values")])
    return [*words, *filter(None, [notebook.ours.apart])]


def texts(
    frame: pd.DataFrame,
    columns: Mapping[str, Column],
    title: str,
    notes: Sequence[str] = (),
    sections: str | None = None,
    paragraphs: Mapping[str, str] | None = None,
    introduction: str = "",
) -> dict[str, str]:
    """A frame as {".csv": ..., ".md": ..., ".tex": ..., ".html": ...}.

    Parameters
    ----------
    frame
        All of it goes into the CSV, with twelve digits: more would depend on the processor.
    columns
        Those shown in Markdown and LaTeX, in this order.
    title, notes
        Above and below the table.
    sections
        A column whose values head groups of rows, in order of appearance.
    paragraphs
        Text for each section: in Markdown, sections then have a heading, this text and a table each.
    introduction
        Markdown below the title.
    """
    shown = {name: column for name, column in columns.items() if name in frame}
    keys = frame[sections] if sections else pd.Series([""] * len(frame), index=frame.index)
    groups = [
        (key, [[column.format(row[name]) for name, column in shown.items()] for _, row in rows.iterrows()])
        for key, rows in frame.groupby(keys, sort=False)
    ]
    table = Table([*shown.values()], groups, title, [*notes], paragraphs or {}, introduction)
    return {
        ".csv": frame_text(frame.map(rounded)),
        ".md": markdown(table),
        ".tex": latex_table(table),
        ".html": html(table),
    }
