"""Wide tables of results become records: what is accepted, what is refused and how, the printed numbers."""

import math
from pathlib import Path

import pandas as pd
import pytest

from robust_flatness.config.networks import ROBUSTBENCH
from robust_flatness.errors import FileError
from robust_flatness.tables import frames, importing, printed
from robust_flatness.tables.records import read_csv, read_records

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "docs/results/digits"
HEADER = "variant,seed,checkpoint,test_rerr_aa,test_rloss_pgd,avg_flatness_rloss\n"
ROW = "at,0,last,62.8,3.91,1.22\n"


def imported(folder: Path, text: str) -> pd.DataFrame:
    """The frame of models after the import of a table."""
    (folder / "sent.csv").write_text(text, encoding="utf-8")
    importing.import_table(folder / "sent.csv", folder / "to")
    return frames.read_tables(folder / "to").models


def test_records_and_the_tables_beside_them_are_copied(tmp_path):
    importing.import_table(KEPT / "records.csv", tmp_path)
    for name in ("records.csv", "networks.csv", "history.csv"):
        assert (tmp_path / name).read_bytes() == (KEPT / name).read_bytes()
    assert len(frames.read_examples(tmp_path)) == len(read_csv(KEPT / "examples.csv"))


def test_records_with_errors_are_refused_before_anything_is_written(tmp_path):
    for name in ("networks", "history", "examples"):
        (tmp_path / f"{name}.csv").write_text("variant,seed\nat,0\n")
    for text in ("variant,value\nat,1\n", "variant,metric,value\nat,err,high\n"):
        (tmp_path / "records.csv").write_text(text)
        with pytest.raises(FileError, match=r"records\.csv"):
            importing.import_table(tmp_path / "records.csv", tmp_path / "to")
        assert not (tmp_path / "to").exists()


def test_a_wide_table_survives_as_records(tmp_path):
    """Every cell of kept results."""
    importing.import_table(KEPT / "models.csv", tmp_path)
    given = read_csv(KEPT / "models.csv")
    pd.testing.assert_frame_equal(given, read_csv(tmp_path / "models.csv")[given.columns])


def test_identity_may_be_left_out_and_unknown_variants_are_other(tmp_path):
    frame = imported(tmp_path, "variant,test_rloss_pgd\nat,1\ntrades-6,2\nmy-net,1.5\nat-scaled-2,1\n")
    assert frame["checkpoint"].tolist() == ["last"] * 4
    assert frame["seed"].tolist() == [0] * 4
    assert frame["family"].tolist()[:3] == ["at", "trades", "other"]
    assert frame["label"].tolist()[::2] == ["AT (baseline)", "my-net"]
    assert frame["derived"].tolist() == [0, 0, 0, 1]


def test_columns_of_the_user_are_kept(tmp_path):
    header = "variant,test_rloss_pgd,optimiser,gpu_hours,setting_width\n"
    frame = imported(tmp_path, header + "at,1,lion,2.5,wide\nmish,2,sgd,,3\n")
    assert frame["optimiser"].tolist() == ["lion", "sgd"]
    assert frame["gpu_hours"][0] == 2.5
    assert math.isnan(frame["gpu_hours"][1])
    assert frame["setting_width"].tolist() == ["wide", 3]


BAD_TABLES = [
    "", HEADER, "model,test_rloss_pgd\nat,1\n", "variant,seed\nat,0\n", "variant,test_rlos_pgd\nat,1\n",
    "variant,test_ce,test_ce\nat,1,2\n", "variant,test_ce\nat,1\nat-2,1,3\n",
    HEADER + ROW + "mish,0,last,high,3.91,1.22\n", HEADER + "at,0,last,162.8,3.91,1.22\n", HEADER + ROW + ROW,
    HEADER + "at,0,final,62.8,3.91,1.22\n", HEADER + ",0,last,62.8,3.91,1.22\n", "\xff\x00",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_TABLES)
def test_a_table_with_errors_is_refused_by_name(tmp_path, text):
    with pytest.raises(FileError, match=r"sent\.csv"):
        imported(tmp_path, text)
    assert not (tmp_path / "to").exists()


def test_printed_numbers_are_those_of_the_paper(tmp_path):
    """Snapshots are of every tenth of the baseline's 150 epochs, and the last."""
    importing.import_table(printed.published_directory() / "variants.csv", tmp_path)
    tables, read = frames.read_tables(tmp_path), printed.read_published()
    for name in ("models", "history", "series"):
        assert len(getattr(tables, name)) == len(getattr(read, name))
    places = tables.series.loc[tables.series["variant"] == "at", "normalised_epoch"]
    assert list(places) == [(epoch + 1) / 150 for epoch in (*range(0, 150, 10), 149)]
    models = tables.models
    assert (models["checkpoint"] == "best").sum() == 74
    assert (models["family"] == ROBUSTBENCH).sum() == 8
    at = models[(models["variant"] == "at") & (models["checkpoint"] == "last")].iloc[0]
    assert (at["test_rerr_aa"], at["avg_flatness_rloss"], at["hessian_max"]) == (62.8, 1.22, 1990)
    best = models[(models["variant"] == "at") & (models["checkpoint"] == "best")].iloc[0]
    assert (best["test_rerr_aa"], best["test_rloss_pgd"]) == (54.6, 1.53)
    scaled = tables.models[tables.models["variant"] == "at-scaled-2"].iloc[0]
    assert (scaled["hessian_max"], scaled["derived"]) == (505, 1)


def test_records_of_an_l2_experiment_name_the_norm(tmp_path):
    imported(tmp_path, HEADER.replace("\n", ",test_ce,setting_norm\n") + ROW.replace("\n", ",0.5,l2\n"))
    records = read_records(tmp_path / "to/records.csv").set_index("metric")
    norms = {"rerr_aa": "l2", "rloss_pgd": "l2", "avg_flatness": "l2", "ce": ""}
    assert records["norm"].fillna("").to_dict() == norms
