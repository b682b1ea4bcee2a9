"""A table of text cells as Markdown, HTML and LaTeX."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

Format = Callable[[object], str]


def words(value: object) -> str:
    """Text as it is; "-" where missing."""
    missing = value is None or value == "" or (isinstance(value, float) and value != value)
    return "-" if missing else str(value)


@dataclass(frozen=True)
class Column:
    """A column as shown: its heading, and how a value is written."""

    heading: str
    format: Format = words
    under: str = ""
    """In LaTeX, the heading that it shares with its neighbours, above "here" and "published"."""


@dataclass(frozen=True)
class Table:
    """A table as it is written: cells as text, in groups of rows."""

    columns: list[Column]
    groups: list[tuple[str, list[list[str]]]]
    title: str
    notes: list[str]
    paragraphs: Mapping[str, str]
    introduction: str

    @property
    def headings(self) -> list[str]:
        return [column.heading for column in self.columns]

    @property
    def numeric(self) -> list[bool]:
        return [column.format is not words for column in self.columns]


def markdown(table: Table) -> str:
    """A Markdown page."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    head = [line(table.headings), line(["---:" if right else "---" for right in table.numeric])]
    lines = [f"# {table.title}", ""]
    lines += [table.introduction, ""] if table.introduction else []
    lines += [] if table.paragraphs else head
    for key, rows in table.groups:
        if table.paragraphs:
            lines += [f"## {key}", "", table.paragraphs[key], "", *head]
        elif key:
            lines.append(line([f"**{key}**", *[""] * (len(table.columns) - 1)]))
        lines += [line(row) for row in rows]
        lines += [""] if table.paragraphs else []
    for note in table.notes:
        lines += [note, ""] if table.paragraphs else ["", note]
    return "\n".join(lines).rstrip() + "\n"


_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5em; color: #202020; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: 0.2em 0.7em; text-align: left; vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
thead th { border-bottom: 2px solid #808080; position: sticky; top: 0; background: white; }
tbody th { background: #f2f2f2; }
tr:hover td { background: #f7f7f7; }
"""


def html(table: Table) -> str:
    """A page of its own, for Snakemake's report."""

    def cells(row: Sequence[str], tag: str) -> str:
        kinds = [' class="number"' if right else "" for right in table.numeric]
        found = [f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(row, kinds, strict=True)]
        return f"<tr>{''.join(found)}</tr>"

    head = f"<thead>{cells(table.headings, 'th')}</thead>"
    parts = ['<!doctype html>\n<html lang="en">\n<meta charset="utf-8">']
    parts += [
        f"<title>{escape(table.title)}</title>\n<style>{_STYLE}</style>\n<h1>{escape(table.title)}</h1>"
    ]
    parts += [_lines_html(table.introduction)] if table.introduction else []
    parts += [] if table.paragraphs else [f"<table>{head}<tbody>"]
    for key, rows in table.groups:
        body = "\n".join(cells(row, "td") for row in rows)
        if table.paragraphs:
            words = "".join(f"<p>{escape(part)}</p>" for part in table.paragraphs[key].split("\n\n"))
            parts += [f"<h2>{escape(key)}</h2>{words}<table>{head}<tbody>{body}</tbody></table>"]
            continue
        if key:
            parts += [f'<tr><th colspan="{len(table.columns)}">{escape(key)}</th></tr>']
        parts += [body]
    parts += [] if table.paragraphs else ["</tbody></table>"]
    parts += [f"<p>{escape(note)}</p>" for note in table.notes]
    return "\n".join(parts) + "\n</html>\n"


def _lines_html(markdown: str) -> str:
    """A Markdown table as HTML."""
    rows = [line.strip("| ").split(" | ") for line in markdown.splitlines() if "---" not in line]
    tags = ["th", *["td"] * len(rows)]
    lines = [
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"
        for row, tag in zip(rows, tags, strict=False)
    ]
    return f"<table>{''.join(lines)}</table>"


_ESCAPES = {
    **{"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_"},
    **{"{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"$<$", ">": r"$>$", "|": r"$|$", "ξ": r"$\xi$", "λ": r"$\lambda$", "τ": r"$\tau$"},
    **{"ε": r"$\varepsilon$", "ρ": r"$\rho$", "−": "$-$", "×": r"$\times$"},
}
#: Symbols that are more than their letters.
_SYMBOLS = {
    **{"λmin": r"$\lambda_{\min}$", "λmax": r"$\lambda_{\max}$", "w_max": r"$w_{\max}$"},
    **{f"{name}=": rf"$\{name}=$" for name in ("lambda", "tau", "xi", "epsilon")},
}
_SYMBOL = re.compile("|".join(_SYMBOLS))


def latex(text: str) -> str:
    """Text with LaTeX's special characters escaped and symbols in math mode."""
    plain = "".join(_ESCAPES.get(character, character) for character in _SYMBOL.sub("\0", text))
    for symbol in _SYMBOL.findall(text):
        plain = plain.replace("\0", _SYMBOLS[symbol], 1)
    return plain.replace("$$", "")


#: Characters of a cell beyond which its column has lines of several rows in LaTeX.
LONG = 40


def latex_table(table: Table) -> str:
    """A floating table that fits a page: pairs of columns under one heading, numbers in math mode."""

    def number(cell: str) -> str:
        return "--" if cell == "-" else f"${cell.replace(' ', '')}$"

    def line(row: Sequence[str]) -> str:
        pairs = zip(row, table.numeric, strict=True)
        return " & ".join(number(cell) if right else latex(cell) for cell, right in pairs) + r" \\"

    name = re.sub(r"\W+", "-", table.title.lower()).strip("-")
    rows = [row for _, group in table.groups for row in group]
    longest = [max((len(cell) for cell in cells), default=0) for cells in zip(*rows, strict=True)]
    kinds = "".join(
        "r" if right else "l" if length <= LONG else r"p{6cm}"
        for right, length in zip(table.numeric, longest or [0] * len(table.columns), strict=True)
    )
    caption = latex(" ".join([f"{table.title}.", *table.notes]))
    lines = [
        "% Needs the packages booktabs and adjustbox.",
        *(r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\label{{tab:{name}}}"),
        r"\begin{adjustbox}{max width=\textwidth, max totalheight=0.8\textheight}",
        *(rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", *_heads(table.columns), r"\midrule"),
    ]
    for index, (key, rows) in enumerate(table.groups):
        if key:
            lines += [r"\midrule"] if index else []
            lines.append(rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\textbf{{{latex(key)}}}}} \\")
        lines += [line(row) for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{adjustbox}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _heads(columns: Sequence[Column]) -> list[str]:
    """The heading's lines: two, with rules under shared headings, where columns are paired."""
    runs = [(under, [*run]) for under, run in groupby(columns, key=lambda column: column.under)]
    shared = {under for under, run in runs if under and len(run) > 1}
    if not shared:
        return [" & ".join(latex(column.heading) for column in columns) + r" \\"]
    above, rules, below, place = [], [], [], 1
    for under, run in runs:
        if under in shared:
            above.append(rf"\multicolumn{{{len(run)}}}{{c}}{{{latex(under)}}}")
            rules.append(rf"\cmidrule(lr){{{place}-{place + len(run) - 1}}}")
            below += ["here", *["published"] * (len(run) - 1)]
        else:
            above += [""] * len(run)
            below += [latex(column.heading) for column in run]
        place += len(run)
    return [" & ".join(above) + r" \\", "".join(rules), " & ".join(below) + r" \\"]
