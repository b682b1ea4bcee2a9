"""Inputs and outputs of a notebook, in the three ways it runs.

1. As a Snakemake script: the rule names the tables and the log.
2. As plain Python, `python figures/<name>.py [experiment]`, from any folder.
3. As a notebook: the environment variable `ROBUST_FLATNESS_EXPERIMENT` names the experiment (or `fashion`).
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from robust_flatness.errors import FileError
from robust_flatness.files import write_text
from robust_flatness.folders import workspace
from robust_flatness.plotting import looks, style
from robust_flatness.plotting.layer import Layer
from robust_flatness.tables import aggregate, frames, printed, schema

VARIABLE = "ROBUST_FLATNESS_EXPERIMENT"
DEFAULT = "fashion"
#: Key in a PNG's metadata with the reason why the figure could not be drawn.
NOT_DRAWN = "Not drawn"
#: Instructions for obtaining the data that a table lacks.
REMEDIES = {
    "models": "measure it (measures in the experiment's config), or add the column to the results table",
    "history": "train (snakemake --cores all), or start from a records.csv with history.csv beside it",
    "series": "add measures.series to the config",
    "landscape": "add measures.landscape to the config",
}


class Notebook:
    """The tables of the experiment in `directory` (`results/<experiment>`), the printed numbers to compare
    with, and the files that the notebook `name` writes in `figures/<experiment>/` or
    `paper_tables/<experiment>/` beside `results/`. At the end of a cell, what was written is shown."""

    def __init__(self, name: str, directory: Path):
        self.name, self.directory, self.experiment = name, directory, directory.name
        self._written: dict[str, Path] = {}
        looks.use(directory / "families.yaml")
        if not (directory / "records.csv").is_file():
            others = sorted(path.parent.name for path in directory.parent.glob("*/records.csv"))
            raise FileError(
                f"{directory / 'records.csv'}: no such file; run the experiment first, or name another one "
                f"after the notebook's name or in {VARIABLE} (there are {', '.join(others) or 'none'})"
            )

    def _repr_png_(self) -> bytes | None:
        return self._written[".png"].read_bytes() if ".png" in self._written else None

    def _repr_markdown_(self) -> str | None:
        return self._written[".md"].read_text(encoding="utf-8") if ".md" in self._written else None

    @cached_property
    def tables(self) -> frames.Tables:
        """The experiment's tables, without the long one of single examples."""
        return frames.read_tables(self.directory)

    @cached_property
    def tables_with_examples(self) -> frames.Tables:
        """The experiment's tables, all of them."""
        return replace(self.tables, examples=frames.read_examples(self.directory))

    @cached_property
    def published(self) -> Layer:
        """The paper's printed numbers in the same form."""
        return Layer("published, CIFAR-10", printed.read_published(), printed=True, beside=True)

    @cached_property
    def ours(self) -> Layer:
        """The experiment's numbers; `printed` if they are the paper's, with nothing to compare with."""
        keys = ["variant", "checkpoint", "test_rloss_pgd"]
        models = (tables.models.reindex(columns=keys) for tables in (self.tables, self.published.tables))
        ours, theirs = (frame.astype(object) for frame in models)
        return Layer(self.experiment, self.tables, printed=ours.equals(theirs))

    @property
    def printed(self) -> Layer | None:
        """The printed numbers beside ours; None where ours are the printed ones."""
        return None if self.ours.printed else self.published

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The experiment's numbers, then the printed ones, unless the experiment is the printed table."""
        return (self.ours,) if self.printed is None else (self.ours, self.printed)

    def beside(self, same: str, other: str = "") -> str:
        """Return a sentence on printed numbers beside ours: `same` and, for another dataset, `other`."""
        datasets = ({*layer.tables.models.get("dataset", ())} for layer in (self.ours, self.published))
        text = "; ".join(filter(None, [same, "" if next(datasets) == next(datasets) else other]))
        return f"{text}." if text and self.printed else ""

    def missing(self, *columns: str, table: str = "models") -> str:
        """Return which of `columns` the experiment lacks and how to get them; "" if none."""
        rows = getattr(self.ours, table)
        lacking = [schema.describe(name) for name in columns if not aggregate.has(rows, name)]
        return self.missing_unless(not lacking, ", ".join(lacking), REMEDIES[table])

    def missing_unless(self, there: object, what: str, remedy: str) -> str:
        """Return a sentence that `what` is missing and how to obtain it; "" if `there` is true."""
        if self.printed is None:
            remedy = "the paper shows it as a picture only; run an experiment (snakemake --cores all)"
        return "" if there else f"Missing: {what}. To get it: {remedy}."

    def show(self, draw: Callable[[], Figure], missing: str = "") -> "Notebook":
        """Draw the figure and write it as PDF and PNG; equal figures give equal bytes. If data are `missing`,
        write a line that says so instead, and the reason into the PNG's metadata (`NOT_DRAWN`)."""
        figure = style.line(f"Not drawn: {self.name}. {missing}") if missing else draw()
        for suffix, notes in ((".pdf", {}), (".png", {NOT_DRAWN: missing} if missing else {})):
            style.save(figure, self.output("figures", suffix), notes)
        return self

    def write(self, texts: dict[str, str]) -> "Notebook":
        """Write a table; `texts` maps each suffix to its contents."""
        for suffix, text in texts.items():
            write_text(self.output("paper_tables", suffix), text)
        return self

    def output(self, folder: str, suffix: str) -> Path:
        """Return the file to write, which is shown at the end of the cell; as plain Python, print it."""
        path = self.directory.absolute().parents[1] / folder / self.experiment / f"{self.name}{suffix}"
        self._written[suffix] = path
        if Path(sys.argv[0]).stem == self.name:
            print(path)
        return path


def inputs(name: str, snakemake: Any = None) -> Notebook:
    """Return the inputs and outputs of the notebook `name`. `snakemake` is the object that Snakemake puts
    into a script's globals (`globals().get("snakemake")`)."""
    if snakemake is not None:
        if snakemake.log:
            sys.stdout = sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")  # noqa: SIM115
        return Notebook(name, Path(snakemake.input.records).parent)
    script = Path(sys.argv[0]).stem == name
    given = sys.argv[1] if script and len(sys.argv) > 1 else os.environ.get(VARIABLE, DEFAULT)
    return Notebook(name, workspace() / "results" / given)
