"""Style, labels, tables and the notebooks' inputs."""

import dataclasses
import itertools
import math
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from robust_flatness.config.networks import EXTERNAL, ROBUSTBENCH
from robust_flatness.errors import FileError
from robust_flatness.plotting import curves, inputs, looks, scatter, style, typeset
from robust_flatness.plotting.layer import Layer
from robust_flatness.tables import frames, importing, printed, schema

OKABE_ITO = {"#000000", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#545454"}


def test_every_family_has_a_look_of_its_own():
    needed = {spec.family for spec in frames.catalogue().values()} | {ROBUSTBENCH, EXTERNAL, schema.OTHER}
    assert needed <= set(looks.every())
    drawn = [(look.color, look.marker) for look in looks.every().values()]
    assert len(set(drawn)) == len(drawn)
    assert {looks.color(name) for name in looks.every()} <= OKABE_ITO
    assert looks.family("something new") == looks.every()["other"]


def test_an_experiment_adds_families_and_changes_those_there_are(tmp_path):
    own = tmp_path / "families.yaml"
    own.write_text("mine: {label: My method}\nmart: {label: MART, color: '#123456', marker: s}\n")
    try:
        looks.use(looks.file(), own)
        assert looks.family("mine").label == "My method"
        assert looks.color("mart") == "#123456"
        assert looks.family("trades").marker == "s"
    finally:
        looks.use(looks.file())


def test_colours_differ_in_lightness_or_hue_for_every_vision():
    """Simulated protanopia and deuteranopia (Machado et al. 2009): no two colours come close."""
    simulations = (
        np.eye(3),
        np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
        np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    )
    colors = {looks.color(name) for name in looks.every()}
    linear = {c: np.array([int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)]) ** 2.2 for c in colors}
    for matrix in simulations:
        seen = {color: np.clip(matrix @ value, 0, 1) ** (1 / 2.2) for color, value in linear.items()}
        for one, two in itertools.combinations(seen, 2):
            assert np.linalg.norm(seen[one] - seen[two]) > 0.15, (one, two)


@pytest.mark.parametrize("seed", range(4))
def test_labels_overlap_neither_each_other_nor_other_texts_nor_points(seed):
    rng = np.random.default_rng(seed)
    figure, (axes,) = style.panels(height=2.6)
    points = rng.normal(size=(40, 2)) * (1, 0.2)
    axes.scatter(*points.T, s=4)
    axes.text(0.02, 0.98, "r = 0.85\nn = 40", va="top", transform=axes.transAxes)
    style.place_labels(axes, [(x, y, f"variant {i}") for i, (x, y) in enumerate(points[:15])])
    renderer = figure.canvas.get_renderer()
    frame, places = axes.get_window_extent(renderer), axes.transData.transform(points)
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert len(boxes) >= 6
    assert not any(one.overlaps(two) for one, two in itertools.combinations(boxes, 2))
    for box in boxes[1:]:
        assert not any(box.contains(*place) for place in places)
        assert frame.x0 - 1 <= box.x0
        assert box.x1 <= frame.x1 + 1


def test_networks_of_others_are_always_named():
    _, (axes,) = style.panels(height=2.0)
    axes.scatter([0, 0.001], [0, 0])
    style.place_labels(axes, [(0.0, 0.0, "first"), (0.0, 0.0, "second")], always=True)
    assert [text.get_text() for text in axes.texts] == ["first", "second"]


def test_hyperparameters_are_in_order():
    frame = pd.DataFrame({"variant": [*frames.catalogue()]})
    frame["family"] = [spec.family for spec in frames.catalogue().values()]
    values = [value for _, value in curves.by_hyperparameter(frame, ("batch-size",))]
    assert values == ["8", "16", "32", "64", "256", "512"]
    assert [slug for slug, _ in curves.by_hyperparameter(frame, ("activation",))] == ["mish", "silu", "gelu"]
    every = {family for names in looks.methods().values() for family in names}
    assert every <= set(frame["family"])


