"""Write the verdicts on the claims, which open Snakemake's report and are printed at the end of a run."""

from pathlib import Path

from robust_flatness.tables.records import read_csv

snakemake = snakemake  # noqa: F821 (given by Snakemake)
rows = read_csv(Path(snakemake.input.claims), need=["claim", "decides"]).to_dict("records")
width = max((len(row["claim"]) for row in rows), default=0)
lines: dict[str, str] = {}
for row in (row for row in rows if row["decides"] == "yes"):
    numbers = [f"{float(row[name]):.2f}" for name in ("value", "low", "high") if row[name]]
    interval = f" [{', '.join(numbers[1:])}]" if numbers[1:] else ""
    words = f"{row['statistic']}: {numbers[0]}{interval}" if numbers else row["note"]
    lines.setdefault(row["claim"], f"  {row['claim']:<{width}}  {row['verdict']:<14}  {words}")
opening = [
    f"**{snakemake.params.experiment}**: {snakemake.params.description}",
    "",
    "Verdicts on the claims of the talk, each with the first statistic that decides it (table *claims*)::",
    "",
    *lines.values(),
]
Path(snakemake.output[0]).write_text("\n".join(opening) + "\n", encoding="utf-8")
