"""Power of the tests of robust overfitting: would a rise of the baseline of a given size be seen?

    python benchmarks/power.py docs/results/fashion docs/results/cifar10-mini [--write docs/method.md]

For each rise of the claim `robust-overfitting` (config/claims.yaml): the standard deviations of seeds,
examples and residuals in the kept values of single examples, and the probability that the 95 % interval lies
on the claimed side if the true rise is the printed one, or the smallest effect of interest. With --write the
table replaces what stands between `<!-- power -->` and `<!-- end of power -->` in that file.
"""

import argparse
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

from robust_flatness.analysis.rises import Components, power, rise
from robust_flatness.config import load_yaml
from robust_flatness.tables.frames import read_examples, read_tables
from robust_flatness.tables.printed import read_published
from robust_flatness.tables.schema import describe

COLUMNS = (
    "data", "rise", "since", "seeds, examples", "sd of seeds, examples, residuals", "printed effect",
    "smallest effect", "power, printed effect", "smallest effect",
)  # fmt: skip


def rows(folder: Path, claims: dict):
    """Yield the rows of one experiment."""
    tables, printed = replace(read_tables(folder), examples=read_examples(folder)), read_published()
    for test in claims["claims"]["robust-overfitting"]["tests"]:
        if test["kind"] != "rise":
            continue
        measure, since = test["measure"], test["since"]
        values = rise(tables, "at", measure, since).to_numpy(float)
        if values.shape[0] < 2 or values.shape[1] < 2:
            continue
        components, (seeds, examples) = Components.of(values), values.shape
        deviations = ", ".join(f"{math.sqrt(variance):.2f}" for variance in components)
        effects = (
            float(rise(printed, "at", measure, since).to_numpy(float).mean()),
            claims["effects"]["loss" if "rloss" in measure else "error"],
        )
        powers = (f"{power(components, effect, seeds, examples):.2f}" for effect in effects)
        shown = (f"{effects[0]:+.2f}", f"{effects[1]:g}")
        yield [folder.name, describe(measure), since, f"{seeds}, {examples}", deviations, *shown, *powers]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--write", type=Path, default=None)
    arguments = parser.parse_args()
    claims = load_yaml(Path("config/claims.yaml"))
    found = [row for folder in arguments.folders for row in rows(folder, claims)]
    lines = [COLUMNS, ["---"] * len(COLUMNS), *found]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    print(table)
    if arguments.write is not None:
        marks = re.compile("(<!-- power -->\n).*?(\n<!-- end of power -->)", re.DOTALL)
        text = arguments.write.read_text()
        arguments.write.write_text(marks.sub(lambda found: found[1] + table + found[2], text))


if __name__ == "__main__":
    sys.exit(main())
