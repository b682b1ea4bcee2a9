"""Judgement of claims on an experiment: `config/claims.yaml` (the paper's), `config/later-claims.yaml`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from robust_flatness.analysis.claim_tests import base, trainings, variants
from robust_flatness.analysis.claim_tests.base import FAILS, HOLDS, INCONCLUSIVE, Finding, Rules
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.config import ConfigError, Spec, load_yaml, parse
from robust_flatness.config.values import meant
from robust_flatness.folders import repository
from robust_flatness.tables import frames, schema

REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE = "reproduced", "not reproduced", base.UNTESTABLE
#: Verdicts on the printed numbers, which reproduce nothing.
PRINTED = {REPRODUCED: HOLDS, NOT_REPRODUCED: FAILS}

#: A test of any kind.
AnyTest = Annotated[trainings.Kind | variants.Kind, Field(discriminator="kind")]
#: Fields of a test that name columns, families and variants.
NAMES = {
    **dict.fromkeys(("measure", "minus", "against", "given"), "column"),
    **{"variant": "variant", "baseline": "variant", "families": "family", "without": "variant or family"},
}


class ClaimSpec(Spec):
    """A claim, its rule in words and as tests, and its place on the page: axes of the plot, or a section."""

    statement: str = Field(min_length=1)
    rule: str = Field(min_length=1)
    page: Mapping[Literal["x", "y", "section"], str] = Field(default_factory=dict)
    tests: tuple[AnyTest, ...] = Field(min_length=1)


class ClaimsSpec(Rules):
    """A file of claims."""

    claims: Mapping[str, ClaimSpec]


def findings(
    claim: ClaimSpec, evidence: Evidence, rules: Rules, printed: Sequence[Finding] | None = None
) -> list[Finding]:
    """Return the findings of a claim's tests on one experiment, given those on the printed numbers."""
    pairs = zip(claim.tests, printed or [None] * len(claim.tests), strict=True)
    return [test.judge(evidence, rules, theirs) for test, theirs in pairs]


def verdict(claim: ClaimSpec, found: Sequence[Finding]) -> str:
    """Return the verdict of the tests that decide."""
    outcomes = {finding.outcome for test, finding in zip(claim.tests, found, strict=True) if test.decides}
    if FAILS in outcomes:
        return NOT_REPRODUCED
    if NOT_TESTABLE in outcomes:
        return NOT_TESTABLE
    return REPRODUCED if outcomes == {HOLDS} else INCONCLUSIVE


def load_claims(path: Path | None = None) -> ClaimsSpec:
    """Load the rules of `config/claims.yaml` and the claims of a file, by default the same. Raises
    `ConfigError` if a test has an unknown kind or field, or lacks one."""
    rules = repository() / "config" / "claims.yaml"
    path = path or rules
    general, given = load_yaml(rules), load_yaml(path)
    for name in ("minimum", "effects"):
        given[name] = general[name] | given.get(name, {})
    return parse(ClaimsSpec, general | given, str(path))


def judge(
    tables: frames.Tables, published: frames.Tables | None = None, path: Path | None = None
) -> pd.DataFrame:
    """Judge every claim of a file on an experiment and, for comparison, on the printed numbers (None: the
    experiment's tables are the printed ones).

    Returns a row per test: claim, verdicts, statistic, interval, n, p, published value, outcome, rule. A
    statistic that occurs twice in a claim (also as the weaker rule) has one row. Raises `ConfigError` if the
    file is invalid, or names a column, variant or family that neither the tables nor the catalogue know.
    """
    spec = load_claims(path)
    _check_names(spec, [tables, *([published] if published else [])])
    ours, theirs = Evidence.of(tables), published and Evidence.of(published)
    rows = []
    for name, claim in spec.claims.items():
        printed = findings(claim, theirs or ours, spec)
        found = findings(claim, ours, spec, printed) if theirs else printed
        words = verdict(claim, printed)
        words = f"{PRINTED.get(words, words)} in the printed numbers"
        verdicts = {"verdict": verdict(claim, found) if theirs else words, "published_verdict": words}
        for test, finding, there in zip(claim.tests, found, printed, strict=True):
            row = {"claim": name, **verdicts, "statistic": finding.statistic, "value": finding.value}
            row |= finding.interval._asdict()
            row |= {"interval_over": finding.over, "n": finding.n, "p": finding.p}
            # A weaker rule may have judged the printed numbers.
            row["published"] = there.value if there.statistic == finding.statistic else math.nan
            row |= {"reference": finding.reference, "talk": math.nan if test.talk is None else test.talk}
            row |= {"outcome": finding.outcome, "decides": "yes" if test.decides else "no"}
            rows.append(row | {"note": finding.note, "statement": claim.statement, "rule": claim.rule})
    return pd.DataFrame(rows).drop_duplicates(["claim", "statistic"], ignore_index=True)


def _check_names(spec: ClaimsSpec, experiments: Sequence[frames.Tables]) -> None:
    """Raise `ConfigError` for unknown columns, families and variants, whose tests would lack data."""
    catalogue = frames.catalogue()
    known = {"column": set(), "variant": {*catalogue}, "family": {v.family for v in catalogue.values()}}
    for tables in experiments:
        known["column"] |= {*tables.models, *tables.history, *tables.series}
        known["family"] |= {*tables.models["family"]}
        known["variant"] |= {*tables.models["variant"]}
    known["variant or family"] = known["variant"] | known["family"]
    problems = [
        f"claims.{name}.{place}: unknown {what} {given!r}{meant(given, sorted(known[what]))}"
        for name, claim in spec.claims.items()
        for place, what, given in _names(claim)
        if given not in known[what] and not (what == "column" and schema.is_known(given))
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _names(claim: ClaimSpec) -> Iterator[tuple[str, str, str]]:
    """Yield the columns, families and variants that a claim names: place, word for what it is, name."""
    yield from ((f"page.{axis}", "column", given) for axis, given in claim.page.items() if axis != "section")
    for number, test in enumerate(claim.tests):
        for part in filter(None, (test, getattr(test, "otherwise", None))):
            for field, what in NAMES.items():
                for given in base.alternatives(getattr(part, field, None)):
                    yield f"tests.{number}", what, given
