"""From the records of single networks to the tables of an experiment."""

import math
import shutil
from pathlib import Path

import pandas as pd
import pytest

from robust_flatness.data import load_dataset, save_dataset
from robust_flatness.errors import FileError
from robust_flatness.files import write_rows
from robust_flatness.tables import frames, schema
from robust_flatness.tables.collect import CollectSpec, collect_results, fingerprint
from robust_flatness.tables.dataset import write_dataset
from robust_flatness.tables.records import FIELDS, read_csv, read_network, read_records, write_network
from robust_flatness.training.history import write_history
from robust_flatness.version import __version__

BASELINE = {"objective": "at", "epochs": 5}
MEASURES = {"robustness": "aaaa", "flatness": "bbbb"}
SPEC = {
    "variants": {
        "at": {"label": "AT", "family": "at", "epochs": 5},
        "trades-6": {"label": "TRADES", "family": "trades", "epochs": 5, "settings": {"objective": "trades"}},
        "at-scaled-2": {"label": "AT x 2", "family": "scaled", "derived": True},
        "mine": {"label": "Mine", "family": "external", "derived": True, "external": True},
    },
    "baseline": BASELINE,
    "config": "c0ffee00",
    "measures": dict.fromkeys(("at", "trades-6", "at-scaled-2", "mine"), MEASURES),
}
MADE_BY = {"robust_flatness": __version__, "git_commit": "01ab", "torch": "2.14", "device": "cpu"}
MADE_BY |= {"device_name": "x"}
PAPER = Path(__file__).parents[2] / "docs/results/paper"
#: A float that no short decimal represents.
THIRD = 1 / 3


def network(directory, variant, seed=0, offset=0.0, weights="", **changed) -> Path:
    """Write the files of one network, as a measuring job does."""
    folder = directory / variant / f"seed-{seed}"
    settings = BASELINE | SPEC["variants"][variant].get("settings", {})
    described = {"epoch": 4, "notes": {"autoattack": "reduced"}, "precision": "float32", "sha256": "5a"}
    weights = weights or f"{variant}-{seed}"
    checkpoints = {"last": described | {"weights_sha256": weights}}
    if variant != "mine":
        checkpoints["best"] = described | {"epoch": 2, "weights_sha256": f"{weights} best"}
    header = {"checkpoints": checkpoints, "classes": 10, "config": "c0ffee00", "data_sha256": "da7a" * 16}
    header |= {"measures": MEASURES, "provenance": MADE_BY, "training": fingerprint(settings)} | changed
    key, rows = {"variant": variant, "seed": seed}, []
    for checkpoint, described in checkpoints.items():
        common = key | {"checkpoint": checkpoint, "epoch": described["epoch"]}
        loss = common | {"measure": "robustness", "metric": "rloss_pgd", "split": "test", "loss": "rloss"}
        rows.append(loss | {"value": offset + 1.5, "se": 0.25, "n": 40})
        flat = common | {"measure": "flatness", "split": "test", "loss": "rloss", "n": 40}
        rows.append(flat | {"metric": "average_xi", "value": 0.5, "loss": "", "split": ""})
        for xi in (0.5, 0.25):
            rows.append(flat | {"metric": "avg_flatness", "value": offset + xi * THIRD, "xi": xi})
    write_network(folder / "records.csv", header, rows)
    examples = [{**key, "checkpoint": "last", "split": "test", "example": 0, "rloss": offset, "rerr_pgd": 1}]
    write_rows(folder / "examples.csv", examples, schema.EXAMPLES)
    if variant in ("at", "trades-6"):
        write_history(folder / "history.csv", [key | {"epoch": epoch} for epoch in range(5)])
    return folder


@pytest.fixture
def results(tmp_path) -> Path:
    for number, variant in enumerate(SPEC["variants"]):
        network(tmp_path / "results", variant, offset=number)
    return tmp_path / "results"


