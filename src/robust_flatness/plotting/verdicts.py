"""Judged claims as a table: the verdicts, then each claim with its rule and its statistics."""

from pathlib import Path

from robust_flatness.analysis.claims import judge
from robust_flatness.plotting import typeset
from robust_flatness.plotting.notebook import Notebook

NOTE = (
    "A test with a sign holds if its 95 % confidence interval lies on that side of 0 and p < 0.05 "
    "(two-sided); else it is inconclusive if the interval contains the reference effect. Over variants or "
    "families, intervals are bootstraps (the wider of both) and p-values come from permutations. Tests "
    "marked (beside it) do not change the verdict. Published: the same statistic on the printed numbers. "
    "Talk: the value it states."
)
COLUMNS = {
    **{"statistic": "Statistic", "value": ("Value", 2), "low": ("95 % from", 2), "high": ("to", 2)},
    **{"interval_over": "over", "n": ("n", 0), "p": ("p", typeset.p_value), "reference": ("Reference", 2)},
    **{"published": ("Published", 2), "talk": ("Talk", 2), "shown": "Outcome", "note": "Note"},
}


def write(notebook: Notebook, title: str, rules: Path | None = None) -> Notebook:
    """Judge the claims of the file `rules` (None: `config/claims.yaml`) and write them as a table."""
    frame = judge(notebook.tables_with_examples, notebook.printed and notebook.printed.tables, rules)
    frame["section"] = frame["claim"] + ": " + frame["verdict"]
    frame["shown"] = frame["outcome"] + frame["decides"].map({"yes": "", "no": " (beside it)"})
    columns = {"claim": "claim", "verdict": notebook.experiment, "published_verdict": "printed numbers"}
    if notebook.printed is None:
        del columns["published_verdict"]
    title = f"{title}, judged on {notebook.experiment}"
    overview = typeset.displayed(frame.drop_duplicates("claim"), columns)
    blocks = [f"# {title}", typeset.grid(overview)]
    for section, rows in frame.groupby("section", sort=False):
        claim, table = rows.iloc[0], typeset.grid(typeset.displayed(rows, COLUMNS))
        blocks += [f"## {section}", claim["statement"], f"Rule: {claim['rule']}", table]
    page = "\n\n".join([*blocks, NOTE]) + "\n"
    texts = typeset.texts(frame, COLUMNS, title, [NOTE], "section")
    return notebook.write(texts | {".md": page, ".html": typeset.html(page)})
