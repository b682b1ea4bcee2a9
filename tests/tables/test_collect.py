"""Results tables: every file of a job arrives in its place, and a missing one is an error."""

import csv
import json
import math

import pytest
from robust_flatness.tables.merging import merge_tables

from robust_flatness.errors import FileError
from robust_flatness.tables.collect import CollectSpec, collect_results
from robust_flatness.tables.rows import write_rows


def write_measure(directory, variant, checkpoint, name, epoch, values, details=None):
    path = directory / variant / "seed-0/measures" / checkpoint / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"checkpoint": {"epoch": epoch}, "values": values, "details": details or {}}
    path.write_text(json.dumps(content))


def read(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def results(tmp_path):
    for variant, offset in (("at", 0), ("trades-6", 10), ("at-scaled-2", 20)):
        for checkpoint, epoch in (("last", 4), ("best", 2)):
            value = offset + epoch
            write_measure(tmp_path, variant, checkpoint, "robustness", epoch, {"test_rloss_pgd": value + 0.1})
            write_measure(
                tmp_path, variant, checkpoint, "flatness", epoch, {"avg_flatness_rloss": value + 1 / 3}
            )
    curves = [{"direction": "random", "s": 0.5, "rloss": 2.0}]
    for checkpoint in ("last", "best"):
        write_measure(tmp_path, "at", checkpoint, "landscape", 4, {}, {"curves": curves})
    for variant in ("at", "trades-6"):
        write_rows(
            tmp_path / variant / "seed-0/history.csv",
            [{"epoch": epoch, "train_loss": 1.5} for epoch in range(5)],
        )
    write_rows(tmp_path / "at/seed-0/series.csv", [{"epoch": 0, "test_rloss_pgd": 2.0}, {"epoch": 4}])
    write_rows(
        tmp_path / "at/seed-0/series-examples.csv",
        [{"epoch": 0, "checkpoint": "epoch-000", "split": "test", "example": 0, "rloss": 2.5, "rerr_pgd": 1}],
    )
    return tmp_path


def entry(**changed):
    measures = {"measures": ["robustness", "flatness"]}
    return {"label": "a label", "family": "a", "epochs": 5} | measures | changed


SPEC = {
    "variants": {
        "at": entry(measures=["robustness", "flatness", "landscape", "series"]),
        "trades-6": entry(settings={"objective": "trades"}),
        "at-scaled-2": entry(derived=True),
    },
    "baseline": {"objective": "at", "epochs": 5},
    "seeds": [0],
}


def test_every_measure_arrives_in_its_row(results):
    collect_results(CollectSpec.model_validate(SPEC), results)
    rows = read(results / "models.csv")
    assert [(row["variant"], row["checkpoint"]) for row in rows] == [
        (variant, checkpoint) for variant in SPEC["variants"] for checkpoint in ("last", "best")
    ]
    for row in rows:
        offset = {"at": 0, "trades-6": 10, "at-scaled-2": 20}[row["variant"]]
        value = offset + (4 if row["checkpoint"] == "last" else 2)
        assert float(row["test_rloss_pgd"]) == value + 0.1
        assert float(row["avg_flatness_rloss"]) == value + 1 / 3
        assert row["derived"] == str(int(row["variant"] == "at-scaled-2"))
        assert row["setting_objective"] == ("trades" if row["variant"] == "trades-6" else "at")
        assert row["setting_epochs"] == "5"


def test_histories_series_and_landscapes_arrive(results):
    collect_results(CollectSpec.model_validate(SPEC), results)
    history = read(results / "history.csv")
    assert [row["variant"] for row in history] == ["at"] * 5 + ["trades-6"] * 5
    series = read(results / "series.csv")
    assert [float(row["normalised_epoch"]) for row in series] == [0.2, 1.0]
    assert [row["test_rloss_pgd"] for row in series] == ["2.0", ""]
    assert {row["checkpoint"] for row in read(results / "landscape.csv")} == {"last"}


def test_layers_have_a_table_where_they_are_measured(results):
    collect_results(CollectSpec.model_validate(SPEC), results)
    assert not (results / "layers.csv").exists()
    rows = [{"layer": f"block/{n}.weight", "numbers": 4, "avg_flatness_rloss": n / 3} for n in range(2)]
    write_measure(results, "at", "last", "layers", 4, {"layers_test_examples": 8}, {"layers": rows})
    measured = {**SPEC, "variants": {**SPEC["variants"], "at": entry(measures=["layers"])}}
    spec = CollectSpec.model_validate(measured)
    collect_results(spec, results)
    found = read(results / "layers.csv")
    assert [(row["variant"], row["layer"], float(row["avg_flatness_rloss"])) for row in found] == [
        ("at", "block/0.weight", 0.0), ("at", "block/1.weight", 1 / 3)
    ]  # fmt: skip
    merge_tables([results, results], results / "both")
    assert (results / "both/layers.csv").read_bytes() == (results / "layers.csv").read_bytes()


def test_single_examples_arrive_with_their_split_and_number(results):
    examples = {
        "test": {"rloss": [1.5, 0.25], "rerr_pgd": [1, 0], "rerr_aa": [1, 1]},
        "train": {"rloss": [0.5], "rerr_pgd": [0]},
    }
    for checkpoint in ("last", "best"):
        write_measure(results, "trades-6", checkpoint, "robustness", 4, {}, {"examples": examples})
    collect_results(CollectSpec.model_validate(SPEC), results)
    rows = read(results / "examples.csv")
    of_baseline = [row for row in rows if row["variant"] == "at"]
    assert [(row["checkpoint"], row["rloss"], row["rerr_aa"]) for row in of_baseline] == [
        ("epoch-000", "2.5", "")
    ]
    last = [row for row in rows if row["checkpoint"] == "last"]
    assert [
        (row["split"], row["example"], row["rloss"], row["rerr_pgd"], row["rerr_aa"]) for row in last
    ] == [
        ("test", "0", "1.5", "1", "1"),
        ("test", "1", "0.25", "0", "1"),
        ("train", "0", "0.5", "0", ""),
    ]


def test_a_variant_may_have_seeds_of_its_own(results):
    for name in ("measures/last/robustness.json", "measures/best/robustness.json"):
        path = results / "at/seed-3" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((results / "at/seed-0" / name).read_bytes())
    write_rows(results / "at/seed-3/history.csv", [{"epoch": 0}])
    spec = {
        "variants": {
            "at": entry(measures=["robustness"], seeds=[0, 3]),
            "trades-6": entry(measures=["robustness"]),
        },
        "seeds": [0],
    }
    collect_results(CollectSpec.model_validate(spec), results)
    found = {(row["variant"], row["seed"]) for row in read(results / "models.csv")}
    assert found == {("at", "0"), ("at", "3"), ("trades-6", "0")}


def test_collecting_twice_gives_equal_bytes(results):
    names = ("models", "history", "series", "landscape")
    collect_results(CollectSpec.model_validate(SPEC), results)
    first = [(results / f"{name}.csv").read_bytes() for name in names]
    collect_results(CollectSpec.model_validate(SPEC), results)
    assert [(results / f"{name}.csv").read_bytes() for name in names] == first


@pytest.mark.parametrize(
    "file", ["at/seed-0/measures/best/flatness.json", "at/seed-0/history.csv", "at/seed-0/series.csv"]
)
def test_a_missing_file_is_named_and_no_table_is_written(results, file):
    (results / file).unlink()
    with pytest.raises(FileError, match=file):
        collect_results(CollectSpec.model_validate(SPEC), results)
    assert not (results / "models.csv").exists()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"variant\nx\n", b"epoch\nnone\n", b"epoch\n\x00\n"])