def collect(directory: Path, **changed) -> tuple[frames.Tables, list[str]]:
    messages = collect_results(CollectSpec.model_validate(SPEC | changed), directory)
    return frames.read_tables(directory), messages


def tables_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("*.csv")}


def test_every_record_is_in_its_row_and_column(results):
    tables, messages = collect(results)
    assert not messages
    last = tables.models[tables.models["checkpoint"] == "last"].set_index("variant")
    assert [*last.index] == [*SPEC["variants"]]
    for number, (variant, row) in enumerate(last.iterrows()):
        assert row["test_rloss_pgd"] == number + 1.5
        assert row["test_rloss_pgd_se"] == 0.25
        assert row["avg_flatness_rloss"] == number + 0.5 * THIRD
        assert row["avg_flatness_rloss_0.25"] == number + 0.25 * THIRD
        assert row["not_finite"] == row["same_as"] == ""
        assert (row["classes"], row["autoattack"]) == (10, "reduced")
        assert row["derived"] == (variant in ("at-scaled-2", "mine"))
    assert last["setting_objective"].fillna("").tolist() == ["at", "trades", "at", ""]
    assert set(tables.models["variant"][tables.models["checkpoint"] == "best"]) == {*last.index} - {"mine"}
    assert tables.history["variant"].tolist() == ["at"] * 5 + ["trades-6"] * 5
    assert frames.read_examples(results)["rloss"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"config": "0ther"}, "another config"),
        ({"training": "0ther"}, "other settings or code of the training"),
        ({"provenance": MADE_BY | {"robust_flatness": "0.0.1"}}, "another version of this package (0.0.1)"),
        ({"data_sha256": "0ther"}, "other data"),
    ],
)
def test_networks_of_another_config_training_or_version_are_left_out_and_counted(results, changed, reason):
    data = results / "data/seed-0.safetensors"
    save_dataset(data, {"x_test": [0]})
    shutil.copy(data, data.with_name("seed-1.safetensors"))
    here = load_dataset(data).checksum
    for variant in SPEC["variants"]:
        network(results, variant, data_sha256=here)
    for seed in (0, 1):
        network(results, "trades-6", seed, **{"data_sha256": here} | changed)
    tables, messages = collect(results)
    (message,) = messages
    assert message.startswith(f"2 left out: {reason}")
    for table in (tables.models, tables.history, frames.read_examples(results)):
        assert "at" in set(table["variant"])
        assert "trades-6" not in set(table["variant"])
    assert "trades-6" not in set(read_records(results / "records.csv")["variant"])


def test_records_of_a_measure_with_other_settings_are_left_out_alone(results):
    network(results, "trades-6", offset=1, measures=MEASURES | {"flatness": "0ther"})
    tables, messages = collect(results)
    row = tables.models.set_index(["variant", "checkpoint"]).loc[("trades-6", "last")]
    assert row["test_rloss_pgd"] == 2.5
    assert math.isnan(row["avg_flatness_rloss"])
    assert "trades-6" in set(frames.read_examples(results)["variant"])
    assert messages == ["1 left out: records of flatness with other settings or code"]
    network(results, "trades-6", offset=1, measures=MEASURES | {"robustness": "0ther"})
    collect(results)  # values of single examples are of robustness
    assert "trades-6" not in set(frames.read_examples(results)["variant"])


def test_models_trained_on_clean_examples_alone_are_in_values_of_single_examples_and_models_csv_only(results):
    settings = {"objective": "at", "adversarial_fraction": 0}
    clean = SPEC["variants"]["trades-6"] | {"settings": settings}
    network(results, "trades-6", offset=1, training=fingerprint(BASELINE | settings))
    tables, _ = collect(results, variants=SPEC["variants"] | {"trades-6": clean})
    for table in (tables.models, tables.history):
        assert "at" in set(table["variant"])
        assert "trades-6" not in set(table["variant"])
    for table in (frames.read_examples(results), read_csv(results / "models.csv")):
        assert "trades-6" in set(table["variant"])


