"""Judged claims as a table: the verdicts, then each claim with its rule and its statistics."""

from collections.abc import Sequence

from robust_flatness.analysis.claims import Claim, claims_frame, verdicts_table
from robust_flatness.plotting import tables

NOTE = (
    "A test with a sign holds if its 95 % interval lies on that side of 0 and p < 0.05 (two-sided). Over "
    "variants or families, intervals are bootstraps, of which the wider one is shown and decides, and "
    "p-values are of permutations. Tests marked (beside it) do not change the verdict. Published: the same "
    "statistic on the printed numbers. Talk: the value it states."
)


def texts(judged: Sequence[Claim], title: str, experiment: str) -> dict[str, str]:
    """The claims as {".csv": ..., ".md": ..., ".tex": ...}."""
    frame = claims_frame(judged)
    headings = {claim.name: f"{claim.name}: {claim.verdict}" for claim in judged}
    frame["section"] = frame["claim"].map(headings)
    frame["shown"] = frame["outcome"] + frame["decides"].map({"yes": "", "no": " (beside it)"})
    paragraphs = {
        headings[claim.name]: f"{claim.spec.statement}\n\nRule: {claim.spec.rule}" for claim in judged
    }
    columns = {
        "statistic": tables.Column("Statistic"),
        "value": tables.Column("Value", tables.digits(2)),
        "low": tables.Column("95 % from", tables.digits(2)),
        "high": tables.Column("to", tables.digits(2)),
        "interval_over": tables.Column("over"),
        "n": tables.Column("n", tables.digits(0)),
        "p": tables.Column("p", tables.p_value),
        "published": tables.Column("Published", tables.digits(2)),
        "talk": tables.Column("Talk", tables.digits(2)),
        "shown": tables.Column("Outcome"),
        "note": tables.Column("Note"),
    }
    verdicts = verdicts_table(judged, experiment)
    return tables.texts(frame, columns, title, [NOTE], "section", paragraphs, verdicts)
