import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.text import Text
from PIL import Image

from robust_flatness.config.values import load_yaml
from robust_flatness.plotting.notebook import NOT_DRAWN
from robust_flatness.tables import importing
from robust_flatness.tables.records import read_csv

ROOT = Path(__file__).parents[2]
FIGURES = sorted((ROOT / "figures").glob("*.py"))
TABLES = sorted((ROOT / "paper_tables").glob("*.py"))
SIX = ("at", "trades-6", "awp-0.01", "label-noise-0.3", "weight-decay-0.05", "label-smoothing-0.3")
HEADLINE = ROOT / "figures/rloss_vs_average_flatness.py"
#: A record of the density of the Hessian's eigenvalues, which the kept results lack.
DENSITY = "{variant},0,last,,density,density,{loss},train,,,,{at},0.01,,\n"


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def outputs(path: Path, folder: Path, experiment: str) -> list[Path]:
    suffixes = (".pdf", ".png") if path.parent.name == "figures" else (".csv", ".md", ".tex", ".html")
    return [folder / path.parent.name / experiment / f"{path.stem}{suffix}" for suffix in suffixes]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, copy_kept) -> Path:
    """Kept results, six variants of them, and one bare table."""
    folder = tmp_path_factory.mktemp("workspace")
    copy_kept(folder / "results/six", lambda frame: frame[frame["variant"].isin(SIX)])
    with (copy_kept(folder / "results/digits") / "records.csv").open("a") as file:
        places = [(v, loss, at) for v in SIX[:2] for loss in ("ce", "rloss") for at in (-1.0, 0.0, 8.0)]
        file.writelines(DENSITY.format(variant=v, loss=loss, at=at) for v, loss, at in places)
    (folder / "sent.csv").write_text("variant,test_err\nat,20\nmine,30\n")
    importing.import_table(folder / "sent.csv", folder / "results/bare")
    return folder


@pytest.fixture
def plain(workspace, monkeypatch):
    """Run a notebook as `python figures/<name>.py <experiment>` does."""

    def run(path: Path, experiment: str) -> list[Path]:
        monkeypatch.chdir(workspace)
        monkeypatch.setattr(sys, "argv", [str(path), experiment])
        runpy.run_path(str(path), run_name="__main__")
        written = outputs(path, workspace, experiment)
        assert all(file.stat().st_size > 0 for file in written)
        return written

    return run


@pytest.mark.parametrize("path", [*FIGURES, *TABLES], ids=name)
@pytest.mark.filterwarnings("error::UserWarning")
def test_plain_python(plain, path):
    plain(path, "bare")  # missing columns do not fail the run
    written = plain(path, "digits")
    if path in FIGURES and path.stem != "loss_planes":  # no plane was measured
        assert NOT_DRAWN not in Image.open(written[1]).info


def test_one_line_says_what_is_missing_and_how_to_get_it(plain):
    picture = Image.open(plain(HEADLINE, "bare")[1])
    assert "average-case flatness in RLoss" in picture.info[NOT_DRAWN]
    assert "To get it" in picture.info[NOT_DRAWN]
    assert picture.height < 100


def test_the_tables_of_the_hessian_and_of_scale_invariance_have_the_same_eigenvalues(plain):
    """Of the baseline, which has more seeds than its scaled copies, too."""
    paths = [ROOT / f"paper_tables/{table}.py" for table in ("hessian", "scale_invariance")]
    tables = (read_csv(plain(path, "digits")[0]) for path in paths)
    hessian, scaled = (table.set_index("variant")["hessian_max"] for table in tables)
    assert {"at", "at-scaled-2"} <= {*scaled.index}
    assert hessian[scaled.index].tolist() == scaled.tolist()


def test_notebooks_are_executed(workspace, tmp_path):
    """As `jupytext --to ipynb --execute` runs them, in their own folder."""
    shutil.copytree(workspace / "results/six", tmp_path / "results/six")
    paths = [HEADLINE, TABLES[0]]
    copies = [tmp_path / path.parent.name / path.name for path in paths]
    for path, copy in zip(paths, copies, strict=True):
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
    command = [sys.executable, "-m", "jupytext", "--to", "ipynb", "--execute", "--set-kernel", "python3"]
    environment = {**os.environ, "ROBUST_FLATNESS_EXPERIMENT": "six"}
    subprocess.run([*command, *map(str, copies)], env=environment, check=True, timeout=900)
    for path, copy in zip(paths, copies, strict=True):
        assert all(file.exists() for file in outputs(path, tmp_path, "six"))
        cells = json.loads(copy.with_suffix(".ipynb").read_text())["cells"]
        assert cells[0]["cell_type"] == "markdown"
        shown = {kind for cell in cells for out in cell.get("outputs", ()) for kind in out.get("data", ())}
        assert shown & {"image/png", "text/markdown"}


@pytest.mark.parametrize("path", [HEADLINE, TABLES[0]], ids=name)
def test_same_bytes(workspace, path):
    """The same output twice, under other hash seeds, is the same file."""
    contents = []
    for seed in "12":
        command, environment = [sys.executable, str(path), "six"], {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(command, cwd=workspace, env=environment, check=True, timeout=600)
        contents.append([file.read_bytes() for file in outputs(path, workspace, "six")])
    assert contents[0] == contents[1]


def test_a_correlation_plot_is_vector_and_names_coefficient_interval_and_n(plain, monkeypatch):
    texts, write = [], Text.set_text
    monkeypatch.setattr(Text, "set_text", lambda self, text: (texts.append(str(text)), write(self, text)))
    pdf = plain(HEADLINE, "six")[0].read_bytes()
    assert b"/FontFile2" in pdf
    assert not [word for word in (b"/Type3", b"/Subtype /Image", b"CreationDate") if word in pdf]
    published = next(text for text in texts if "r = 0.85" in text)
    assert "[0.74, 0.91]" in published
    assert "n = 74" in published


def test_captions_for_every_output():
    captions = load_yaml(ROOT / "workflow/report/captions.yaml")
    assert set(captions["figures"]) == {path.stem for path in FIGURES}
    assert set(captions["tables"]) == {path.stem for path in TABLES}
