"""A notebook's inputs and outputs, in the three ways it runs.

1. As a Snakemake script: the rule says where the tables are and what to write.
2. As plain Python, `python figures/<name>.py [experiment]`.
3. As a notebook, where the environment variable `ROBUST_FLATNESS_EXPERIMENT` names the experiment.

Without a name the experiment is `fashion`.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robust_flatness import tables as results
from robust_flatness.errors import FileError
from robust_flatness.files import atomic_path, write_text
from robust_flatness.plotting import looks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VARIABLE = "ROBUST_FLATNESS_EXPERIMENT"
DEFAULT = "fashion"

#: How to get what a table lacks.
REMEDIES = {
    "models": "measure it (measures in the experiment's config), or add the column to the results table",
    "history": "train (snakemake --cores all), or put history.csv beside the results table",
    "series": "add measures.series to the config, or put series.csv beside the results table",
    "landscape": "add measures.landscape to the config, or put landscape.csv beside the results table",
}


@dataclass(frozen=True)
class Saved:
    """What a notebook wrote; shown as a picture or as text at the end of a cell."""

    paths: tuple[Path, ...]

    def _repr_png_(self) -> bytes | None:
        pictures = [path for path in self.paths if path.suffix == ".png"]
        return pictures[0].read_bytes() if pictures else None

    def _repr_markdown_(self) -> str | None:
        texts = [path for path in self.paths if path.suffix == ".md"]
        return texts[0].read_text(encoding="utf-8") if texts else None

    def __repr__(self) -> str:
        return "\n".join(str(path) for path in self.paths)


class Notebook:
    """Tables of one experiment, the printed numbers to compare with, and where to write.

    Parameters
    ----------
    name
        The notebook's, and so its outputs'.
    directory
        Folder of the experiment's tables, `results/<experiment>`.
    outputs
        Files to write; their suffixes say which is which. None: the usual places, beside
        `results/`.
    families
        Files that say how families are drawn. None: the repository's, and the experiment's own.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        outputs: Sequence[Path] | None = None,
        families: Sequence[Path] | None = None,
    ):
        self.name = name
        self.directory = Path(directory)
        self._outputs = outputs
        own = self.directory / "families.yaml"
        looks.use(*(families or [looks.file(), *([own] if own.exists() else [])]))
        if not (self.directory / "models.csv").is_file():
            others = sorted(path.parent.name for path in self.directory.parent.glob("*/models.csv"))
            raise FileError(
                f"{self.directory / 'models.csv'}: no such file; run the experiment first, or name another "
                f"one after the notebook's name or in {VARIABLE}"
                + (f" (there are {', '.join(others)})" if others else "")
            )

    @property
    def experiment(self) -> str:
        return self.directory.name

    @cached_property
    def tables(self) -> results.Tables:
        return results.read_tables(self.directory)

    @property
    def models(self):
        """Every model measured: a row per variant, seed and checkpoint."""
        return self.tables.models

    @cached_property
    def variants(self):
        """A row per variant, averaged over seeds, at the last checkpoint, with the differences to
        the early-stopped one (`results.with_differences`)."""
        return results.with_differences(self.models)

    @cached_property
    def history(self):
        """Training curves, averaged over seeds."""
        return results.over_seeds(self.tables.history, ("variant", "epoch"))

    @cached_property
    def series(self):
        """Loss and flatness over the snapshots, averaged over seeds."""
        return results.over_seeds(self.tables.series, ("variant", "epoch"))

    @cached_property
    def published(self) -> "Published":
        """The paper's printed numbers in the same form."""
        return Published(results.read_published())

    @cached_property
    def is_paper(self) -> bool:
        """Whether this experiment *is* the printed numbers, so that there is nothing to compare."""
        keys = ["variant", "checkpoint", "test_rloss_pgd"]
        ours, theirs = (
            frame.reindex(columns=keys).reset_index(drop=True)
            for frame in (self.models, self.published.tables.models)
        )
        return ours.equals(theirs)

    @cached_property
    def same_data(self) -> bool:
        """Whether absolute values compare with the published ones (CIFAR-10, or the paper itself)."""
        return results.same_data(self.models, self.published.tables.models)

    def missing(self, *columns: str, table: str = "models") -> str:
        """What of `columns` the experiment lacks, and how to get it; "" if nothing."""
        frames = {"models": self.variants, "history": self.history, "series": self.series}
        frame = frames.get(table, self.tables.landscape)
        lacking = [results.describe(name) for name in columns if not results.has(frame, name)]
        if not lacking:
            return ""
        remedy = REMEDIES[table]
        if self.is_paper:
            remedy = "the paper shows it as a picture only; run an experiment, snakemake --cores all"
        return f"Missing: {', '.join(lacking)}.\nTo get it: {remedy}."

    def outputs(self, folder: str, suffixes: Sequence[str]) -> dict[str, Path]:
        """Where to write: suffix -> path."""
        if self._outputs is not None:
            return {path.suffix: path for path in map(Path, self._outputs)}
        root = self.directory.resolve().parents[1]
        return {suffix: root / folder / self.experiment / f"{self.name}{suffix}" for suffix in suffixes}

    def save(self, figure: "Figure") -> Saved:
        """Write the figure as PDF and PNG; the same figure gives the same bytes."""
        from robust_flatness.plotting.style import freeze

        paths = self.outputs("figures", (".pdf", ".png"))
        freeze(figure)
        for suffix, path in paths.items():
            with atomic_path(path) as temporary:
                metadata = {"CreationDate": None} if suffix == ".pdf" else None
                figure.savefig(temporary, format=suffix[1:], metadata=metadata)
        return self._saved(paths)

    def write(self, texts: dict[str, str]) -> Saved:
        """Write a table; `texts` maps ".csv", ".md" and ".tex" to their contents."""
        paths = self.outputs("paper_tables", (".csv", ".md", ".tex"))
        for suffix, path in paths.items():
            write_text(path, texts[suffix])
        return self._saved(paths)

    def _saved(self, paths: dict[str, Path]) -> Saved:
        saved = Saved(tuple(paths.values()))
        if Path(sys.argv[0]).stem == self.name:  # as plain Python; a notebook shows what it has made
            print(saved)
        return saved


