"""The test of what happens to the baseline after the first drop of its learning rate."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from robust_flatness.analysis.claim_tests.base import Finding, Rules, Sign, Test, judged, noted
from robust_flatness.analysis.claim_tests.epochs import Epochs, Trend
from robust_flatness.analysis.evidence import Evidence
from robust_flatness.analysis.resampling import crossed_interval
from robust_flatness.config import parse_list
from robust_flatness.tables import schema


class Rise(Test):
    """Measure at the end minus at the last snapshot before the first drop, paired within seeds and
    examples; the interval is over both (`resampling.crossed_interval`), or over seeds alone (Student's
    t) where the measure is no mean over examples that were kept.

    Of several measures the first one that was measured. `otherwise` is a weaker rule for tables with too
    few seeds: a trend over the epochs of one training, whose points are not independent.
    """

    kind: Literal["rise"]
    variant: str
    measure: Annotated[tuple[str, ...], BeforeValidator(parse_list), Field(min_length=1)]
    sign: Sign
    otherwise: Annotated[Trend | Epochs, Field(discriminator="kind")] | None = None

    def columns(self) -> list[str]:
        return [*self.measure, *(self.otherwise.columns() if self.otherwise else [])]

    def judge(self, evidence: Evidence, rules: Rules) -> Finding:
        rises = {measure: evidence.rise(self.variant, measure) for measure in self.measure}
        measure = max(self.measure, key=lambda measure: len(rises[measure]))
        seeds, examples = rises[measure].shape
        name = f"{schema.describe(measure)} of {self.variant}, end minus before the first drop of the rate"
        least = rules.minimum.seeds
        if seeds < least:
            few = f"{seeds} seed{'s' if seeds != 1 else ''} with both checkpoints, {least} needed"
            if self.otherwise is None:
                return Finding(name, n=seeds, note=few)
            weaker = self.otherwise.judge(evidence, rules)
            return noted(weaker, f"{few}: judged by the weaker rule, the trend over epochs")
        interval, p = crossed_interval(rises[measure], rules.resamples, rules.level)
        over = f"seeds and {examples} examples" if examples > 1 else "seeds"
        found = Finding(name, float(rises[measure].mean()), interval, over, p, seeds)
        return judged(found, self.sign, rules)
