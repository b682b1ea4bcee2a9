"""`robust-flatness verify`: equal results are identical, changed ones are found."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from robust_flatness.measuring.hessian import HessianSpec
from robust_flatness.measuring.robustness import RobustnessSpec
from robust_flatness.measuring.verify import sample_files, verify_file, verify_table
from robust_flatness.models import build_model
from robust_flatness.models.checkpoint import Metadata, save_checkpoint
from typer.testing import CliRunner

from robust_flatness import cli
from robust_flatness.config import DataSpec, ModelSpec
from robust_flatness.data import load_dataset, make_splits, save_dataset
from robust_flatness.errors import FileError
from robust_flatness.seeding import generator

ATTACK = {"epsilon": 0.1, "step_size": 0.05, "steps": 2}
ROBUSTNESS = RobustnessSpec(
    attack=ATTACK, autoattack=None, test_examples=10, train_examples=10, clean_test_examples=20,
    clean_train_examples=20,
)  # fmt: skip


def command(*arguments):
    """The command line in this process: another would import torch anew."""
    threads = torch.get_num_threads()
    try:
        return CliRunner().invoke(cli.app, list(map(str, arguments)))
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Results of two measures of one untrained network, in the layout of an experiment."""
    root = tmp_path_factory.mktemp("results") / "mine"
    data, run = root / "data/seed-0.safetensors", root / "at/seed-0"
    save_dataset(data, make_splits(DataSpec(name="digits", train=20, early_stopping=20, test=20), 0))
    dataset, spec = load_dataset(data), ModelSpec(name="small-resnet", width=2)
    for checkpoint, seed in (("last", 0), ("best", 1)):
        model = build_model(spec, 10, dataset.mean, dataset.std, generator(seed, "test"))
        described = Metadata(spec.model_dump(), 10, dataset.mean, dataset.std, "at", 0, seed)
        save_checkpoint(run / f"checkpoints/{checkpoint}.safetensors", model, described)
    for name, settings in (("robustness", ROBUSTNESS), ("hessian", HessianSpec(eigenvalues=2))):
        weights = [run / f"checkpoints/{checkpoint}.safetensors" for checkpoint in ("last", "best")]
        arguments = ["--spec", settings.json_text(), "--data", data, "--output", run]
        done = command("measure-checkpoints", name, *weights, *arguments)
        assert done.exit_code == 0, done.exception
    return root


@pytest.fixture
def results(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "mine"))


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_measures_say_what_made_them(results):
    content = json.loads((results / "at/seed-0/measures/last/robustness.json").read_text())
    assert content["spec"] == ROBUSTNESS.model_dump(mode="json")
    assert content["seed"] == 0
    assert content["data_sha256"] == load_dataset(results / "data/seed-0.safetensors").checksum
    assert len(content["checkpoint"]["sha256"]) == 64
    assert {"torch", "git_commit", "device", "threads", "robust_flatness"} <= content["provenance"].keys()


def test_on_this_machine_all_is_identical(results):
    files = sample_files(results, None, 0)
    assert len(files) == 3  # the Hessian is of the last checkpoint alone
    for path in files:
        agreement = verify_file(path)
        assert agreement.agrees
        assert agreement.values == agreement.equal > 3
    done = command("verify", results, "--sample", 0)
    assert "3 measures recomputed: 3 identical" in done.output
    assert "models.csv: not there yet" in done.output
    assert done.exit_code == 1


def test_a_changed_value_is_found(results):
    path = results / "at/seed-0/measures/best/robustness.json"
    edit(
        path,
        lambda content: content["values"].update(test_rloss_pgd=content["values"]["test_rloss_pgd"] + 0.1),
    )
    agreement = verify_file(path)
    assert not agreement.agrees
    assert "test_rloss_pgd" in agreement.column
    assert "DIFFER" in str(agreement)