class Published:
    """The printed numbers, as a notebook has its own."""

    def __init__(self, tables: results.Tables):
        self.tables = tables
        self.variants = results.with_differences(tables.models)
        self.history = results.over_seeds(tables.history, ("variant", "epoch"))
        self.series = results.over_seeds(tables.series, ("variant", "epoch"))

    @property
    def robustbench(self):
        """The RobustBench models, a row each."""
        models = self.tables.models
        return models[models["family"] == results.ROBUSTBENCH]


def workspace() -> Path:
    """The nearest folder from here upwards with `results/` or `config/`: a notebook runs in its own
    folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "results").is_dir() or (folder / "config" / "variants.yaml").is_file():
            return folder
    return here


def inputs(name: str, snakemake: Any = None) -> Notebook:
    """The inputs and outputs of the notebook `name`.

    Parameters
    ----------
    name
        The notebook's name.
    snakemake
        The object Snakemake puts into a script's globals (`globals().get("snakemake")`).
    """
    if snakemake is not None:
        if snakemake.log:
            sys.stdout = sys.stderr = open(snakemake.log[0], "w", encoding="utf-8")  # noqa: SIM115
        given = snakemake.input
        return Notebook(name, Path(given.models).parent, [*map(Path, snakemake.output)], [*given.families])
    script = Path(sys.argv[0]).stem == name
    given = sys.argv[1] if script and len(sys.argv) > 1 else os.environ.get(VARIABLE, DEFAULT)
    return Notebook(name, workspace() / "results" / given)