def test_a_damaged_series_is_named(results, content):
    (results / "at/seed-0/series.csv").write_bytes(content)
    with pytest.raises(FileError, match=r"at/seed-0/series\.csv"):
        collect_results(CollectSpec.model_validate(SPEC), results)


def test_floats_survive_the_table(tmp_path):
    values = [1 / 3, 1e-300, 123456789.123456789, -0.0, 5e-324, 2.0]
    write_rows(tmp_path / "t.csv", [{"x": value} for value in values])
    assert [float(row["x"]) for row in read(tmp_path / "t.csv")] == values


def test_text_survives_the_table(tmp_path):
    text = 'Late, "multi-step"\nα = 0.5'
    write_rows(tmp_path / "t.csv", [{"label": text, "b": 1}, {"c": math.pi}])
    rows = read(tmp_path / "t.csv")
    assert rows[0] == {"label": text, "b": "1", "c": ""}
    assert list(rows[1]) == ["label", "b", "c"]


def test_an_empty_table_has_a_header(tmp_path):
    write_rows(tmp_path / "t.csv", [])
    with open(tmp_path / "t.csv") as file:
        assert list(csv.reader(file)) == [["variant"]]


def test_rows_of_variants_not_asked_for_stay_where_they_were(results):
    """Tables of a narrower run are those of the full one, but for what was measured anew."""
    collect_results(CollectSpec.model_validate(SPEC), results)
    names = ("models", "history", "series", "landscape", "examples")
    first = {name: (results / f"{name}.csv").read_bytes() for name in names}
    variants = {slug: {**entry, "kept": slug == "trades-6"} for slug, entry in SPEC["variants"].items()}
    narrow = CollectSpec.model_validate(SPEC | {"variants": variants})
    collect_results(narrow, results)
    assert {name: (results / f"{name}.csv").read_bytes() for name in names} == first
    write_measure(results, "at", "last", "robustness", 4, {"test_rloss_pgd": 7.5})
    (results / "trades-6/seed-0/history.csv").unlink()  # what is kept is not looked at
    collect_results(narrow, results)
    rows = read(results / "models.csv")
    assert [row["variant"] for row in rows] == [slug for slug in SPEC["variants"] for _ in range(2)]
    assert rows[0]["test_rloss_pgd"] == "7.5"
    assert (results / "history.csv").read_bytes() == first["history"]


