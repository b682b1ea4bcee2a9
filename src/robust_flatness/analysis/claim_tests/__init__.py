"""The tests that the rules of `config/claims.yaml` are made of: a spec for each kind, which reads its
fields from the file and judges an experiment."""

from typing import Annotated

from pydantic import Field

from robust_flatness.analysis.claim_tests.base import FAILS, HOLDS, UNTESTABLE, Finding, Rules, Test
from robust_flatness.analysis.claim_tests.correlations import Correlation, Difference, Radius
from robust_flatness.analysis.claim_tests.epochs import Epochs, EpochsBelow, Trend
from robust_flatness.analysis.claim_tests.hinge import HingeBreak, HingeFit, HingeSlopes
from robust_flatness.analysis.claim_tests.later import Partial, Share
from robust_flatness.analysis.claim_tests.pairs import Baseline, EarlyStopping
from robust_flatness.analysis.claim_tests.rise import Rise
from robust_flatness.analysis.claim_tests.scaling import Scaling

#: Any test; `kind` says which.
AnyTest = Annotated[
    Rise
    | Trend
    | Epochs
    | EpochsBelow
    | EarlyStopping
    | Correlation
    | Difference
    | Radius
    | Baseline
    | Partial
    | Share
    | Scaling
    | HingeBreak
    | HingeSlopes
    | HingeFit,
    Field(discriminator="kind"),
]

__all__ = ["FAILS", "HOLDS", "UNTESTABLE", "AnyTest", "Finding", "Rules", "Test"]
