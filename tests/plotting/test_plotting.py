import itertools
import math

import numpy as np
import pandas as pd
import pytest

from robust_flatness.config.networks import EXTERNAL, ROBUSTBENCH
from robust_flatness.plotting import inputs, looks, scatter, style, typeset
from robust_flatness.tables import frames, schema

#: Colours that can be told apart with any colour vision.
OKABE_ITO = {"#000000", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#545454"}


def test_every_family_has_a_look_of_its_own():
    needed = {spec.family for spec in frames.catalogue().values()} | {ROBUSTBENCH, EXTERNAL, schema.OTHER}
    assert needed <= set(looks.every())
    drawn = [(look.color, look.marker) for look in looks.every().values()]
    assert len(set(drawn)) == len(drawn)
    assert {looks.family(name).color for name in looks.every()} <= OKABE_ITO
    assert looks.family("something new") == looks.every()["other"]


@pytest.mark.parametrize("seed", range(2))
def test_labels_overlap_neither_each_other_nor_other_texts_nor_points(seed):
    rng = np.random.default_rng(seed)
    figure, (axes,) = style.panels(height=2.6)
    points = rng.normal(size=(40, 2)) * (1, 0.2)
    axes.scatter(*points.T, s=4)
    axes.text(0.02, 0.98, "r = 0.85\nn = 40", va="top", transform=axes.transAxes)
    style.place_labels(axes, [style.Label(x, y, f"variant {i}") for i, (x, y) in enumerate(points[:15])])
    renderer = figure.canvas.get_renderer()
    frame, places = axes.get_window_extent(renderer), axes.transData.transform(points)
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert len(boxes) >= 6
    assert not any(one.overlaps(two) for one, two in itertools.combinations(boxes, 2))
    for box in boxes[1:]:
        assert not any(box.contains(*place) for place in places)
        assert frame.x0 - 1 <= box.x0
        assert box.x1 <= frame.x1 + 1


def test_a_point_far_out_stands_at_the_edge_with_its_name_and_value():
    frame = pd.DataFrame({"variant": "at", "label": "AT", "family": "at", "x": np.arange(12.0), "y": 1.0})
    _, (axes,) = style.panels()
    assert scatter.fit(axes, frame, "x", "y") == []
    frame.loc[3, "x"] = 500.0
    frame.loc[4, ["x", "y"]] = -300.0, 900.0
    labels = scatter.fit(axes, frame, "x", "y")
    (left, right), (_, top) = axes.get_xlim(), axes.get_ylim()
    assert -4 < left < 0
    assert 11 < right < 15
    assert top < 2
    found = [(label.x, label.text.partition(": ")[2]) for label in labels]
    assert found == [(right, "500"), (left, "-300, 900")]


def test_tables_are_escaped_and_complete():
    frame = pd.DataFrame({"name": ["A_1 & 100 %", "λ|x|", ""], "value": [1.2345, math.nan, -0.5]})
    frame = frame.assign(p=[0.0001, 0.034, math.nan], group=["one", "one", "two"])
    columns = {"name": "Name", "value": ("Value", 2), "p": ("p", typeset.p_value), "absent": "Absent"}
    texts = typeset.texts(frame, columns, "A table", ["A note."], sections="group")
    markdown, html, text = (texts[suffix] for suffix in (".md", ".html", ".tex"))
    assert "| A_1 & 100 % | 1.23 | < 0.0002 |" in markdown.splitlines()
    assert "| - | -0.50 | - |" in markdown.splitlines()
    assert "<td>A_1 &amp; 100 %</td>" in html
    assert html.count("<tr>") == 6  # with the names of columns and groups
    assert r"A\_1 \& 100 \% & $1.23$ & $<0.0002$ \\" in text
    assert r"$\lambda|$x$|$" in text
    assert r"\textbf{two} &  &  \\" in text
    for name in ("table", "adjustbox", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1


def test_a_notebook_finds_its_experiment(tmp_path, monkeypatch):
    for name in ("fashion", "mine"):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "records.csv").write_text("variant,metric,value\nat,err,20\n")
    (tmp_path / "figures").mkdir()
    monkeypatch.chdir(tmp_path / "figures")
    monkeypatch.delenv("ROBUST_FLATNESS_EXPERIMENT", raising=False)
    assert inputs("some_figure").experiment == "fashion"
    monkeypatch.setenv("ROBUST_FLATNESS_EXPERIMENT", "mine")
    assert inputs("some_figure").experiment == "mine"
    monkeypatch.setattr("sys.argv", ["figures/some_figure.py", "fashion"])
    assert inputs("some_figure").experiment == "fashion"
    # In a notebook the arguments are the kernel's.
    monkeypatch.setattr("sys.argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    assert inputs("some_figure").experiment == "mine"
