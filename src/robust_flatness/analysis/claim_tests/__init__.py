"""The tests of which the rules in `config/claims.yaml` consist: a specification of each kind, which judges an
experiment."""

from typing import Annotated

from pydantic import Field

from robust_flatness.analysis.claim_tests.base import (
    FAILS,
    HOLDS,
    INCONCLUSIVE,
    UNTESTABLE,
    Finding,
    Rules,
    Test,
)
from robust_flatness.analysis.claim_tests.correlations import Correlation, Difference, Radius, Share
from robust_flatness.analysis.claim_tests.trainings import Rise, Scaling, Trend
from robust_flatness.analysis.claim_tests.variants import Baseline, EarlyStopping, Hinge

#: Any test; `kind` says which.
AnyTest = Annotated[
    Rise | Trend | EarlyStopping | Correlation | Difference | Radius | Baseline | Share | Scaling | Hinge,
    Field(discriminator="kind"),
]

__all__ = ["FAILS", "HOLDS", "INCONCLUSIVE", "UNTESTABLE", "AnyTest", "Finding", "Rules", "Test"]
