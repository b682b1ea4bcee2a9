"""Style, labels, tables and the notebooks' inputs."""

import dataclasses
import itertools
import math
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from robust_flatness.config import TrainingSpec
from robust_flatness.config.networks import EXTERNAL, ROBUSTBENCH
from robust_flatness.errors import FileError
from robust_flatness.plotting import curves, inputs, looks, scatter, style, typeset
from robust_flatness.plotting.labels import place_labels
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


def test_families_name_their_variants_and_settings():
    settings = TrainingSpec.model_fields
    for name, look in looks.every().items():
        if look.named:
            assert frames.catalogue()[look.named].family == name
        assert look.setting is None or (look.setting in settings and look.parameter)


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
def test_labels_overlap_neither_each_other_nor_other_texts(seed):
    rng = np.random.default_rng(seed)
    figure, (axes,) = style.panels(width=3.4, height=2.6)
    points = rng.normal(size=(40, 2)) * (1, 0.2)
    axes.scatter(*points.T)
    note = axes.text(0.02, 0.98, "Pearson r = 0.85\nn = 40", va="top", transform=axes.transAxes)
    labels = [(x, y, f"variant {i}") for i, (x, y) in enumerate(points[:15])]
    written = place_labels(axes, labels, points, [note])
    renderer = figure.canvas.get_renderer()
    frame = axes.get_window_extent(renderer)
    boxes = [text.get_window_extent(renderer) for text in [*written, note]]
    assert len(written) >= 8
    for one, two in itertools.combinations(boxes, 2):
        assert not one.overlaps(two)
    for box in boxes[:-1]:
        assert frame.x0 - 1 <= box.x0
        assert box.x1 <= frame.x1 + 1


def test_a_lone_label_stands_beside_its_point():
    _, (axes,) = style.panels()
    axes.scatter([0, 1], [0, 1])
    (text,) = place_labels(axes, [(0.0, 0.0, "here")], [(0.0, 0.0), (1.0, 1.0)])
    inverse = axes.transAxes.inverted()
    target = inverse.transform(axes.transData.transform((0.0, 0.0)))
    assert np.linalg.norm(np.array(text.get_position()) - target) < 0.1


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


def test_an_axis_is_set_by_the_epochs_after_the_first():
    _, (axes,) = style.panels()
    axes.plot([0.1, 0.5, 1.0], [34.0, 1.0, 2.0])
    assert curves.scale([axes])
    low, high = axes.get_ylim()
    assert low > 0.5
    assert high < 2.5
    assert any(text.get_text() == "34" for text in axes.texts)
    _, (calm,) = style.panels()
    calm.plot([0.1, 0.5, 1.0], [2.1, 1.0, 2.0])
    assert not curves.scale([calm])
    assert calm.get_ylim()[1] > 2.1


def test_early_values_beyond_the_axis_are_one_text_where_they_stand_together():
    _, (axes,) = style.panels()
    for first in (34.0, 50.0):
        axes.plot([0.1, 0.5, 1.0], [first, 1.0, 2.0])
    axes.plot([0.1, 0.5, 1.0], [60.0, 1.0, 2.0], color=style.LIGHT)
    assert curves.scale([axes])
    assert [text.get_text() for text in axes.texts] == ["34 to 50"]


def test_a_point_far_out_stands_at_the_edge_with_its_name_and_value():
    slugs = [slug for slug in frames.catalogue() if "scaled" not in slug][:12]
    frame = pd.DataFrame({"variant": slugs, "label": slugs, "family": "at", "x": np.arange(12.0), "y": 1.0})
    _, (axes,) = style.panels()
    assert not scatter.fit(axes, frame, "x", "y")
    assert axes.get_xlim()[1] > 11
    frame.loc[3, "x"] = 500.0
    frame.loc[4, ["x", "y"]] = -300.0, 900.0
    assert scatter.fit(axes, frame, "x", "y")
    assert -4 < axes.get_xlim()[0] < 0
    assert 11 < axes.get_xlim()[1] < 15
    assert axes.get_ylim()[1] < 2
    assert {text.get_text().partition(": ")[2] for text in axes.texts} == {"500", "-300, 900"}


