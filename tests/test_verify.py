"""`robust-flatness verify`: equal results are identical, changed ones are found."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from robust_flatness import cli
from robust_flatness.errors import FileError
from robust_flatness.run.verify import compared, verify_network
from robust_flatness.tables.records import read_network, read_records
from robust_flatness.tables.records import write_network as write_records
from untrained import MEASURES, measure, write_data, write_network


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """An experiment of three networks, one of which has been measured for real."""
    root = tmp_path_factory.mktemp("results") / "mine"
    data = write_data(root)
    folder = write_network(root, data)
    measure(folder, data, MEASURES)
    for variant in ("b", "c"):
        shutil.copytree(folder, root / variant / "seed-0")
    return root


@pytest.fixture
def results(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "mine"))


def edit(path: Path, change, header=lambda header: None) -> Path:
    """Change the records of a network, and what their file says of their origin."""
    provenance, _ = read_network(path)
    frame = read_records(path)
    header(provenance)
    frame = change(frame) if change else frame
    rows = frame.replace(np.nan, None).to_dict("records")
    write_records(path, provenance, rows)
    return path


def add(metric: str, amount: float, checkpoint: str = "best"):
    def change(frame):
        rows = (frame["metric"] == metric) & (frame["checkpoint"] == checkpoint) & (frame["split"] == "test")
        assert rows.sum() == 1
        frame.loc[rows, "value"] += amount
        return frame

    return change


def test_on_this_machine_records_are_identical_unless_changed(results):
    path = results / "at/seed-0/records.csv"
    agreement = verify_network(path)
    assert agreement.agrees
    assert agreement.records == agreement.equal == len(read_records(path)) > 50
    edit(path, add("rloss_pgd", 0.1))
    threads = torch.get_num_threads()
    done = CliRunner().invoke(cli.app, ["verify", str(results), "--sample", "0"])
    torch.set_num_threads(threads)
    assert [line.split()[-1] for line in done.output.splitlines()[1:]] == ["identical", "identical"]
    assert "DIFFER" in done.output.splitlines()[0]
    assert done.exit_code == 1
    assert sorted(path.name for path in path.parent.iterdir()) == [
        ".resume", "checkpoints", "examples.csv", "history.csv", "records.csv",
    ]  # fmt: skip


@pytest.fixture
def against(made, results):
    """`against(change)`: the agreement of changed records with those that were measured."""
    path = results / "at/seed-0/records.csv"
    return lambda change: compared(edit(path, change), made / "at/seed-0/records.csv")


def test_a_changed_value_is_found_and_named(against):
    agreement = against(add("rloss_pgd", 0.1))
    assert not agreement.agrees
    assert agreement.equal == agreement.records - 1
    assert "best, robustness, rloss_pgd" in agreement.where
    assert "DIFFER" in str(agreement)


@pytest.mark.parametrize(("amount", "agrees"), [(0.005, True), (0.1, False), (np.nan, False)])
def test_losses_agree_within_a_hundredth(against, amount, agrees):
    assert against(add("rloss_pgd", amount)).agrees is agrees


@pytest.mark.parametrize(("examples", "agrees"), [(2, True), (3, False)])
def test_errors_agree_within_two_examples(against, examples, agrees):
    """Each of 10 examples is 10 % of the error."""
    assert against(add("rerr_pgd", 10 * examples)).agrees is agrees


def test_other_weights_or_data_are_refused(results):
    path = results / "at/seed-0/records.csv"
    edit(path, None, lambda header: header["checkpoints"]["last"].update(sha256="0" * 64))
    with pytest.raises(FileError, match=r"last\.safetensors: not the checkpoint measured"):
        verify_network(path)
    edit(path, None, lambda header: header.update(data_sha256="0" * 64))
    with pytest.raises(FileError, match=r"seed-0\.safetensors: not the data measured"):
        verify_network(path)