def test_a_rounding_agrees_and_is_told(results):
    path = results / "at/seed-0/measures/best/robustness.json"
    edit(path, lambda content: content["values"].update(test_ce=content["values"]["test_ce"] * (1 + 1e-7)))
    agreement = verify_file(path)
    assert agreement.agrees
    assert agreement.equal == agreement.values - 1


def test_single_examples_may_differ_where_their_means_agree(results):
    """On another machine one example more may be fooled, and its loss be another one."""
    path = results / "at/seed-0/measures/best/robustness.json"

    def change(content):
        examples = content["details"]["examples"]["test"]
        examples["rerr_pgd"][0] = 1 - examples["rerr_pgd"][0]
        examples["rloss"][0] += 0.5

    edit(path, change)
    agreement = verify_file(path)
    assert agreement.agrees
    assert agreement.equal == agreement.values - 2


def test_lists_of_examples_that_an_earlier_version_did_not_keep_are_not_compared(results):
    path = results / "at/seed-0/measures/best/robustness.json"
    edit(path, lambda content: content["details"]["examples"]["test"].pop("rloss"))
    agreement = verify_file(path)
    assert agreement.values == agreement.equal > 3


def test_what_is_missing_differs(results):
    path = results / "at/seed-0/measures/last/robustness.json"
    edit(path, lambda content: content["values"].clear())
    agreement = verify_file(path)
    assert not agreement.agrees
    assert agreement.values > 3


@pytest.mark.parametrize("value", [float("nan"), None, "1", float("inf"), [1.0], {}])
def test_what_is_no_number_differs(results, value):
    path = results / "at/seed-0/measures/best/robustness.json"
    edit(path, lambda content: content["values"].update(test_ce=value))
    assert not verify_file(path).agrees


def test_other_weights_or_data_are_refused(results):
    path = results / "at/seed-0/measures/last/robustness.json"
    edit(path, lambda content: content["checkpoint"].update(sha256="0" * 64))
    with pytest.raises(FileError, match=r"last\.safetensors: not the checkpoint measured"):
        verify_file(path)
    edit(path, lambda content: content.update(data_sha256="0" * 64))
    with pytest.raises(FileError, match=r"seed-0\.safetensors: not the data measured"):
        verify_file(path)
    edit(path, lambda content: content.pop("spec"))
    with pytest.raises(FileError, match="damaged"):
        verify_file(path)


def test_the_table_is_held_against_the_measures(results):
    path = results / "at/seed-0/measures/last/robustness.json"
    values = json.loads(path.read_text())["values"]
    header = ["variant", "seed", "checkpoint", *values]
    row = ["at", "0", "last", *map(str, values.values())]
    (results / "models.csv").write_text(",".join(header) + "\n" + ",".join(row) + "\n")
    assert verify_table(results, [path]) == []
    row[header.index("test_ce")] += "1"
    (results / "models.csv").write_text(",".join(header) + "\n" + ",".join(row) + "\n")
    problems = verify_table(results, [path])
    assert len(problems) == 1
    assert "test_ce of at, 0, last" in problems[0]
    row[0] = "trades-6"  # a run of other variants has made the table
    (results / "models.csv").write_text(",".join(header) + "\n" + ",".join(row) + "\n")
    assert verify_table(results, [path]) == []
    row[0], row[2] = "at", "best"
    (results / "models.csv").write_text(",".join(header) + "\n" + ",".join(row) + "\n")
    assert "no row for at, 0, last" in verify_table(results, [path])[0]


def test_samples_are_chosen_by_the_seed(results):
    assert sample_files(results, 2, 0) == sample_files(results, 2, 0)
    assert len({tuple(sample_files(results, 2, seed)) for seed in range(20)}) == 3  # all pairs


def test_a_folder_without_measures_is_named(tmp_path):
    done = command("verify", tmp_path)
    assert isinstance(done.exception, FileError)
    assert str(tmp_path) in str(done.exception)
