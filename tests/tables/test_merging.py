"""Tables of several runs as one: nothing is lost, nothing doubled, and what does not fit is named."""

import gzip

import pytest

from robust_flatness.errors import FileError
from robust_flatness.tables.merging import check_other_runs, merge_tables
from robust_flatness.tables.rows import read_rows, write_rows
from robust_flatness.tables.schema import TABLES

RUN = {
    **{"run_config": "c0ffee00", "run_robustness": "aaaa0000", "run_version": "0.1.0", "run_torch": "2.14.1"},
    **{"run_commit": "abc", "run_device": "cpu x86_64", "run_precision": "float32", "run_data": "d1"},
}


def model(variant, seed=0, checkpoint="last", **changed):
    row = {"variant": variant, "seed": seed, "checkpoint": checkpoint, "test_rloss_pgd": 1.5}
    row |= {"setting_precision": "float32", "setting_weight_decay": 0.0005, **RUN}
    return row | {"run_weights": f"{variant}-{seed}-{checkpoint}"} | changed


@pytest.fixture
def run(tmp_path):
    """Writes a run's folder: run(name, rows of models, history=..., ...)."""

    def write(name, models, **tables):
        for table, rows in {"models": models, **tables}.items():
            write_rows(tmp_path / name / f"{table}.csv", rows)
        return tmp_path / name

    return write


def refused(sources, tmp_path) -> str:
    with pytest.raises(FileError) as error:
        merge_tables(sources, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return str(error.value)


def test_rows_of_two_machines_become_one_table(run, tmp_path):
    here = run("here", [model("at"), model("at", checkpoint="best")], history=[{"variant": "at", "epoch": 0}])
    gpu = {"run_device": "cuda NVIDIA H100", "run_torch": "2.14.1+cu128", "run_commit": "def"}
    there = run("there", [model("trades-6", **gpu), model("at", seed=1, **gpu)])
    merge_tables([here, there], tmp_path / "out")
    rows = read_rows(tmp_path / "out/models.csv").rows
    assert [(row["variant"], row["seed"], row["checkpoint"]) for row in rows] == [
        ("at", "0", "last"), ("at", "0", "best"), ("at", "1", "last"), ("trades-6", "0", "last"),
    ]  # fmt: skip
    assert rows[-1]["run_device"] == "cuda NVIDIA H100"
    assert {path.stem for path in (tmp_path / "out").iterdir()} == set(TABLES)
    assert read_rows(tmp_path / "out/history.csv").rows == [{"variant": "at", "epoch": "0"}]


def test_all_tables_are_merged(run, tmp_path):
    def tables(variant):
        key = {"variant": variant, "seed": 0}
        of_checkpoint = key | {"checkpoint": "last"}
        point = {"direction": "random", "normalisation": "layer", "scale": 0.5, "s": 0.1, "rloss": 2.0}
        return {
            "history": [key | {"epoch": epoch, "train_loss": epoch} for epoch in range(3)],
            "series": [key | {"epoch": 2, "test_rloss_pgd": 1.0}],
            "landscape": [of_checkpoint | point],
            "examples": [of_checkpoint | {"split": "test", "example": 0, "rloss": 0.5}],
        }

    sources = [run(slug, [model(slug)], **tables(slug)) for slug in ("at", "mish")]
    merge_tables(sources, tmp_path / "out")
    for name, rows in tables("at").items():
        assert len(read_rows(tmp_path / f"out/{name}.csv").rows) == 2 * len(rows)


def test_a_packed_table_is_read_as_the_plain_one(run, tmp_path):
    kept = run(
        "kept", [model("at")], examples=[{"variant": "at", "split": "test", "example": 0, "rloss": 0.5}]
    )
    merge_tables([kept], tmp_path / "plain")
    path = kept / "examples.csv"
    (kept / "examples.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    merge_tables([kept], tmp_path / "packed")
    for name in TABLES:
        plain, packed = (tmp_path / folder / f"{name}.csv" for folder in ("plain", "packed"))
        assert plain.read_bytes() == packed.read_bytes()
    (kept / "examples.csv.gz").write_bytes((kept / "examples.csv.gz").read_bytes()[:-9])
    assert "examples.csv.gz: cannot be read" in refused([kept], tmp_path)


def test_merging_again_changes_nothing(run, tmp_path):
    sources = [run("a", [model("at")]), run("b", [model("mish")])]
    merge_tables(sources, tmp_path / "out")
    first = (tmp_path / "out/models.csv").read_bytes()
    merge_tables([tmp_path / "out", *sources], tmp_path / "again")
    assert (tmp_path / "again/models.csv").read_bytes() == first


def test_a_measure_made_elsewhere_joins_its_row(run, tmp_path):
    hessian = model("at", hessian_max=7.0, test_rloss_pgd="")
    merge_tables([run("a", [model("at")]), run("b", [hessian])], tmp_path / "out")
    (row,) = read_rows(tmp_path / "out/models.csv").rows
    assert (row["test_rloss_pgd"], row["hessian_max"]) == ("1.5", "7.0")


def test_numbers_are_equal_however_they_are_written(run, tmp_path):
    a, b = (run(name, [model("at", test_err=cell)]) for name, cell in (("a", "20.0"), ("b", "20")))
    merge_tables([a, b], tmp_path / "out")
    assert len(read_rows(tmp_path / "out/models.csv").rows) == 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"test_rloss_pgd": 1.75}, ["models.csv", "variant at, seed 0, checkpoint last", "1.5", "1.75"]),
        ({"run_weights": "other"}, ["run_weights", "variant at"]),
        ({"run_config": "deadbeef"}, ["another config", "deadbeef", "c0ffee00"]),
        ({"run_config": ""}, ["another config", "nothing"]),
        ({"run_robustness": "bbbb0000"}, ["other settings of robustness", "bbbb0000"]),
        ({"run_version": "0.2.0"}, ["another version", "0.2.0"]),
        ({"run_torch": "2.9.0"}, ["another torch", "2.9.0"]),
        ({"run_precision": "bfloat16"}, ["another precision of the measures", "bfloat16"]),
        ({"setting_precision": "bfloat16"}, ["another precision of training", "bfloat16"]),
        ({"run_data": "d2"}, ["other data", "seed 0", "d2"]),
        ({"setting_weight_decay": 0.1}, ["setting_weight_decay", "0.1"]),
    ],
)
def test_what_does_not_fit_is_named(run, tmp_path, changed, words):
    message = refused([run("a", [model("at")]), run("b", [model("at", **changed)])], tmp_path)
    assert f"{tmp_path / 'b'}" in message
    for word in words:
        assert word in message


