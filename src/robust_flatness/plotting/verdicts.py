"""Judged claims as a table: the verdicts, then each claim with its rule and its statistics."""

from collections.abc import Sequence

from robust_flatness.analysis.claims import Claim, claims_frame
from robust_flatness.plotting import typeset

NOTE = (
    "A test with a sign holds if its 95 % confidence interval lies on that side of 0 and p < 0.05 (two- "
    "sided); else it is inconclusive if the interval contains the reference effect. Over variants or "
    "families, intervals are bootstraps (the wider of both) and p-values come from permutations. Tests "
    "marked (beside it) do not change the verdict. Published: the same statistic on the printed numbers. "
    "Talk: the value it states."
)


def texts(judged: Sequence[Claim], title: str, experiment: str) -> dict[str, str]:
    """Return {".csv": ..., ".md": ..., ...}: the verdicts, then each claim with its rule and statistics."""
    frame = claims_frame(judged)
    headings = {claim.name: f"{claim.name}: {claim.verdict}" for claim in judged}
    frame["section"] = frame["claim"].map(headings)
    frame["shown"] = frame["outcome"] + frame["decides"].map({"yes": "", "no": " (beside it)"})
    specs = {headings[claim.name]: claim.spec for claim in judged}
    paragraphs = {heading: f"{spec.statement}\n\nRule: {spec.rule}" for heading, spec in specs.items()}
    two = typeset.digits(2)
    shown = {"statistic": ("Statistic",), "value": ("Value", two), "low": ("95 % from", two)}
    shown |= {"high": ("to", two), "interval_over": ("over",), "n": ("n", typeset.digits(0))}
    shown |= {"p": ("p", typeset.p_value), "reference": ("Reference", two), "published": ("Published", two)}
    shown |= {"talk": ("Talk", two), "shown": ("Outcome",), "note": ("Note",)}
    columns = {name: typeset.Column(*column) for name, column in shown.items()}
    both = not all(claim.printed for claim in judged)
    rows = [("claim", experiment, "printed numbers"), ("---",) * 3]
    rows += [(claim.name, claim.verdict, claim.published_verdict) for claim in judged]
    verdicts = "\n".join(f"| {' | '.join(row[: 2 + both])} |" for row in rows)
    return typeset.texts(frame, columns, title, [NOTE], "section", paragraphs, verdicts)