def test_a_value_applied_stands_beside_the_paper_s():
    row = {"variant": "self-supervision-4", "family": "self-supervision", "label": "x"}
    assert looks.applied(row | {"setting_objective_weight": 0.125}) == "1/8"
    assert looks.applied(row | {"setting_objective_weight": 4.0}) is None
    assert looks.applied(row | {"setting_objective_weight": ""}) is None
    assert looks.applied(row) is None
    assert looks.name(row | {"setting_objective_weight": 0.125}).endswith("(here 1/8)")
    assert looks.applied({"variant": "at", "family": "at", "setting_learning_rate": 0.3}) is None


def test_an_axis_is_set_by_the_epochs_after_the_first_fifth():
    _, (axes,) = style.panels()
    axes.plot([0.1, 0.5, 1.0], [34.0, 1.0, 2.0])
    assert "up to 34" in curves.scale([axes])
    low, high = axes.get_ylim()
    assert 0.5 < low < high < 2.5
    assert [line.get_marker() for line in axes.lines[1:]] == ["^"]
    _, (calm,) = style.panels()
    calm.plot([0.1, 0.5, 1.0], [1.9, 1.0, 2.0])
    assert curves.scale([calm]) == ""


def test_published_curves_do_not_set_the_axis_where_ours_do():
    _, (axes,) = style.panels()
    axes.plot([0.1, 0.5, 1.0], [2.0, 1.0, 2.0])
    axes.plot([0.1, 0.5, 1.0], [2.0, 5.0, 10.0], **style.PUBLISHED)
    assert curves.scale([axes], ours=True) == ""
    assert axes.get_ylim()[1] < 2.5
    assert curves.scale([axes]) == ""
    assert axes.get_ylim()[1] > 10


def test_a_point_far_out_stands_at_the_edge_with_its_name_and_value():
    slugs = [slug for slug in frames.catalogue() if "scaled" not in slug][:12]
    frame = pd.DataFrame({"variant": slugs, "label": slugs, "family": "at", "x": np.arange(12.0), "y": 1.0})
    _, (axes,) = style.panels()
    assert scatter.fit(axes, frame, "x", "y") == []
    assert axes.get_xlim()[1] > 11
    frame.loc[3, "x"] = 500.0
    frame.loc[4, ["x", "y"]] = -300.0, 900.0
    labels = scatter.fit(axes, frame, "x", "y")
    assert -4 < axes.get_xlim()[0] < 0
    assert 11 < axes.get_xlim()[1] < 15
    assert axes.get_ylim()[1] < 2
    assert {words.partition(": ")[2] for _, _, words in labels} == {"500", "-300, 900"}
    limits = axes.get_xlim()
    assert [x in limits for x, _, _ in labels] == [True, True]


def test_models_that_have_not_learnt_or_are_one_are_not_counted():
    models = printed.read_published().models
    models["same_as"] = np.where(models["variant"] == "weight-averaging-0.985", "weight-averaging-0.98", "")
    models.loc[models["variant"] == "adam", "train_rerr_pgd"] = 88.0
    layer = Layer("x", dataclasses.replace(printed.read_published(), models=models))
    assert {"weight-averaging-0.985", "adam"}.isdisjoint(layer.counted["variant"])
    assert len(layer.counted) == 72
    assert list(layer.unlearnt["variant"]) == ["adam"]
    assert "Adam" in layer.apart
    assert "Weight avg. τ=0.98, Weight avg. τ=0.985" in layer.apart


def test_drops_are_where_the_rate_falls():
    history = printed.read_published().history
    assert curves.drops(history) == pytest.approx([0.4, 0.6, 0.8], abs=1e-3)
    assert curves.drops(history, "constant-learning-rate-0.01") == []


def table() -> dict[str, str]:
    frame = pd.DataFrame(
        {
            "name": ["A_1 & 100 %", "λ|x|", ""],
            "value": [1.2345, math.nan, -0.5],
            "p": [0.0001, 0.034, math.nan],
            "group": ["one", "one", "two"],
        }
    )
    columns = {
        "name": typeset.Column("Name"),
        "value": typeset.Column("Value", typeset.digits(2)),
        "p": typeset.Column("p", typeset.p_value),
        "absent": typeset.Column("Absent"),
    }
    return typeset.texts(frame, columns, "A table", ["A note."], sections="group")