def test_a_row_that_is_twice_in_one_table_is_named(run, tmp_path):
    assert "twice" in refused([run("a", [model("at"), model("at")]), run("b", [model("mish")])], tmp_path)


def test_many_problems_are_counted(run, tmp_path):
    a, b = ([model("at", seed=seed, test_rloss_pgd=loss) for seed in range(9)] for loss in (1, 2))
    assert "4 more" in refused([run("a", a), run("b", b)], tmp_path)


def test_tables_of_ones_own_say_nothing_of_their_run(run, tmp_path):
    rows = [[{"variant": slug, "test_rloss_pgd": 1}] for slug in ("mine", "yours")]
    merge_tables([run(f"run-{i}", own) for i, own in enumerate(rows)], tmp_path / "out")
    assert [row["variant"] for row in read_rows(tmp_path / "out/models.csv").rows] == ["mine", "yours"]


def test_a_folder_without_tables_is_named(tmp_path):
    assert str(tmp_path / "nothing/models.csv") in refused([tmp_path / "nothing"], tmp_path)


def test_tables_of_another_experiment_are_found_before_anything_runs(run):
    folder = run("kept", [model("at")])
    check_other_runs([folder], "c0ffee00")
    with pytest.raises(FileError, match="another config"):
        check_other_runs([folder], "deadbeef")
    with pytest.raises(FileError, match="no such file"):
        check_other_runs([folder / "none"], "c0ffee00")


def test_variants_with_equal_weights_are_marked_across_runs(run, tmp_path):
    sources = [run("a", [model("mish")]), run("b", [model("silu", run_weights="mish-0-last")])]
    merge_tables(sources, tmp_path / "out")
    rows = read_rows(tmp_path / "out/models.csv").rows
    assert {row["variant"]: row["same_as"] for row in rows} == {"mish": "", "silu": "mish"}