def test_names_at_an_edge_do_not_overlap():
    slugs = [slug for slug in frames.catalogue() if "scaled" not in slug][:40]
    frame = pd.DataFrame({"variant": slugs, "label": slugs, "family": "at", "x": np.arange(40.0)})
    frame["y"] = np.linspace(0, 4, 40)
    frame.loc[[2, 3], "x"], frame.loc[[2, 3], "y"] = [5000.0, 6000.0], [2.0, 2.02]
    frame.loc[[8, 9, 10], "x"], frame.loc[[8, 9, 10], "y"] = [700.0, 800.0, 900.0], [3.0, 3.01, 3.02]
    frame.loc[11, ["x", "y"]] = 850.0, 1.0
    frame.loc[[8, 9, 10], "family"] = "awp"
    figure, (axes,) = style.panels()
    assert scatter.fit(axes, frame, "x", "y")
    texts = {text.get_text() for text in axes.texts}
    assert len(texts) == 3
    assert "AT-AWP, 3: 700 to 900" in texts
    assert any(text.count("\n") == 1 and "5e+03" in text and "6e+03" in text for text in texts)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_curves_that_coincide_are_one_group():
    x = np.linspace(0, 1, 5)
    found = {"a": (x, 1 + x), "b": (x, 1.01 + x), "c": (x, 2 + x), "d": (x[:3], 1 + x[:3])}
    assert curves.coinciding(found) == {"a": ["a", "b"], "c": ["c"], "d": ["d"]}


def test_a_label_near_another_point_has_a_line_to_its_own():
    _, (axes,) = style.panels(width=3.4, height=2.6)
    points = [(0.0, 0.0), (0.03, 0.02), (1.0, 1.0)]
    axes.scatter(*zip(*points, strict=True))
    before = len(axes.lines)
    place_labels(axes, [(*points[0], "crowded")], points)
    assert len(axes.lines) == before + 1


def test_models_that_have_not_learnt_or_are_one_are_not_counted():
    models = printed.read_published().models
    models["same_as"] = np.where(models["variant"] == "weight-averaging-0.985", "weight-averaging-0.98", "")
    models.loc[models["variant"] == "adam", "train_rerr_pgd"] = 88.0
    layer = Layer("x", dataclasses.replace(printed.read_published(), models=models))
    assert {"weight-averaging-0.985", "adam"}.isdisjoint(layer.counted["variant"])
    assert len(layer.counted) == 72
    assert list(layer.unlearnt["variant"]) == ["adam"]
    assert "Adam" in layer.note
    assert "Weight avg. τ=0.98, Weight avg. τ=0.985" in layer.note


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


def test_latex_pairs_share_a_heading():
    frame = pd.DataFrame({"label": ["AT"], "a": [1.0], "a_published": [2.0], "b": [3.0]})
    columns = {"label": typeset.Column("Method"), **typeset.compared({"a": ("RErr", 1), "b": ("CE", 2)})}
    lines = typeset.texts(frame, columns, "T")[".tex"].splitlines()
    top = lines.index(r"\toprule")
    assert lines[top + 1] == r" & \multicolumn{2}{c}{RErr} &  \\"
    assert lines[top + 2] == r"\cmidrule(lr){2-3}"
    assert lines[top + 3] == r"Method & here & published & CE \\"
    alone = typeset.texts(frame.drop(columns=["a_published"]), columns, "T")[".tex"]
    assert r"Method & RErr & CE \\" in alone


def test_html_holds_every_cell_escaped():
    text = table()[".html"]
    assert "<td>A_1 &amp; 100 %</td>" in text
    assert '<td class="number">&lt; 0.0002</td>' in text
    assert text.count("<tr>") == 1 + 3 + 2  # heading, rows, groups


def test_csv_keeps_every_column_and_twelve_digits():
    frame = pd.DataFrame({"value": [1 / 3, math.nan], "hidden": [2.0, 1e-9]})
    text = typeset.texts(frame, {"value": typeset.Column("Value", typeset.digits(1))}, "T")[".csv"]
    assert text == "value,hidden\n0.333333333333,2\n,1e-09\n"


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    for name in ("fashion", "mine"):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "models.csv").write_text("variant,test_err\nat,20\n")
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


def test_a_script_reads_and_writes_what_its_rule_says(workspace):
    job = types.SimpleNamespace(
        input=types.SimpleNamespace(
            models=str(workspace / "results/mine/models.csv"), families=[looks.file()]
        ),
        output=[str(workspace / "a.pdf"), str(workspace / "a.png")],
        log=[],
    )
    notebook = inputs("some_figure", job)
    assert notebook.experiment == "mine"
    assert notebook.outputs("figures", (".pdf", ".png")) == {
        ".pdf": workspace / "a.pdf",
        ".png": workspace / "a.png",
    }


def test_an_unknown_experiment_is_named_with_those_there_are(workspace, monkeypatch):
    monkeypatch.setenv("ROBUST_FLATNESS_EXPERIMENT", "fashon")
    with pytest.raises(FileError, match="there are fashion, mine"):
        inputs("some_figure")


def test_the_printed_numbers_are_known_as_such(tmp_path, workspace):
    importing.import_table(printed.published_directory() / "variants.csv", tmp_path / "results/paper")
    job = types.SimpleNamespace(
        input=types.SimpleNamespace(
            models=str(tmp_path / "results/paper/models.csv"), families=[looks.file()]
        ),
        output=[],
        log=[],
    )
    assert inputs("x", job).is_paper
    assert inputs("x", job).same_data
    assert not inputs("x").is_paper
    assert not inputs("x").same_data
