"""The tests of which the rules in `config/claims.yaml` consist: a specification of each kind, which judges an
experiment."""

from typing import Annotated

from pydantic import Field

from robust_flatness.analysis.claim_tests import correlations, trainings, variants
from robust_flatness.analysis.claim_tests.base import FAILS, HOLDS, UNTESTABLE, Finding, Rules, Test

#: Any test; `kind` says which.
AnyTest = Annotated[
    trainings.Rise
    | trainings.Trend
    | trainings.EpochsBelow
    | trainings.Scaling
    | correlations.Correlation
    | correlations.Difference
    | correlations.Radius
    | correlations.Share
    | variants.Baseline
    | variants.EarlyStopping
    | variants.Hinge,
    Field(discriminator="kind"),
]

__all__ = ["FAILS", "HOLDS", "UNTESTABLE", "AnyTest", "Finding", "Rules", "Test"]
