"""Tables of results: what is accepted, what is refused and how, the printed numbers, seeds."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from robust_flatness.config.networks import ROBUSTBENCH
from robust_flatness.errors import FileError
from robust_flatness.tables import aggregate, frames, importing, printed, schema
from robust_flatness.tables.rows import read_rows

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


def refused(path: Path) -> str:
    with pytest.raises(FileError) as error:
        importing.read_results_table(path)
    message = str(error.value)
    assert str(path) in message
    return message


def test_a_good_table_is_read_as_it_is(table):
    frame = importing.read_results_table(table(HEADER + ROW + "at,0,best,54.6,1.53,\n"))
    assert frame["test_rerr_aa"].tolist() == [62.8, 54.6]
    assert math.isnan(frame["avg_flatness_rloss"][1])
    assert frame["family"].tolist() == ["at", "at"]
    assert frame["label"][0] == "AT (baseline)"


def test_identity_may_be_left_out(table):
    frame = importing.read_results_table(table("variant,test_rloss_pgd\nat,1\ntrades-6,2\n"))
    assert frame["checkpoint"].tolist() == ["last", "last"]
    assert frame["seed"].tolist() == [0, 0]
    assert frame["family"].tolist() == ["at", "trades"]


def test_unknown_variants_are_kept_as_other(table):
    frame = importing.read_results_table(table(HEADER + ROW + "my-net,0,last,50,1.5,0.3\n"))
    assert frame["family"].tolist() == ["at", "other"]
    assert frame["label"][1] == "my-net"
    assert frame["derived"].tolist() == [0, 0]


def test_derived_models_are_known_as_such(table):
    frame = importing.read_results_table(table("variant,test_rloss_pgd\nat-scaled-2,1\n"))
    assert frame["derived"].tolist() == [1]
    assert aggregate.variants_at(frame).empty


def test_radii_and_spreads_are_columns(table):
    names = "avg_flatness_rloss_0.25,worst_flatness_ce_0.00075,train_avg_flatness_rloss_1.0_se,setting_width"
    frame = importing.read_results_table(table(f"variant,{names}\nat,1,2,3,wide\n"))
    assert frame["setting_width"][0] == "wide"
    assert schema.radius_columns(frame.columns, "avg") == {0.25: "avg_flatness_rloss_0.25"}
    assert schema.radius_columns(frame.columns, "worst", "ce") == {0.00075: "worst_flatness_ce_0.00075"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty"]),
        (HEADER, ["no rows"]),
        ("model,test_rloss_pgd\nat,1\n", ["'model'", "'variant' is missing"]),
        ("seed,test_rloss_pgd\n0,1\n", ["'variant' is missing", "'seed'"]),
        ("variant,seed\nat,0\n", ["no column holds a measure", "avg_flatness_rloss"]),
        ("variant,test_rlos_pgd\nat,1\n", ["'test_rlos_pgd'", "did you mean 'test_rloss_pgd'"]),
        ("variant,avg_flatnes_rloss\nat,1\n", ["did you mean 'avg_flatness_rloss'"]),
        ("variant,test_ce,test_ce\nat,1,2\n", ["'test_ce' appears more than once"]),
        ("variant,test_ce\nat,1\nat-2,1,3\n", ["row 3 has 3 cells", "header has 2"]),
        ("variant;test_ce\nat;1\n", ["'variant;test_ce'", "separate cells by commas"]),
        (
            HEADER + "at,0,last,high,3.91,1.22\n",
            ["row 2 (at)", "test_rerr_aa", "'high'", "not a finite number"],
        ),
        (HEADER + ROW + "mish,0,last,60,inf,1\n", ["row 3 (mish)", "test_rloss_pgd", "'inf'"]),
        (HEADER + "at,0,last,162.8,3.91,1.22\n", ["test_rerr_aa", "162.8", "0 to 100"]),
        (HEADER + "at,0,last,62.8,-3.91,1.22\n", ["test_rloss_pgd", "-3.91", "0 and above"]),
        (HEADER + ROW + "mish,0,last,1,1,1\n" + ROW, ["rows 2 and 4", "'at'", "seed 0", "'last'"]),
        (HEADER + "at,0,final,62.8,3.91,1.22\n", ["row 2", "'final'", "last, best"]),
        (HEADER + "at,0.5,last,62.8,3.91,1.22\n", ["row 2", "seed", "0.5"]),
        (HEADER + ",0,last,62.8,3.91,1.22\n", ["row 2", "variant: empty"]),
    ],
)
def test_a_bad_table_is_refused_with_its_place(table, text, words):
    message = refused(table(text))
    for word in words:
        assert word in message


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"\xff\xfe\x00v\x00a")
    assert "UTF-8" in refused(path)
    assert "cannot be read" in refused(tmp_path / "absent.csv")


def test_byte_order_mark_and_blank_end_are_no_harm(table):
    frame = importing.read_results_table(table("\ufeff" + HEADER + ROW + "\n\n"))
    assert len(frame) == 1


def test_import_writes_all_tables_or_nothing(table, tmp_path):
    target = tmp_path / "results" / "mine"
    importing.import_table(table(HEADER + ROW), target)
    assert {path.name for path in target.iterdir()} == {f"{name}.csv" for name in schema.TABLES}
    tables = frames.read_tables(target)
    assert tables.models["test_rloss_pgd"].tolist() == [3.91]
    assert tables.history.empty
    with pytest.raises(FileError):
        importing.import_table(table(HEADER + ROW + ROW), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(FileError, match="no such file"):
        importing.import_table(tmp_path / "none.csv", target)


def test_import_takes_the_curves_beside_the_table_along(table, tmp_path):
    path = table(HEADER + ROW)
    (tmp_path / "history.csv").write_text("variant,epoch,normalised_epoch,test_rloss\nat,0,0.5,2.5\n")
    importing.import_table(path, tmp_path / "to")
    assert frames.read_table("history", tmp_path / "to" / "history.csv")["test_rloss"].tolist() == [2.5]


def test_columns_of_ones_own_are_kept(table, tmp_path):
    path = table("variant,test_rloss_pgd,optimiser,gpu_hours\nat,1,lion,2.5\nmish,2,sgd,\n")
    importing.import_table(path, tmp_path / "to")
    frame = frames.read_models(tmp_path / "to/models.csv")
    assert frame["optimiser"].tolist() == ["lion", "sgd"]
    assert frame["gpu_hours"][0] == 2.5
    assert math.isnan(frame["gpu_hours"][1])


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs/results").glob("*/models.csv")), ids=lambda p: p.parent.name
)
def test_the_kit_reads_what_it_writes(path, tmp_path):
    importing.import_table(path, tmp_path / "once")
    importing.import_table(tmp_path / "once/models.csv", tmp_path / "twice")
    for name in schema.TABLES:
        once, twice = (tmp_path / f"{folder}/{name}.csv" for folder in ("once", "twice"))
        assert once.read_bytes() == twice.read_bytes()
    given, kept = (read_rows(table) for table in (path, tmp_path / "once/models.csv"))
    assert set(given.columns) <= set(kept.columns)
    assert [row["variant"] for row in given.rows] == [row["variant"] for row in kept.rows]


def test_import_of_the_published_folder_brings_everything(tmp_path):
    importing.import_table(printed.published_directory() / "variants.csv", tmp_path)
    tables = frames.read_tables(tmp_path)
    published = printed.read_published()
    for name in ("models", "history", "series"):
        left, right = getattr(tables, name), getattr(published, name)
        assert len(left) == len(right)
        shared = [column for column in right.columns if pd.api.types.is_numeric_dtype(right[column])]
        assert np.allclose(left[shared].astype(float), right[shared].astype(float), equal_nan=True)


def test_written_numbers_read_back_exactly(tmp_path):
    values = [0.1, 1 / 3, 1e-17, 123456789.125, math.nan, -0.0]
    frame = printed.read_published().models.head(6).assign(test_ce=values)
    tables = frames.Tables(frame, *[frames.empty(("variant",))] * 3)
    frames.write_tables(tables, tmp_path)
    again = frames.read_models(tmp_path / "models.csv")
    assert np.array_equal(again["test_ce"].to_numpy(), np.array(values), equal_nan=True)


def test_an_empty_history_is_an_empty_table(tmp_path):
    (tmp_path / "history.csv").write_text("variant\n")
    history = frames.read_table("history", tmp_path / "history.csv")
    assert history.empty
    assert "test_rloss" in history
    assert aggregate.over_seeds(history, ("variant", "epoch")).empty


def test_published_models_are_as_printed():
    models = printed.read_published().models
    assert (models["checkpoint"] == "best").sum() == 74
    assert (models["family"] == ROBUSTBENCH).sum() == 8
    at = models[(models["variant"] == "at") & (models["checkpoint"] == "last")].iloc[0]
    assert (at["test_rerr_aa"], at["avg_flatness_rloss"], at["hessian_max"]) == (62.8, 1.22, 1990)
    best = models[(models["variant"] == "at") & (models["checkpoint"] == "best")].iloc[0]
    assert (best["test_rerr_aa"], best["test_rloss_pgd"]) == (54.6, 1.53)
    scaled = models[models["variant"] == "at-scaled-2"].iloc[0]
    assert (scaled["hessian_max"], scaled["derived"]) == (505, 1)


def test_published_curves_are_in_our_units():
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


def test_variants_of_ones_own_are_no_printed_numbers(monkeypatch, tmp_path):
    before = printed.read_published()
    mine = (ROOT / "config/variants.yaml").read_text() + (
        "mine: {label: Mine, family: learning-rate, scale: {learning_rate: 3}}\n"
        "round: {label: Round, family: cyclic, set: {schedule: cyclic}}\n"
    )
    (tmp_path / "config").mkdir()
    (tmp_path / "config/variants.yaml").write_text(mine.replace("label: TRADES", "label: Trades"))
    (tmp_path / "paper_tables").symlink_to(ROOT / "paper_tables")
    monkeypatch.chdir(tmp_path)
    frames.catalogue.cache_clear()
    try:
        assert "mine" in frames.catalogue()
        after = printed.read_published()
    finally:
        frames.catalogue.cache_clear()
    for name in schema.TABLES:
        pd.testing.assert_frame_equal(getattr(after, name), getattr(before, name))


def test_cyclic_rates_peak_in_the_middle_of_each_cycle():
    history = printed.read_published().history
    rates = history[history["variant"] == "cyclic-2"]["learning_rate"].to_numpy()
    assert len(rates) == 60
    assert {int(np.argmax(rates[:30])), 30 + int(np.argmax(rates[30:]))} <= {14, 15, 44, 45}
    assert rates.max() <= 0.2
    assert rates[[0, 29, 30, 59]].max() < 0.01


def test_seeds_are_averaged_with_their_spread():
    models = printed.read_published().models
    second = models.assign(seed=1, test_rloss_pgd=models["test_rloss_pgd"] + 1)
    variants = aggregate.variants_at(pd.concat([models, second])).set_index("variant")
    assert variants.loc["at", "test_rloss_pgd"] == pytest.approx(4.41)
    assert variants.loc["at", "test_rloss_pgd_seed_sd"] == pytest.approx(math.sqrt(0.5))
    assert variants.loc["at", "seeds"] == 2
    assert variants.loc["at", "label"] == "AT (baseline)"
    assert "test_rloss_pgd_seed_sd" not in aggregate.variants_at(models)


def test_seeds_have_a_standard_error():
    models = printed.read_published().models
    seeds = [models.assign(seed=seed, test_rloss_pgd=models["test_rloss_pgd"] + seed) for seed in range(4)]
    at = aggregate.variants_at(pd.concat(seeds)).set_index("variant").loc["at"]
    assert at["test_rloss_pgd_seed_se"] == pytest.approx(at["test_rloss_pgd_seed_sd"] / 2)


def rows_of(**columns) -> pd.DataFrame:
    """A table of one variant per value, at its last checkpoint."""
    count = len(next(iter(columns.values())))
    frame = pd.DataFrame({"variant": [f"v{i}" for i in range(count)], "seed": 0, "checkpoint": "last"})
    return frame.assign(derived=0, **columns)


def test_a_model_near_guessing_has_not_learnt():
    of_ten = rows_of(train_rerr_pgd=[79.9, 80.0, 90.0, math.nan])
    assert aggregate.learnt(of_ten).tolist() == [True, False, False, True]
    of_two = rows_of(train_rerr_pgd=[39.9, 40.0], classes=[2.0, 2.0])
    assert aggregate.learnt(of_two).tolist() == [True, False]
    uncertain = rows_of(train_rerr_pgd=[75.0, 75.0], train_rerr_pgd_se=[2.0, 3.0])
    assert aggregate.learnt(uncertain).tolist() == [True, False]


def test_a_model_with_a_measure_that_is_no_number_has_not_learnt():
    frame = rows_of(train_err=[5.0, 5.0], not_finite=["", "avg_flatness_rloss"])
    assert aggregate.learnt(frame).tolist() == [True, False]


def test_the_last_checkpoint_decides_for_the_model():
    last = rows_of(train_rerr_pgd=[10.0, 85.0])
    best = last.assign(checkpoint="best", train_rerr_pgd=[85.0, 20.0])
    assert aggregate.learnt(pd.concat([last, best], ignore_index=True)).tolist() == [True, False] * 2


def test_seeds_that_have_not_learnt_are_left_out_of_the_mean():
    seeds = [
        rows_of(train_rerr_pgd=errors).assign(seed=seed) for seed, errors in enumerate(([10, 85], [90, 90]))
    ]
    averaged = aggregate.variants_at(pd.concat(seeds, ignore_index=True))
    assert averaged["train_rerr_pgd"].tolist() == [10, 87.5]
    assert averaged["seeds"].tolist() == [1, 2]
    assert aggregate.learnt(averaged).tolist() == [True, False]


def test_a_measure_that_is_no_number_is_missing_and_named(table):
    header = "variant,test_rloss_pgd,avg_flatness_rloss,hessian_max,not_finite\n"
    frame = importing.read_results_table(table(header + "at,1,inf,nan,avg_flatness_rloss hessian_max\n"))
    assert frame[["avg_flatness_rloss", "hessian_max"]].isna().all(axis=None)
    assert not aggregate.learnt(frame).any()
    assert "'inf'" in refused(table(header + "at,inf,1,2,avg_flatness_rloss\n"))


def test_differences_are_within_a_variant():
    variants = aggregate.with_differences(printed.read_published().models).set_index("variant")
    assert len(variants) == 74
    assert variants.loc["at", "rloss_gap"] == pytest.approx(3.91 - 0.19)
    assert variants.loc["at", "rloss_overfitting"] == pytest.approx(3.91 - 1.53)
    assert variants.loc["at", "best_test_rerr_aa"] == 54.6


def test_ours_and_theirs_are_joined_by_variant(table):
    ours = aggregate.variants_at(
        importing.read_results_table(table(HEADER + ROW + "mine,0,last,50,1.5,0.3\n"))
    )
    joined = aggregate.join_published(ours, aggregate.variants_at(printed.read_published().models))
    assert joined["test_rloss_pgd_published"].tolist()[0] == 3.91
    assert math.isnan(joined["test_rloss_pgd_published"][1])


def test_absolute_values_compare_on_the_same_dataset_only(table):
    published = printed.read_published().models
    assert aggregate.same_data(published, published)
    assert not aggregate.same_data(published.assign(dataset="digits"), published)
    assert not aggregate.same_data(importing.read_results_table(table(HEADER + ROW)), published)


def test_columns_are_named_in_words():
    assert schema.describe("avg_flatness_rloss") == "average-case flatness in RLoss"
    assert schema.describe("worst_flatness_rloss_0.00075").endswith("(ξ = 0.00075)")
    assert "training examples" in schema.describe("train_avg_flatness_ce")
    assert schema.describe("avg_flatness_rloss_std").startswith("standard deviation")
    assert schema.direction("avg_flatness_rloss") == "lower is flatter"
    assert schema.direction("test_rloss_pgd") == "lower is more robust"
    assert schema.direction("test_ce") == ""


def test_scaled_models_stand_beside_the_seed_they_were_made_from():
    rows = [("at", seed, 0, "at", 1.0 + seed) for seed in range(3)] + [("at-scaled-2", 1, 1, "scaled", 2.0)]
    columns = ("variant", "seed", "derived", "family", "avg_flatness_rloss")
    models = pd.DataFrame(rows, columns=columns).assign(checkpoint="last", train_err=5.0, classes=10)
    found = aggregate.with_scaled(models).set_index("variant")["avg_flatness_rloss"]
    assert found.to_dict() == {"at": 2.0, "at-scaled-2": 2.0}
    assert aggregate.with_scaled(models[models["derived"] == 0])["avg_flatness_rloss"].tolist() == [2.0]
