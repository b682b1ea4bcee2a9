"""Data source of figures and tables: an experiment's numbers, or the paper's printed ones."""

from functools import cached_property

import pandas as pd

from robust_flatness.analysis.evidence import Evidence
from robust_flatness.plotting import looks
from robust_flatness.tables import aggregate, frames


class Layer:
    """Numbers that a figure shows: an experiment's, or the paper's (`printed`). `name` stands in titles;
    `beside` marks numbers drawn beside an experiment's: hollow markers, dashed curves."""

    def __init__(self, name: str, tables: frames.Tables, printed: bool = False, beside: bool = False):
        self.name, self.tables, self.printed, self.beside = name, tables, printed, beside

    @cached_property
    def variants(self) -> pd.DataFrame:
        """A row per variant at the last checkpoint, as returned by `aggregate.with_differences`."""
        return aggregate.with_differences(self.tables.models)

    @cached_property
    def evidence(self) -> Evidence:
        """The tables in the form that claims and correlations use."""
        return Evidence.of(self.tables)

    @property
    def counted(self) -> pd.DataFrame:
        """Variants over which correlations are computed: those that have learnt, identical models once."""
        return self.evidence.models

    @cached_property
    def others(self) -> pd.DataFrame:
        """External networks, which are excluded from correlations, a row each as in `variants`."""
        models = self.tables.models
        apart = aggregate.external(models) & (models["derived"] == 1)
        return aggregate.with_differences(models[apart].assign(derived=0))

    @property
    def models(self) -> pd.DataFrame:
        """Variants and external networks."""
        return pd.concat([self.variants, self.others])

    def hollow(self, robustbench: bool = False) -> pd.DataFrame:
        """Return the external networks to draw: an experiment's; printed ones only if `robustbench`."""
        return self.others if robustbench or not self.printed else self.others.iloc[:0]

    @cached_property
    def scaled(self) -> pd.DataFrame:
        """Scaled models and the models they were made from, over the same seeds."""
        return aggregate.with_scaled(self.tables.models)

    @property
    def history(self) -> pd.DataFrame:
        """Training curves, averaged over the seeds that have learnt; over all seeds if none has."""
        return self.evidence.complete.history

    @property
    def series(self) -> pd.DataFrame:
        """Loss and flatness at the snapshots, averaged over the same seeds as `history`."""
        return self.evidence.complete.series

    @cached_property
    def landscape(self) -> pd.DataFrame:
        """RLoss along directions at the last checkpoints, averaged over the seeds of the scaled copies."""
        last = self.tables.landscape.query("checkpoint == 'last'")
        scaled = self.tables.models["variant"][aggregate.scaled(self.tables.models)]
        seeds = last["seed"][last["variant"].isin(scaled)]
        last = last[last["seed"].isin(seeds)] if len(seeds) else last
        return aggregate.over_seeds(last, ("variant", "direction", "normalisation", "s"))

    def spread(self, mark: str) -> str:
        """Return a sentence on the meaning of bars or bands; "" with one seed per variant."""
        rows = self.variants[self.variants["seeds"] > 1]
        counts = " or ".join(f"{count:g}" for count in sorted({*rows["seeds"]}))
        who = ", ".join(map(looks.variant, rows["variant"])) if len(rows) < 4 else "variants"
        return f"{mark}: one standard deviation over {counts} seeds of {who}." if counts else ""

    def apart(self, mark: str = "") -> str:
        """Return sentences that list the variants that have not learnt, with the `mark` at which a plot draws
        them, and identical models, at most eight names each; "" if there are none."""
        repeated = pd.Series(self.evidence.repeated, dtype=object)
        same = [[first, *slugs.index] for first, slugs in repeated.groupby(repeated, sort=False)]
        named = [("Identical models, counted once", slugs) for slugs in same]
        unlearnt = self.variants.loc[~self.variants["learnt"], "variant"]
        if len(unlearnt):
            named.insert(0, ("Not learnt, in no coefficient" + (f" ({mark})" if mark else ""), unlearnt))
        sentences = []
        for words, slugs in named:
            more = f" and {len(slugs) - 8} more" if len(slugs) > 8 else ""
            sentences.append(f"{words}: {', '.join(map(looks.variant, slugs[:8]))}{more}.")
        return " ".join(sentences)
