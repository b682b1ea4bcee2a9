"""One set of numbers that figures and tables show."""

from functools import cached_property

import pandas as pd

from robust_flatness.analysis.evidence import Evidence
from robust_flatness.plotting import looks
from robust_flatness.tables import aggregate, frames


class Layer:
    """One set of numbers that a figure shows: an experiment's, or the paper's printed ones.

    Parameters
    ----------
    name
        What it is called in titles.
    tables
        Its four tables.
    beside
        Whether it stands beside an experiment's own numbers: hollow markers, dashed curves.
    """

    def __init__(self, name: str, tables: frames.Tables, beside: bool = False):
        self.name = name
        self.tables = tables
        self.beside = beside

    def __getitem__(self, table: str):
        """A table by its name; of the models, the last checkpoints, networks of others too."""
        return self.models if table == "models" else getattr(self, table)

    @cached_property
    def variants(self):
        """A row per variant, averaged over seeds, at the last checkpoint, with the differences to
        the early-stopped one (`aggregate.with_differences`)."""
        return aggregate.with_differences(self.tables.models)

    @cached_property
    def evidence(self) -> Evidence:
        """The tables as claims and coefficients see them."""
        return Evidence.of(self.tables)

    @property
    def counted(self):
        """Variants that have learnt, each model once: what correlations are made of."""
        return self.evidence.models

    @property
    def learnt(self):
        """Variants that have learnt, those that came out as one model too."""
        return self.variants[self.variants["learnt"]]

    @property
    def unlearnt(self):
        """Variants that have not learnt: drawn apart and in no correlation."""
        return self.variants[~self.variants["learnt"]]

    def spread(self, what: str) -> str:
        """What bars or bands mean, with the number of seeds; "" where all variants have one."""
        rows = self.variants[self.variants["seeds"] > 1]
        counts = sorted({int(count) for count in rows["seeds"]})
        if not counts:
            return ""
        who = ", ".join(map(looks.variant, rows["variant"])) if len(rows) < 4 else "variants"
        return f"{what}: one standard deviation over {' or '.join(map(str, counts))} seeds of {who}."

    @property
    def note(self) -> str:
        """What bars mean, which variants have not learnt, and which came out as one model."""
        return " ".join(filter(None, [self.spread("Bars"), self.apart]))

    @property
    def apart(self) -> str:
        """Which variants have not learnt, and which came out as one model; "" if none."""
        sentences = []
        names = ", ".join(map(looks.variant, self.unlearnt["variant"]))
        if names:
            sentences.append(
                "Not learnt (clean training error near that of a guess), grey crosses in figures, in no "
                f"coefficient: {names}."
            )
        groups: dict[str, list[str]] = {}
        for slug, same in self.evidence.repeated.items():
            groups.setdefault(same, [same]).append(slug)
        for group in groups.values():
            sentences.append(f"Came out as one model, counted once: {', '.join(map(looks.variant, group))}.")
        return " ".join(sentences)

    @cached_property
    def derived(self):
        """The same with derived models, without the differences."""
        return aggregate.variants_at(self.tables.models, derived=True)

    @cached_property
    def scaled(self):
        """Scaled models beside those they were made from, seed by seed."""
        return aggregate.with_scaled(self.tables.models)

    @cached_property
    def history(self):
        """Training curves, averaged over seeds."""
        return aggregate.over_seeds(self.tables.history, ("variant", "epoch"))

    @cached_property
    def series(self):
        """Loss and flatness over the snapshots, averaged over seeds."""
        return aggregate.over_seeds(self.tables.series, ("variant", "epoch"))

    @cached_property
    def landscape(self):
        """RLoss along directions at the last checkpoints, averaged over seeds."""
        last = self.tables.landscape[self.tables.landscape["checkpoint"] == "last"]
        models = self.tables.models
        scaled = last["variant"].isin(models["variant"][aggregate.scaled(models)])
        if scaled.any():  # seed by seed: a scaled model beside the one that it was made from
            last = last[last["seed"].isin(last["seed"][scaled])]
        return aggregate.over_seeds(last, ("variant", "direction", "normalisation", "s"))

    @cached_property
    def others(self):
        """Networks of others that no correlation counts, a row each as in `variants`."""
        return aggregate.others(self.tables.models)

    @property
    def models(self):
        """Variants, and networks of others."""
        return pd.concat([self.variants, self.others])

    def title(self, count: int | None = None) -> str:
        """The name, with how many variants it has, if any."""
        count = len(self.variants) if count is None else count
        return f"{self.name} ({count} variants)" if count or self.others.empty else self.name