def test_markdown_is_a_table_with_sections():
    lines = table()[".md"].splitlines()
    assert lines[0] == "# A table"
    assert lines[2:4] == ["| Name | Value | p |", "| --- | ---: | ---: |"]
    assert lines[4] == "| **one** |  |  |"
    assert lines[5] == "| A_1 & 100 % | 1.23 | < 0.0002 |"
    assert lines[6] == "| λ\\|x\\| | - | 0.034 |"
    assert lines[-1] == "A note."
    widths = {len(line.replace("\\|", "").split("|")) for line in lines if line.startswith("|")}
    assert widths == {5}


def test_latex_is_escaped_and_aligned():
    text = table()[".tex"]
    assert r"A\_1 \& 100 \% & $1.23$ & $<0.0002$ \\" in text
    assert r"$\lambda|$x$|$" in text
    assert r"\multicolumn{3}{l}{\textbf{two}} \\" in text
    assert r"\begin{tabular}{lrr}" in text
    assert r"\caption{A table. A note.}" in text
    assert r"\label{tab:a-table}" in text
    assert text.count(r"\midrule") == 2
    for name in ("table", "adjustbox", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1


def test_html_holds_every_cell_escaped():
    text = table()[".html"]
    assert "<td>A_1 &amp; 100 %</td>" in text
    assert "<td>&lt; 0.0002</td>" in text
    assert (text.count("<table"), text.count("<h2>"), text.count("<tr>")) == (2, 2, 3)


def test_csv_keeps_every_column_and_twelve_digits():
    frame = pd.DataFrame({"value": [1 / 3, math.nan], "hidden": [2.0, 1e-9]})
    text = typeset.texts(frame, {"value": typeset.Column("Value", typeset.digits(1))}, "T")[".csv"]
    assert text == "value,hidden\n0.333333333333,2\n,1e-09\n"


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    (tmp_path / "models.csv").write_text("variant,test_err\nat,20\n")
    for name in ("fashion", "mine"):
        importing.import_table(tmp_path / "models.csv", tmp_path / "results" / name)
    (tmp_path / "figures").mkdir()
    monkeypatch.chdir(tmp_path / "figures")
    monkeypatch.delenv("ROBUST_FLATNESS_EXPERIMENT", raising=False)
    return tmp_path


def test_a_notebook_finds_its_experiment(workspace, monkeypatch):
    assert inputs("some_figure").experiment == "fashion"
    monkeypatch.setenv("ROBUST_FLATNESS_EXPERIMENT", "mine")
    assert inputs("some_figure").experiment == "mine"
    monkeypatch.setattr("sys.argv", ["figures/some_figure.py", "fashion"])
    assert inputs("some_figure").experiment == "fashion"
    # In a notebook the arguments are the kernel's.
    monkeypatch.setattr("sys.argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    assert inputs("some_figure").experiment == "mine"


def job(records: Path, *outputs: Path):
    """Snakemake's object in a script."""
    given = types.SimpleNamespace(records=str(records), families=[looks.file()])
    return types.SimpleNamespace(input=given, output=[*map(str, outputs)], log=[])


def test_a_script_reads_and_writes_the_files_of_its_rule(workspace):
    paths = workspace / "a.pdf", workspace / "a.png"
    notebook = inputs("some_figure", job(workspace / "results/mine/records.csv", *paths))
    assert notebook.experiment == "mine"
    assert notebook.outputs("figures", (".pdf", ".png")) == dict(zip((".pdf", ".png"), paths, strict=True))


def test_an_unknown_experiment_is_named_with_those_there_are(workspace, monkeypatch):
    monkeypatch.setenv("ROBUST_FLATNESS_EXPERIMENT", "fashon")
    with pytest.raises(FileError, match="there are fashion, mine"):
        inputs("some_figure")


def test_the_printed_numbers_are_known_as_such(tmp_path, workspace):
    importing.import_table(printed.published_directory() / "variants.csv", tmp_path / "results/paper")
    paper = inputs("x", job(tmp_path / "results/paper/records.csv"))
    assert paper.is_paper
    assert paper.same_data
    assert not inputs("x").is_paper
    assert not inputs("x").same_data
