"""The numbers in the README and in docs/method.md are those of the committed tables."""

import csv
import itertools
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Experiments by their headings in the README.
EXPERIMENTS = {
    "CIFAR-10 16x16": "cifar10-mini",
    "Fashion-MNIST 8x8": "fashion",
    "digits 8x8": "digits",
    "printed": "paper",
}


def cell(row):
    """The verdict and the statistic that decides it first, as in the README."""
    verdict = row["verdict"].removesuffix(" in the printed numbers")
    return f"{verdict}: {numbers(row)}" if row["value"] else verdict


def numbers(row):
    """A statistic with its interval, as in the README."""
    value, *interval = (f"{float(row[name]):.2f}" for name in ("value", "low", "high") if row[name])
    return value + (f" [{', '.join(interval)}]" if interval else "")


def verdicts(experiment):
    with open(ROOT / f"docs/results/{experiment}/claims.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["decides"] == "yes"]
    return {row["claim"]: cell(row) for row in reversed(rows)}


def test_verdicts_are_those_of_the_tables():
    text = (ROOT / "README.md").read_text()
    block = text.split("<!-- verdicts -->")[1].split("<!-- end of verdicts -->")[0]
    found = [[part.strip() for part in line.strip("|").split("|")] for line in block.strip().splitlines()]
    (_, *headings), _, *found = found
    assert headings == [*EXPERIMENTS]
    tables = [verdicts(experiment) for experiment in EXPERIMENTS.values()]
    assert {row[0].split("`")[1] for row in found} == set(tables[0])
    for claim, *cells in found:
        assert cells == [table[claim.split("`")[1]] for table in tables]


def test_numbers_with_intervals_in_the_text_are_those_of_the_tables():
    before, _, rest = (ROOT / "README.md").read_text().partition("<!-- verdicts -->")
    text = " ".join((before + rest.partition("<!-- end of verdicts -->")[2]).split())
    known = set()
    tables = ("claims", "correlations", "later_claims")
    for experiment, table in itertools.product(EXPERIMENTS.values(), tables):
        with open(ROOT / f"docs/results/{experiment}/{table}.csv", newline="") as file:
            known |= {numbers(row) for row in csv.DictReader(file) if row["value"]}
    found = re.findall(r"-?\d+\.\d+ \[-?\d+\.\d+, -?\d+\.\d+\]", text)
    assert found
    assert not {*found} - known


def test_the_rank_correlation_is_that_of_the_table():
    found = re.search(r"Spearman's rho (\S+ \[\S+, \S+\])", (ROOT / "README.md").read_text()).group(1)
    with open(ROOT / "docs/results/fashion/claims.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["claim"] == "flat-is-robust"]
    statistic = "Spearman, average-case flatness in RLoss with"
    row = next(row for row in rows if row["statistic"].startswith(statistic))
    assert numbers(row) == found


def test_the_power_in_the_method_is_that_of_the_tables():
    script = [sys.executable, "benchmarks/power.py", "docs/results/fashion", "docs/results/cifar10-mini"]
    table = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"<!-- power -->\n{table}<!-- end of power -->" in (ROOT / "docs/method.md").read_text()
