import json
import re
from pathlib import Path

import pytest

from robust_flatness.page import build
from robust_flatness.page.data import page_data
from robust_flatness.plotting.notebook import Notebook

X, Y = "avg_flatness_rloss", "test_rloss_pgd"


def test_models_have_the_tables_values_and_settings(notebook):
    data = page_data(notebook, Path("none"))
    ours = {m["variant"]: m for m in data["models"] if m["layer"] == "ours"}
    table = notebook.ours.variants.set_index("variant")
    assert ours.keys() == set(table.index)
    for slug, model in ours.items():
        assert model["values"][Y] == pytest.approx(table.loc[slug, Y], rel=1e-4)
        assert model["family"] in data["families"]
    printed = {m["variant"] for m in data["models"] if m["layer"] == "paper"}
    assert {"at", "trades-6"} <= printed
    assert not any(data[name] for name in ("claims", "laterClaims", "comparison"))
    assert {X, Y, "rloss_gap", "test_rerr_aa", "worst_flatness_ce"} <= data["measures"].keys()
    assert all(entry["words"] for entry in data["measures"].values())


def test_the_file_holds_all_it_needs_and_equal_tables_give_equal_bytes(notebook, page, tmp_path):
    build.write_page(notebook, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 4_000_000
    own = re.sub(r"<script type=\"module\">.*?</script>", "", text, count=1, flags=re.S)
    assert not re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=|<link[^>]*href=\"http", own)
    assert "{{" not in own
    data = re.search(r"^const DATA = (.*);$", text, flags=re.M)[1]
    claims = json.loads(data.replace("<\\/", "</"))["claims"]
    assert claims[0]["statement"] == "A </script> is flat."
    assert "value" not in claims[1]["tests"][0]


def test_a_model_that_has_not_learnt_is_apart_and_in_no_coefficient(notebook, copy_kept, tmp_path):
    def stuck(frame):
        if "metric" in frame:
            kind = frame[["variant", "metric", "split"]] == ["trades-6", "rerr_pgd", "train"]
            frame.loc[kind.all(axis=1), "value"] = "90"
        return frame

    def ours(book):
        return {m["variant"]: m for m in page_data(book, Path("none"))["models"] if m["layer"] == "ours"}

    before = ours(notebook)
    after = ours(Notebook("index", copy_kept(tmp_path / "results/digits", stuck)))
    assert after["trades-6"]["family"] == "apart"
    assert {slug for slug in before if before[slug]["counts"] and not after[slug]["counts"]} == {"trades-6"}


def test_measures_compared_and_coefficients_are_those_of_the_tables(notebook):
    data = page_data(notebook, notebook.directory.parents[1] / "paper_tables/digits")
    names = ("name", "clean", "value")
    assert {part: [[row[n] for n in names] for row in rows] for part, rows in data["comparison"].items()} == {
        "on training examples": [["norm", False, -0.9], ["SAM", False, 0.3]],
        "on test examples": [["norm", False, -0.9], ["flatness", False, 0.8], ["flatness", True, 0.1]],
    }
    rows = [[row[name] for name in ("measure", "against", "value", "low")] for row in data["coefficients"]]
    assert rows == [[X, Y, 0.81, 0.61], [X, Y, 0.79, 0.59]]
