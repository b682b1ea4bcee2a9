"""The paper's claims, judged on an experiment by the rules in `config/claims.yaml`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from robust_flatness import tables as results
from robust_flatness.analysis.claim_tests import FAILS, KINDS, UNTESTABLE, Finding, Rules
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.config import load_yaml

REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE = "reproduced", "not reproduced", "not testable"


@dataclass(frozen=True)
class Claim:
    """A claim with its findings, and those of the same tests on the printed numbers."""

    name: str
    statement: str
    rule: str
    tests: tuple[Mapping[str, Any], ...]
    findings: tuple[Finding, ...] = ()
    published: tuple[Finding, ...] = ()

    @property
    def verdict(self) -> str:
        deciding = [
            finding.outcome
            for test, finding in zip(self.tests, self.findings, strict=True)
            if test.get("decides", True)
        ]
        if FAILS in deciding:
            return NOT_REPRODUCED
        return NOT_TESTABLE if UNTESTABLE in deciding else REPRODUCED


def load_claims(path: Path | None = None) -> tuple[Rules, list[Claim]]:
    """The rules and claims of `config/claims.yaml`, not yet judged."""
    raw = load_yaml(path or results.repository() / "config" / "claims.yaml")
    rules = Rules(raw["significance"], raw["level"], raw["resamples"], **raw["minimum"])
    claims = [
        Claim(name, entry["statement"], entry["rule"], tuple(entry["tests"]))
        for name, entry in raw["claims"].items()
    ]
    return rules, claims


def judge(
    tables: results.Tables, published: results.Tables | None = None, path: Path | None = None
) -> list[Claim]:
    """Every claim with its findings on an experiment and, for comparison, on the printed numbers
    (None: the experiment's tables are the printed numbers)."""
    rules, claims = load_claims(path)

    def findings(evidence: Evidence, claim: Claim) -> tuple[Finding, ...]:
        return tuple(KINDS[test["kind"]](evidence, test, rules) for test in claim.tests)

    ours = Evidence.of(tables)
    judged = [replace(claim, findings=findings(ours, claim)) for claim in claims]
    if published is None:
        return [replace(claim, published=claim.findings) for claim in judged]
    theirs = Evidence.of(published)
    return [replace(claim, published=findings(theirs, claim)) for claim in judged]


def claims_frame(claims: Sequence[Claim]) -> pd.DataFrame:
    """A row per test: claim, verdict, statistic, interval, n, p, published value, outcome, rule."""
    rows = [
        {
            "claim": claim.name,
            "verdict": claim.verdict,
            "statistic": finding.statistic,
            "value": finding.value,
            "low": finding.interval.low,
            "high": finding.interval.high,
            "interval_over": finding.over,
            "n": finding.n,
            "p": finding.p,
            "published": theirs.value,
            "talk": test.get("talk", math.nan),
            "outcome": finding.outcome,
            "decides": "yes" if test.get("decides", True) else "no",
            "note": finding.note,
            "statement": claim.statement,
            "rule": claim.rule,
        }
        for claim in claims
        for test, finding, theirs in zip(claim.tests, claim.findings, claim.published, strict=True)
    ]
    return pd.DataFrame(rows)
