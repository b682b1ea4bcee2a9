"""Judged claims as a table: the verdicts, then each claim with its rule and its statistics."""

from collections.abc import Sequence

from robust_flatness.analysis.claims import Claim, claims_frame, verdicts_table
from robust_flatness.plotting import typeset

NOTE = (
    "A test with a sign holds if its 95 % confidence interval lies on that side of 0 and p < 0.05 (two-sided); "
    "else it is inconclusive if the interval contains the reference effect. Over variants or families, "
    "intervals are bootstraps (the wider of both) and p-values come from permutations. Tests marked (beside "
    "it) do not change the verdict. Published: the same statistic on the printed numbers. Talk: the value it "
    "states."
)


def texts(judged: Sequence[Claim], title: str, experiment: str) -> dict[str, str]:
    """Return {".csv": ..., ".md": ..., ...}: the verdicts, then each claim with its rule and statistics."""
    frame = claims_frame(judged)
    headings = {claim.name: f"{claim.name}: {claim.verdict}" for claim in judged}
    frame["section"] = frame["claim"].map(headings)
    frame["shown"] = frame["outcome"] + frame["decides"].map({"yes": "", "no": " (beside it)"})
    paragraphs = {
        headings[claim.name]: f"{claim.spec.statement}\n\nRule: {claim.spec.rule}" for claim in judged
    }
    columns = {
        "statistic": typeset.Column("Statistic"),
        "value": typeset.Column("Value", typeset.digits(2)),
        "low": typeset.Column("95 % from", typeset.digits(2)),
        "high": typeset.Column("to", typeset.digits(2)),
        "interval_over": typeset.Column("over"),
        "n": typeset.Column("n", typeset.digits(0)),
        "p": typeset.Column("p", typeset.p_value),
        "reference": typeset.Column("Reference", typeset.digits(2)),
        "published": typeset.Column("Published", typeset.digits(2)),
        "talk": typeset.Column("Talk", typeset.digits(2)),
        "shown": typeset.Column("Outcome"),
        "note": typeset.Column("Note"),
    }
    introduction = verdicts_table(judged, experiment)
    return typeset.texts(frame, columns, title, [NOTE], "section", paragraphs, introduction)
