"""Wide tables of results become records: what is accepted, what is refused and how, the printed numbers."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from robust_flatness.config.networks import ROBUSTBENCH
from robust_flatness.errors import FileError
from robust_flatness.tables import aggregate, frames, importing, printed, schema
from robust_flatness.tables.records import read_csv

ROOT = Path(__file__).parents[2]
HEADER = "variant,seed,checkpoint,test_rerr_aa,test_rloss_pgd,avg_flatness_rloss\n"
ROW = "at,0,last,62.8,3.91,1.22\n"


@pytest.fixture
def table(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "sent.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def models(table, tmp_path):
    """`models(text)`: the frame of models after the import of a table."""

    def imported(text: str) -> pd.DataFrame:
        importing.import_table(table(text), tmp_path / "to")
        return frames.read_tables(tmp_path / "to").models

    return imported


def equal(left: pd.Series, right: pd.Series) -> bool:
    """Whether all cells are equal, missing ones included."""
    return left.astype(object).fillna("").tolist() == right.astype(object).fillna("").tolist()


@pytest.mark.parametrize("name", ["fashion", "digits", "cifar10-mini"])
def test_kept_results_survive_as_records(name, tmp_path):
    """Every measured cell of the kept wide tables, and every cell of a second import."""
    folder = ROOT / "docs/results" / name
    wide = folder / "models.csv"
    importing.import_table(wide, tmp_path)
    tables = frames.read_tables(tmp_path)
    given = frames.typed(read_csv(wide))
    measured = importing.columns_of(given.columns)
    assert len(measured) > 30
    for column in measured:
        given[column] = given[column].replace([math.inf, -math.inf], math.nan)
    for column in given.columns.drop("landscape_examples", errors="ignore"):
        assert equal(given[column], tables.models[column]), column
    series = frames.typed(read_csv(folder / "series.csv"))
    keys = ["variant", "seed", "epoch"]
    both = series.merge(tables.series, on=keys, suffixes=("", "_again"))
    assert len(both) == len(series) == len(tables.series)
    assert all(equal(both[column], both[f"{column}_again"]) for column in series.columns.drop(keys))
    landscape = frames.typed(read_csv(folder / "landscape.csv"))
    assert all(equal(landscape[column], tables.landscape[column]) for column in landscape)
    assert len(frames.read_examples(tmp_path)) == len(read_csv(folder / "examples.csv"))
    if name == "digits":  # what the kit writes, it reads
        importing.import_table(tmp_path / "models.csv", tmp_path / "again")
        assert (tmp_path / "again/models.csv").read_bytes() == (tmp_path / "models.csv").read_bytes()


def test_identity_may_be_left_out_and_unknown_variants_are_other(models):
    frame = models("variant,test_rloss_pgd\nat,1\ntrades-6,2\nmy-net,1.5\nat-scaled-2,1\n")
    assert frame["checkpoint"].tolist() == ["last"] * 4
    assert frame["seed"].tolist() == [0] * 4
    assert frame["family"].tolist()[:3] == ["at", "trades", "other"]
    assert frame["label"].tolist()[::2] == ["AT (baseline)", "my-net"]
    assert frame["derived"].tolist() == [0, 0, 0, 1]


def test_empty_cells_were_not_measured(models):
    frame = models(HEADER + ROW + "at,0,best,54.6,1.53,\n")
    assert frame["test_rerr_aa"].tolist() == [62.8, 54.6]
    assert frame["avg_flatness_rloss"][0] == 1.22
    assert math.isnan(frame["avg_flatness_rloss"][1])


def test_a_table_may_have_any_radius(models):
    names = "avg_flatness_rloss_0.3,avg_flatness_rloss_0.3_se,worst_flatness_ce_0.002,avg_flatness_xi"
    frame = models(f"variant,avg_flatness_rloss,{names}\nat,1,2,0.5,3,0.5\n")
    assert frame.loc[0, ["avg_flatness_rloss_0.3", "avg_flatness_rloss_0.3_se"]].tolist() == [2, 0.5]
    assert aggregate.all_radii(frame, "avg") == {0.3: "avg_flatness_rloss_0.3", 0.5: "avg_flatness_rloss"}
    assert aggregate.all_radii(frame, "worst", "ce") == {0.002: "worst_flatness_ce_0.002"}


def test_columns_of_the_user_are_kept(models):
    frame = models(
        "variant,test_rloss_pgd,optimiser,gpu_hours,setting_width\nat,1,lion,2.5,wide\nmish,2,sgd,,3\n"
    )
    assert frame["optimiser"].tolist() == ["lion", "sgd"]
    assert frame["gpu_hours"][0] == 2.5
    assert math.isnan(frame["gpu_hours"][1])
    assert frame["setting_width"].tolist() == ["wide", 3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty"]),
        (HEADER, ["no rows"]),
        ("model,test_rloss_pgd\nat,1\n", ["'variant' is missing", "'model'"]),
        ("variant,seed\nat,0\n", ["no column holds a measure", "test_rloss_pgd"]),
        ("variant,test_rlos_pgd\nat,1\n", ["'test_rlos_pgd'", "did you mean 'test_rloss_pgd'"]),
        ("variant,test_ce,test_ce\nat,1,2\n", ["'test_ce' appears more than once"]),
        ("variant,test_ce\nat,1\nat-2,1,3\n", ["row 3 has 3 cells", "header has 2"]),
        (HEADER + ROW + "mish,0,last,high,3.91,1.22\n", ["row 3", "test_rerr_aa", "'high'"]),
        (HEADER + "at,0,last,162.8,3.91,1.22\n", ["row 2", "test_rerr_aa", "162.8", "0 to 100"]),
        (HEADER + "at,0,last,62.8,-3.91,1.22\n", ["row 2", "test_rloss_pgd", "-3.91"]),
        (HEADER + ROW + ROW, ["two rows", "at, 0, last"]),
        (HEADER + "at,0,final,62.8,3.91,1.22\n", ["row 2", "'final'", "last, best"]),
        (HEADER + ",0,last,62.8,3.91,1.22\n", ["row 2", "['', 'last']"]),
        ("\xff\x00", ["'variant' is missing"]),
    ],
)
def test_a_table_with_errors_is_refused_with_file_row_and_column(table, tmp_path, text, words):
    path = table(text)
    with pytest.raises(FileError) as error:
        importing.import_table(path, tmp_path / "to")
    assert not [word for word in [str(path), *words] if word not in str(error.value)], str(error.value)
    assert not (tmp_path / "to").exists()


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileError, match=r"none\.csv: no such file"):
        importing.import_table(tmp_path / "none.csv", tmp_path / "to")


def test_curves_beside_the_table_are_converted_too(table, tmp_path):
    (tmp_path / "history.csv").write_text("variant,seed,epoch,normalised_epoch,test_rloss\nat,0,0,0.5,2.5\n")
    importing.import_table(table(HEADER + ROW), tmp_path / "to")
    assert frames.read_tables(tmp_path / "to").history["test_rloss"].tolist() == [2.5]


def test_an_infinite_measure_is_missing_and_named(models):
    frame = models("variant,test_rloss_pgd,avg_flatness_rloss,hessian_max\nat,1,inf,nan\n")
    assert math.isnan(frame["avg_flatness_rloss"][0])
    assert frame["not_finite"].tolist() == ["avg_flatness_rloss"]
    assert not aggregate.learnt(frame).any()


# The paper's printed numbers.


def test_printed_numbers_are_those_of_the_paper(tmp_path):
    importing.import_table(printed.published_directory() / "variants.csv", tmp_path)
    tables, read = frames.read_tables(tmp_path), printed.read_published()
    assert (len(tables.models), len(tables.history), len(tables.series)) == (
        len(read.models), len(read.history), len(read.series),
    )  # fmt: skip
    models = tables.models
    assert (models["checkpoint"] == "best").sum() == 74
    assert (models["family"] == ROBUSTBENCH).sum() == 8
    at = models[(models["variant"] == "at") & (models["checkpoint"] == "last")].iloc[0]
    assert (at["test_rerr_aa"], at["avg_flatness_rloss"], at["hessian_max"]) == (62.8, 1.22, 1990)
    best = models[(models["variant"] == "at") & (models["checkpoint"] == "best")].iloc[0]
    assert (best["test_rerr_aa"], best["test_rloss_pgd"]) == (54.6, 1.53)
    scaled = models[models["variant"] == "at-scaled-2"].iloc[0]
    assert (scaled["hessian_max"], scaled["derived"]) == (505, 1)


def test_printed_curves_are_in_the_units_of_the_kit():
    published = printed.read_published()
    at = published.history[published.history["variant"] == "at"]
    assert at["test_rerr"].between(50, 75).all()  # per cent
    assert at["normalised_epoch"].iloc[-1] == 1
    drops = at["normalised_epoch"][at["learning_rate"].diff() < 0].to_numpy()
    # Drops at 60, 90 and 120 of 150 epochs show in the next thirtieth.
    assert drops == pytest.approx([13 / 30, 19 / 30, 25 / 30], abs=1e-3)
    series = published.series.set_index(["variant", "epoch"])
    assert series.loc[("at", 149.0), "hessian_max"] == pytest.approx(1990.3)
    assert len(published.series["variant"].unique()) == 17


def test_printed_cyclic_rates_peak_in_the_middle_of_each_cycle():
    history = printed.read_published().history
    rates = history[history["variant"] == "cyclic-2"]["learning_rate"].to_numpy()
    assert len(rates) == 60
    assert {int(np.argmax(rates[:30])), 30 + int(np.argmax(rates[30:]))} <= {14, 15, 44, 45}
    assert rates[[0, 29, 30, 59]].max() < 0.01


def test_quantities_have_words_and_a_direction():
    assert schema.describe("avg_flatness_rloss") == "average-case flatness in RLoss"
    assert "training examples" in schema.describe("train_avg_flatness_ce")
    assert schema.direction("avg_flatness_rloss") == "lower is flatter"
    assert schema.direction("test_rloss_pgd") == "lower is more robust"
    assert schema.direction("test_ce") == ""
