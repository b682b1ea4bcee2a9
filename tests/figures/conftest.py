"""The kept results of digits, and their page."""

from pathlib import Path

import pytest

from robust_flatness.files import write_text
from robust_flatness.page import build
from robust_flatness.plotting.notebook import Notebook
from robust_flatness.tables.frames import frame_text
from robust_flatness.tables.records import read_csv
from robust_flatness.tables.schema import TABLES

X, Y = "avg_flatness_rloss", "test_rloss_pgd"
KEPT = Path(__file__).parents[2] / "docs/results/digits"


@pytest.fixture(scope="session")
def copy_kept():
    """`copy_kept(directory, change)`: write the kept tables there, each changed by a function."""

    def write(directory: Path, change=lambda frame: frame) -> Path:
        for name in TABLES:
            write_text(directory / f"{name}.csv", frame_text(change(read_csv(KEPT / f"{name}.csv"))))
        return directory

    return write


@pytest.fixture(scope="module")
def notebook(tmp_path_factory, copy_kept) -> Notebook:
    """Kept results with tables of claims and correlations."""
    folder = tmp_path_factory.mktemp("page")
    tables = folder / "paper_tables/digits"
    tables.mkdir(parents=True)
    (tables / "claims.csv").write_text(
        "claim,verdict,statistic,value,low,high,n,published,outcome,decides,note,statement,rule\n"
        "flat-is-robust,reproduced,Pearson,0.8,0.6,0.9,74,0.85,holds,yes,,A </script> is flat.,Positive.\n"
        "rerr-kink,not testable,slope,,,,0,,not testable,yes,too few,It bends.,A hinge.\n"
    )
    (tables / "sharpness_comparison.csv").write_text(
        "measure,words,group,loss,column,against,coefficient,value,low,high,n\n"
        f"weight_norm,norm,control,,weight_norm,{Y},spearman,-0.9,-1,-0.8,74\n"
        f"{X},flatness,the talk's,ce,avg_flatness_ce,{Y},spearman,0.1,-0.2,0.4,74\n"
        f"{X},flatness,the talk's,rloss,{X},{Y},spearman,0.8,0.6,0.9,74\n"
        f"{X},flatness,the talk's,rloss,{X},{Y},pearson,0.7,0.5,0.8,74\n"
        f"sam,SAM,sharpness,rloss,sam_rloss,{Y},spearman,0.3,0.1,0.5,74\n"
    )
    (tables / "correlations.csv").write_text(
        "measure,against,without,coefficient,value,low,high\n"
        f"{X},{Y},,pearson,0.81,0.61,0.91\n{X},{Y},,spearman,0.79,0.59,0.89\n{X},{Y},at,pearson,0.1,0,0.2\n"
    )
    return Notebook("index", copy_kept(folder / "results/digits"))


@pytest.fixture(scope="module")
def page(notebook, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "index.html"
    build.write_page(notebook, path)
    return path
