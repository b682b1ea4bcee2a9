"""The first page of Snakemake's report: the experiment and the verdicts on the claims."""

from pathlib import Path

from robust_flatness.tables.records import read_csv

snakemake = snakemake  # noqa: F821 (given by Snakemake)
claims = read_csv(Path(snakemake.input.claims), need=["claim", "verdict"])
verdicts = dict(zip(claims["claim"], claims["verdict"], strict=True))
lines = [
    f"**{snakemake.params.experiment}**: {snakemake.params.description}",
    "",
    "Verdicts on the claims of the talk (statistics, rules and the printed numbers: table *claims*):",
    "",
    ".. list-table::",
    "   :header-rows: 1",
    "",
    *("   * - claim", "     - verdict"),
]
for claim, verdict in verdicts.items():
    lines += [f"   * - {claim}", f"     - {verdict}"]
Path(snakemake.output[0]).write_text("\n".join(lines) + "\n", encoding="utf-8")
