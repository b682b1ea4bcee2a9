"""The verdicts in the README are those of the committed tables."""

import csv
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ("fashion", "digits", "cifar10-mini", "paper")


def cell(row):
    """The verdict and the statistic that decides it first, as in the README."""
    numbers = [f"{float(row[name]):.2f}" for name in ("value", "low", "high") if row[name]]
    interval = f" [{', '.join(numbers[1:])}]" if numbers[1:] else ""
    verdict = row["verdict"].removesuffix(" in the printed numbers")
    return f"{verdict}: {numbers[0]}{interval}" if numbers else verdict


def verdicts(experiment):
    with open(ROOT / f"docs/results/{experiment}/claims.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["decides"] == "yes"]
    return {row["claim"]: cell(row) for row in reversed(rows)}


def test_verdicts_are_those_of_the_tables():
    text = (ROOT / "README.md").read_text()
    block = text.split("<!-- verdicts -->")[1].split("<!-- end of verdicts -->")[0]
    found = [[part.strip() for part in line.strip("|").split("|")] for line in block.strip().splitlines()[2:]]
    tables = [verdicts(experiment) for experiment in EXPERIMENTS]
    assert {row[0].split("`")[1] for row in found} == set(tables[0])
    for claim, *cells in found:
        assert cells == [table[claim.split("`")[1]] for table in tables]


def test_the_rank_correlation_is_that_of_the_table():
    found = re.search(r"Spearman's rho (\S+ \[\S+, \S+\])", (ROOT / "README.md").read_text()).group(1)
    with open(ROOT / "docs/results/fashion/claims.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["claim"] == "flat-is-robust"]
    row = next(
        row for row in rows if row["statistic"].startswith("Spearman, average-case flatness in RLoss with")
    )
    assert cell(row).partition(": ")[2] == found