def test_standard_errors_are_those_of_the_examples(results):
    losses, errors = [1.0, 2.0, 4.0, 9.0], [0, 1, 1, 1]
    examples = {"test": {"rloss": losses, "rerr_pgd": errors}}
    write_measure(results, "at", "last", "robustness", 4, {"test_rloss_pgd": 4.0}, {"examples": examples})
    collect_results(CollectSpec.model_validate(SPEC), results)
    row = read(results / "models.csv")[0]
    assert float(row["test_rloss_pgd_se"]) == pytest.approx(math.sqrt(38 / 3 / 4))
    assert float(row["test_rerr_pgd_se"]) == pytest.approx(25)


def test_a_measure_that_is_no_number_is_named(results):
    values = {"avg_flatness_rloss": math.inf, "worst_flatness_rloss": math.nan, "avg_flatness_ce": 1.0}
    write_measure(results, "at", "last", "flatness", 4, values)
    collect_results(CollectSpec.model_validate(SPEC), results)
    assert read(results / "models.csv")[0]["not_finite"] == "avg_flatness_rloss worst_flatness_rloss"


def test_rows_say_with_which_settings_they_were_made(results):
    def columns(radius, precision="float32", **more):
        path = results / "at/seed-0/measures/last/flatness.json"
        content = json.loads(path.read_text())
        content["spec"] = {
            **{"attack": {"epsilon": 0.1, "step_size": 0.025, "steps": 2}, "precision": precision},
            **{"average": {"xi": [radius]}, "worst": {"xi": [0.003]}},
            **{"test_examples": 10, "train_examples": 10, **more},
        }
        content["provenance"] = {"torch": "2.14.1", "git_commit": "0123456789abcdef-dirty", "device": "cpu"}
        path.write_text(json.dumps(content))
        collect_results(CollectSpec.model_validate(SPEC | {"config": "c0ffee00"}), results)
        return read(results / "models.csv")[0]

    first, other, coarse = columns(0.5), columns(0.25), columns(0.5, "bfloat16")
    assert (first["run_config"], first["run_torch"]) == ("c0ffee00", "2.14.1")
    assert first["run_commit"] == "0123456789ab-dirty"
    assert first["run_flatness"] != other["run_flatness"]
    assert first["run_flatness"] == coarse["run_flatness"]
    # A setting that has its default is the same as one that did not exist yet.
    assert columns(0.5, variants="all")["run_flatness"] == first["run_flatness"]
    assert (first["run_precision"], coarse["run_precision"]) == ("float32", "bfloat16")


def test_variants_that_come_out_as_one_model_are_marked(results):
    for variant in ("at", "trades-6"):
        path = results / variant / "seed-0/measures/last/robustness.json"
        content = json.loads(path.read_text())
        content["checkpoint"]["weights_sha256"] = "5a3e" * 16
        path.write_text(json.dumps(content))
    collect_results(CollectSpec.model_validate(SPEC), results)
    marked = {row["variant"]: row["same_as"] for row in read(results / "models.csv")}
    assert marked == {"at": "", "trades-6": "at", "at-scaled-2": ""}


def test_tables_of_another_run_are_joined(results, tmp_path):
    collect_results(CollectSpec.model_validate(SPEC), results)
    kept = tmp_path / "kept"
    kept.mkdir()
    for path in results.glob("*.csv"):
        path.rename(kept / path.name)
    narrow = SPEC | {"variants": {"at": SPEC["variants"]["at"]}}
    collect_results(CollectSpec.model_validate(narrow), results, [kept])
    assert (results / "models.csv").read_bytes() == (kept / "models.csv").read_bytes()
    assert (results / "history.csv").read_bytes() == (kept / "history.csv").read_bytes()
