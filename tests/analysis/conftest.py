"""The made-up experiment, and its judgement claim by claim."""

import functools

import made_up
import pytest

from robust_flatness.analysis import claims
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.folders import repository


@pytest.fixture(scope="module")
def spec():
    return claims.load_claims().model_copy(update={"resamples": 999})


@pytest.fixture(scope="module")
def true():
    return made_up.experiment()


@pytest.fixture(scope="module")
def judge(spec, true):
    """Verdict and findings of a claim of either file, the true experiment being the one that was printed."""

    known = {**spec.claims, **claims.load_claims(repository() / "config/later-claims.yaml").claims}

    @functools.cache
    def printed(name):
        return claims.findings(known[name], Evidence.of(true), spec)

    def judge(name, tables):
        claim = known[name]
        found = claims.findings(claim, Evidence.of(tables), spec, printed(name))
        return claims.verdict(claim, found), found

    return judge
