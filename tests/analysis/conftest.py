"""The made-up experiment, and its judgement claim by claim."""

import functools

import made_up
import pytest

from robust_flatness.analysis import claims
from robust_flatness.analysis.evidence import Evidence


@pytest.fixture(scope="module")
def spec():
    return claims.load_claims().model_copy(update={"resamples": 999})


@pytest.fixture(scope="module")
def true():
    return made_up.experiment()


@pytest.fixture(scope="module")
def judge(spec, true):
    """Verdict and findings of one claim, the true experiment being the one that was printed."""

    @functools.cache
    def printed(name):
        return claims.findings(spec.claims[name], Evidence.of(true), spec)

    def judge(name, tables):
        claim = spec.claims[name]
        found = claims.findings(claim, Evidence.of(tables), spec, printed(name))
        return claims.verdict(claim, found), found

    return judge
