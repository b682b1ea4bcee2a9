"""One set of numbers that figures and tables show."""

from functools import cached_property

import pandas as pd

from robust_flatness.analysis.evidence import Evidence
from robust_flatness.plotting import looks
from robust_flatness.tables import aggregate, frames


class Layer:
    """Numbers that a figure shows: an experiment's, or the paper's printed ones. `name` stands in titles;
    `beside` marks numbers beside an experiment's: hollow markers, dashed curves."""

    def __init__(self, name: str, tables: frames.Tables, beside: bool = False):
        self.name = name
        self.tables = tables
        self.beside = beside

    @cached_property
    def variants(self) -> pd.DataFrame:
        """A row per variant at the last checkpoint, as returned by `aggregate.with_differences`."""
        return aggregate.with_differences(self.tables.models)

    @cached_property
    def evidence(self) -> Evidence:
        """The tables as claims and coefficients see them."""
        return Evidence.of(self.tables)

    @property
    def counted(self) -> pd.DataFrame:
        """Variants that have learnt, identical models once: what correlations are computed over."""
        return self.evidence.models

    @property
    def learnt(self) -> pd.DataFrame:
        """Variants that have learnt, all of identical ones."""
        return self.variants[self.variants["learnt"]]

    @property
    def unlearnt(self) -> pd.DataFrame:
        """Variants that have not learnt: drawn apart and in no correlation."""
        return self.variants[~self.variants["learnt"]]

    @cached_property
    def others(self) -> pd.DataFrame:
        """Networks of others, which no correlation counts, a row each as in `variants`."""
        return aggregate.others(self.tables.models)

    @property
    def models(self) -> pd.DataFrame:
        """Variants and networks of others."""
        return pd.concat([self.variants, self.others])

    @cached_property
    def derived(self) -> pd.DataFrame:
        """Variants and models derived from them, without the differences."""
        return aggregate.variants_at(self.tables.models, derived=True)

    @cached_property
    def scaled(self) -> pd.DataFrame:
        """Scaled models beside those they were made from, over the same seeds."""
        return aggregate.with_scaled(self.tables.models)

    @cached_property
    def history(self) -> pd.DataFrame:
        """Training curves, averaged over seeds."""
        return aggregate.over_seeds(self.tables.history, ("variant", "epoch"))

    @cached_property
    def series(self) -> pd.DataFrame:
        """Loss and flatness at the snapshots, averaged over seeds."""
        return aggregate.over_seeds(self.tables.series, ("variant", "epoch"))

    @cached_property
    def landscape(self) -> pd.DataFrame:
        """RLoss along directions at the last checkpoints, averaged over the seeds that scaled models have."""
        landscape, models = self.tables.landscape, self.tables.models
        last = landscape[landscape["checkpoint"] == "last"]
        scaled = last["variant"].isin(models["variant"][aggregate.scaled(models)])
        if scaled.any():
            last = last[last["seed"].isin(last["seed"][scaled])]
        return aggregate.over_seeds(last, ("variant", "direction", "normalisation", "s"))

    def title(self, count: int | None = None) -> str:
        """Return the name with the number of variants, if any."""
        count = len(self.variants) if count is None else count
        return f"{self.name} ({count} variants)" if count or self.others.empty else self.name

    def spread(self, mark: str) -> str:
        """Return a sentence on what bars or bands show; "" with one seed a variant."""
        rows = self.variants[self.variants["seeds"] > 1]
        counts = sorted({int(count) for count in rows["seeds"]})
        if not counts:
            return ""
        who = ", ".join(map(looks.variant, rows["variant"])) if len(rows) < 4 else "variants"
        return f"{mark}: one standard deviation over {' or '.join(map(str, counts))} seeds of {who}."

    @property
    def apart(self) -> str:
        """Sentences on variants that have not learnt, and on identical models; "" if there are none."""
        groups: dict[str, list[str]] = {}
        for slug, same in self.evidence.repeated.items():
            groups.setdefault(same, [same]).append(slug)
        named = [("Not learnt (grey crosses; in no coefficient)", self.unlearnt["variant"])]
        named += [("Identical models, counted once", group) for group in groups.values()]
        shown = [(words, ", ".join(map(looks.variant, slugs))) for words, slugs in named]
        return " ".join(f"{words}: {names}." for words, names in shown if names)
