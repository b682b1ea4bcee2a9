"""A table of text cells in LaTeX."""

import re
from collections.abc import Sequence

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


def latex_table(
    title: str,
    headings: Sequence[str],
    numeric: Sequence[bool],
    groups: Sequence[tuple[str, list[list[str]]]],
    notes: Sequence[str],
) -> str:
    """Return a floating table that is scaled to the page, numbers in math mode."""

    def number(cell: str) -> str:
        return "--" if cell == "-" else f"${cell.replace(' ', '')}$"

    def line(row: Sequence[str]) -> str:
        pairs = zip(row, numeric, strict=True)
        return " & ".join(number(cell) if right else latex(cell) for cell, right in pairs) + r" \\"

    name = re.sub(r"\W+", "-", title.lower()).strip("-")
    rows = [row for _, group in groups for row in group]
    longest = [max(map(len, cells)) for cells in zip(headings, *rows, strict=True)]
    kinds = "".join(
        "r" if right else "l" if length <= LONG else r"p{6cm}"
        for right, length in zip(numeric, longest, strict=True)
    )
    lines = [
        "% Needs the packages booktabs and adjustbox.",
        *(r"\begin{table}", r"\centering", rf"\caption{{{latex(' '.join([f'{title}.', *notes]))}}}"),
        *(
            rf"\label{{tab:{name}}}",
            r"\begin{adjustbox}{max width=\textwidth, max totalheight=0.8\textheight}",
        ),
        *(
            rf"\begin{{tabular}}{{{kinds}}}",
            r"\toprule",
            " & ".join(map(latex, headings)) + r" \\",
            r"\midrule",
        ),
    ]
    for index, (key, group) in enumerate(groups):
        if key:
            lines += [r"\midrule"] if index else []
            lines.append(rf"\multicolumn{{{len(headings)}}}{{l}}{{\textbf{{{latex(key)}}}}} \\")
        lines += map(line, group)
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{adjustbox}", r"\end{table}"]
    return "\n".join(lines) + "\n"
