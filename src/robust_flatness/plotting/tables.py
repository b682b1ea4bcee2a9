"""Tables as CSV (every digit), Markdown and LaTeX (rounded, for reading)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from robust_flatness.tables.frames import frame_text

Format = Callable[[object], str]


def digits(count: int) -> Format:
    """Numbers with `count` decimals; "-" where missing."""

    def format_number(value: object) -> str:
        missing = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
        return "-" if missing else f"{value:.{count}f}"

    return format_number


def words(value: object) -> str:
    """Text as it is; "-" where missing."""
    missing = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
    return "-" if missing else str(value)


def p_value(value: object) -> str:
    """A p-value with two digits, and "< 0.0002" where resampling cannot tell a smaller one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return "< 0.0002" if value < 0.0002 else f"{value:.2g}"


def rounded(value: object) -> object:
    """A float with twelve significant digits; anything else as it is."""
    return float(f"{value:.12g}") if isinstance(value, float) and math.isfinite(value) else value


@dataclass(frozen=True)
class Column:
    """A column as shown: its heading, and how a value is written."""

    heading: str
    format: Format = words


def texts(
    frame: pd.DataFrame,
    columns: Mapping[str, Column],
    title: str,
    notes: Sequence[str] = (),
    sections: str | None = None,
    paragraphs: Mapping[str, str] | None = None,
    introduction: str = "",
) -> dict[str, str]:
    """A frame as {".csv": ..., ".md": ..., ".tex": ...}.

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
    headings = [column.heading for column in shown.values()]
    numeric = [column.format is not words for column in shown.values()]
    keys = frame[sections] if sections else pd.Series([""] * len(frame), index=frame.index)
    groups = [
        (key, [[column.format(row[name]) for name, column in shown.items()] for _, row in rows.iterrows()])
        for key, rows in frame.groupby(keys, sort=False)
    ]
    return {
        ".csv": frame_text(frame.map(rounded)),
        ".md": _markdown(headings, numeric, groups, title, notes, paragraphs, introduction),
        ".tex": _latex(headings, numeric, groups, title, notes),
    }


def _markdown(
    headings, numeric, groups, title: str, notes: Sequence[str], paragraphs, introduction: str
) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    head = [line(headings), line(["---:" if right else "---" for right in numeric])]
    lines = [f"# {title}", "", *([introduction, ""] if introduction else []), *([] if paragraphs else head)]
    for key, rows in groups:
        if paragraphs:
            lines += [f"## {key}", "", paragraphs[key], "", *head]
        elif key:
            lines.append(line([f"**{key}**", *[""] * (len(headings) - 1)]))
        lines += [line(row) for row in rows]
        lines += [""] if paragraphs else []
    for note in notes:
        lines += [note, ""] if paragraphs else ["", note]
    return "\n".join(lines).rstrip() + "\n"


_ESCAPES = {
    **{"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_"},
    **{"{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"$<$", ">": r"$>$", "|": r"$|$", "ξ": r"$\xi$", "λ": r"$\lambda$", "τ": r"$\tau$"},
    **{"ε": r"$\varepsilon$", "ρ": r"$\rho$", "−": "$-$"},
}


def latex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def _latex(headings, numeric, groups, title: str, notes: Sequence[str]) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(latex, cells)) + r" \\"

    lines = [
        f"% {title}; needs the package booktabs",
        rf"\begin{{tabular}}{{{''.join('r' if right else 'l' for right in numeric)}}}",
        *(r"\toprule", line(headings), r"\midrule"),
    ]
    for index, (key, rows) in enumerate(groups):
        if key:
            lines += [r"\midrule"] if index else []
            lines.append(rf"\multicolumn{{{len(headings)}}}{{l}}{{\textbf{{{latex(key)}}}}} \\")
        lines += [line(row) for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(f"% {note}" for note in notes)]) + "\n"
