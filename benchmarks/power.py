"""Power of the tests of robust overfitting: would a rise of the baseline of a given size be seen?

    python benchmarks/power.py docs/results/fashion docs/results/cifar10-mini [--write docs/method.md]

For each rise of the claim `robust-overfitting` (config/claims.yaml): the standard deviations of seeds,
examples and residuals in the kept values of single examples, and the probability that the 95 % interval lies
on the claimed side if the true rise is the printed one, or the smallest effect of interest. Rises without
enough seeds are left out. With --write the table replaces what stands between `<!-- power -->` and
`<!-- end of power -->` in that file.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from convergence import written

from robust_flatness.analysis.claim_tests.base import alternatives
from robust_flatness.analysis.claims import ClaimsSpec, load_claims
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.analysis.rises import Components, power, rise
from robust_flatness.tables.frames import read_examples, read_tables
from robust_flatness.tables.printed import read_published
from robust_flatness.tables.schema import describe, lookup

COLUMNS = (
    "data", "rise", "since", "seeds, examples", "sd of seeds, examples, residuals", "printed effect", "power",
    "smallest effect", "power",
)  # fmt: skip


def rows(folder: Path, spec: ClaimsSpec) -> Iterator[list[str]]:
    """Yield the rows of one experiment."""
    published = read_published()
    evidence = Evidence.of(replace(read_tables(folder), examples=read_examples(folder)))
    for test in spec.claims["robust-overfitting"].tests:
        if test.kind != "rise":
            continue
        measure = alternatives(test.measure)[0]
        values = rise(evidence.seeds, test.variant, measure, test.since).to_numpy(float)
        seeds, examples = values.shape
        if seeds < spec.minimum["seeds"] or examples < 2:
            continue
        components = Components.of(values)
        deviations = ", ".join(f"{math.sqrt(variance):.2f}" for variance in components)
        printed = float(rise(published, test.variant, measure, test.since).to_numpy(float).mean())
        smallest = spec.effects[lookup(measure).description.kind]
        cells = [folder.name, describe(measure), test.since, f"{seeds}, {examples}", deviations]
        cells += [f"{printed:+.2f}", f"{power(components, printed, seeds, examples):.2f}"]
        yield [*cells, f"{smallest:g}", f"{power(components, smallest, seeds, examples):.2f}"]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--write", type=Path, default=None)
    arguments = parser.parse_args()
    spec = load_claims()
    lines = [
        COLUMNS,
        ["---"] * len(COLUMNS),
        *(row for path in arguments.folders for row in rows(path, spec)),
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    print(table)
    if arguments.write is not None:
        arguments.write.write_text(written(arguments.write.read_text(), "power", table))


if __name__ == "__main__":
    sys.exit(main())