def test_a_folder_copied_from_another_machine_joins_the_tables(results, tmp_path):
    """The order of the tables is that of the catalogue, not that of arrival."""
    network(results, "at", seed=1, offset=5)
    collect(results)
    whole, here = tables_of(results), tmp_path / "here"
    shutil.copytree(results, here)
    for moved in ("trades-6", "at/seed-1"):
        shutil.rmtree(here / moved)
    assert "trades-6" not in set(collect(here)[0].models["variant"])
    for moved in ("trades-6", "at/seed-1"):
        shutil.copytree(results / moved, here / moved)
    collect(here)
    assert tables_of(here) == whole


def test_variants_with_equal_weights_or_settings_are_marked(results):
    network(results, "at", weights="equal")
    network(results, "trades-6", offset=1, weights="equal")
    marked = collect(results)[0].models.groupby("variant")["same_as"].first().to_dict()
    assert marked == {"at": "", "trades-6": "at", "at-scaled-2": "", "mine": ""}


def test_numbers_and_texts_survive_the_file(tmp_path):
    values = [THIRD, 1e-300, 123456789.123456789, -0.0, 5e-324, 2.0, math.inf]
    rows = [{"variant": "a", "metric": "m", "coordinate": 'block/0, "w"', "value": value} for value in values]
    write_network(tmp_path / "records.csv", {"checkpoints": {}}, rows)
    again = read_records(tmp_path / "records.csv")
    assert again["value"].tolist() == values
    assert set(again["coordinate"]) == {'block/0, "w"'}
    assert again["se"].isna().all()


def test_a_record_that_is_not_finite_is_missing_and_named(results):
    path = results / "at/seed-0/records.csv"
    path.write_text(path.read_text().replace(str(0.5 * THIRD), "nan", 1).replace(str(0.25 * THIRD), "inf", 1))
    row = collect(results)[0].models.iloc[0]
    assert row["not_finite"] == "avg_flatness_rloss avg_flatness_rloss_0.25"
    assert math.isnan(row["avg_flatness_rloss"])
    assert math.isnan(row["avg_flatness_rloss_0.25"])


@pytest.mark.parametrize("content", ["", "# {}\n", "# {\nvariant,seed\nx,0\n"])
def test_damaged_records_are_named_and_no_table_is_written(results, content):
    path = results / "at/seed-0/records.csv"
    path.write_text(content)
    with pytest.raises(FileError, match=r"at/seed-0/records\.csv: damaged"):
        collect(results)
    with pytest.raises(FileError):
        read_network(path)
    assert not tables_of(results)


# The dataset: records of several experiments.


def test_the_dataset_holds_all_records_and_what_they_mean(results, tmp_path):
    folder = tmp_path / "dataset"
    collect(results)
    own = {"variant": "at", "measure": "sharpness", "metric": "mine", "loss": "ce", "value": "0.125"}
    with (results / "records.csv").open("a") as file:  # of a measure of the user's own
        file.write(",".join(own.get(name, "") for name in FIELDS) + "\n")
    count = write_dataset([results, PAPER], folder)
    frame = pd.read_csv(folder / "records.csv", keep_default_na=False, na_values=[""])
    assert len(frame) == count
    ours = frame[frame["experiment"] == "results"]
    assert ours["value"].tolist() == read_records(results / "records.csv")["value"].tolist()
    paper = frame[frame["experiment"] == "paper"]
    at = paper.query("variant == 'at' and metric == 'rerr_aa' and split == 'test' and checkpoint == 'last'")
    assert at["value"].tolist() == [62.8]
    parquet = pd.read_parquet(folder / "records.parquet")
    assert [*parquet.columns] == [*frame.columns] == ["experiment", *FIELDS]
    assert parquet["value"].tolist() == frame["value"].tolist()
    dictionary = read_csv(folder / "dictionary.csv")
    assert {*dictionary["metric"]} == {*frame["metric"]}
    assert all(dictionary["words"])
